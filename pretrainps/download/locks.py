"""Locks between processes, on every file system: the system's own where it has them, and otherwise a file that exists.

Network and cloud file systems often refuse `flock` (NFS without its lock service, FUSE, some containers). There the lock is a
marker file next to the other one. The system does not take a marker away when a process is killed, so a process that waits for
one logs its name.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

logger = logging.getLogger("pretrainps")

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY})
"""What `flock` answers where the file system has no such thing."""
SILENT_WAIT = 30.0
"""Seconds to wait for a marker file before saying what is waited for."""


def lacks_locks(error: BaseException) -> bool:
    """Return whether an error says that the file system knows no locks."""
    return isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno in NO_LOCKS)


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock that is named by a file.

    Args:
        path: The file; its folder exists.
        wait: Wait for another process that holds it, instead of giving up.

    Raises:
        LockedError: another process holds it, and `wait` is false.
        OSError: the folder cannot be written to.
    """
    lock = _acquired(path, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a network file system that went away; the lock went with it
            lock.release()


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        marker: The file that says so where the file system has no locks; `None` where it has.
    """

    def __init__(self, path: Path, marker: Path | None) -> None:
        super().__init__(f"{path} is held by another process")
        self.marker = marker


def _acquired(path: Path, wait: bool) -> BaseFileLock:
    native = FileLock(path)
    try:
        native.acquire(timeout=-1 if wait else 0)
        return native
    except Timeout as error:
        raise LockedError(path, None) from error
    except (OSError, NotImplementedError) as error:
        if not lacks_locks(error):
            raise
    marker = path.with_name(f"{path.name}.held")  # another name, for the native lock's own file stays where it is
    soft = SoftFileLock(marker)
    try:
        soft.acquire(timeout=SILENT_WAIT if wait else 0)
    except Timeout as error:
        if not wait:
            raise LockedError(path, marker) from error
        logger.warning(
            "waiting for another process, which holds %s. This file system has no locks, so a killed process may have left "
            "that file: if none is at work, delete it.",
            marker,
        )
        soft.acquire()
    return soft
