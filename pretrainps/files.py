"""Hashes of files, and atomic writes: a file is either complete or absent, by one `os.replace` at the end."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pretrainps.errors import CacheError, PretrainPSError

WEIGHTS = "model.safetensors"
"""Name of a saved model's weight file, in a folder and on the Hub."""
CONFIG = "config.json"
"""Name of the configuration file next to it, which describes the model."""
FORMAT = 1
"""Version of that configuration."""
_BLOCK = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SUCH_CALL = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Error numbers of a file system for a call that it does not support."""


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1_of(path: Path) -> str:
    """Return git's hash of a file's bytes, which the Hub gives as the etag of files outside LFS."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def place(temporary: Path, final: Path) -> None:
    """Give a finished temporary file its final name, in one step, after its bytes are on disk."""
    with temporary.open("r+b") as file:  # some systems flush only files that are open for writing
        flush_to_disk(file.fileno())
    temporary.replace(final)


def flush_to_disk(handle: int) -> None:
    """Wait until an open file's bytes are on the disk, if the file system supports it.

    Raises:
        OSError: the disk failed or is full.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise


def flush_names(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system can open and flush a folder."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        # without a flush of folders (CIFS, FUSE) only the safety against a power cut is lost, not the files
        if error.errno not in _NO_SUCH_CALL | {errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF}:
            raise


@contextlib.contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """Yield a temporary path next to `final`. On success it becomes `final`, on failure it is removed.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name[:100]}.", suffix=".tmp", dir=final.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _share(temporary)
            place(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)


def _share(temporary: Path) -> None:
    """Give a temporary file the usual permissions: mkstemp's 0600 would lock other users out of a shared cache."""
    umask = os.umask(0)
    os.umask(umask)
    # cloud and Windows shares refuse this and set their own permissions; the file itself is complete
    with contextlib.suppress(OSError, NotImplementedError):
        temporary.chmod(0o600 | (0o666 & ~umask))


def write_text(final: Path, text: str) -> None:
    """Write a small text file in one step, so that no reader sees a part of it."""
    with new_file(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def disk_errors(place: Path, hint: str = "Choose another place.", *, verb: str = "written") -> Iterator[None]:
    """Turn errors of the operating system at `place` into a `CacheError` that says what to do.

    Args:
        place: The file or folder in use.
        hint: What to do, for the message.
        verb: The action in use: "written" or "read".
    """
    try:
        yield
    except PretrainPSError:
        raise
    except OSError as error:
        if error.errno is None:  # an error of another library that only derives from OSError
            raise
        if error.errno in _NO_SPACE:
            raise CacheError(
                f"no space left while writing {place} ({_free(place)} free, or a quota is reached). Nothing incomplete was "
                f"kept. Free some space. {hint}"
            ) from error
        raise CacheError(f"{place} cannot be {verb} ({error.strerror or error}). {hint}") from error


def _free(place: Path) -> str:
    while not place.exists() and place != place.parent:
        place = place.parent
    return f"{shutil.disk_usage(place).free / 1e6:.0f} MB"
