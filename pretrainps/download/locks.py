"""Locks between processes on every file system: native locks if available, otherwise a marker file.

Network and cloud file systems often refuse `flock` (NFS without its lock service, FUSE, some containers). There the lock is a
marker file next to the native lock's file. The system does not remove a marker when a process is killed, so a process that
waits for one logs its name.
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
"""Error numbers of `flock` on a file system without locks."""
SILENT_WAIT = 30.0
"""Seconds to wait for a marker file before a log message."""


def lacks_locks(error: BaseException) -> bool:
    """Return whether an error means that the file system has no locks."""
    return isinstance(error, NotImplementedError) or (isinstance(error, OSError) and error.errno in NO_LOCKS)


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock that a file stands for.

    Args:
        path: The lock file; its folder must exist.
        wait: Whether to wait for another process that holds it, instead of an error.

    Raises:
        LockedError: another process holds it, and `wait` is false.
        OSError: the folder cannot be written to.
    """
    lock = _acquired(path, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a network file system that is no longer reachable, and with it the lock
            lock.release()


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        marker: The marker file, on a file system without locks; else `None`.
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
    marker = path.with_name(f"{path.name}.held")  # another name, because the native lock's file stays
    soft = SoftFileLock(marker)
    try:
        soft.acquire(timeout=SILENT_WAIT if wait else 0)
    except Timeout as error:
        if not wait:
            raise LockedError(path, marker) from error
        logger.warning(
            "waiting for another process, which holds %s. This file system has no locks, so a killed process may have left "
            "that file: if no process is running, delete it.",
            marker,
        )
        soft.acquire()
    return soft
