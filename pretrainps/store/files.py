"""Files that are either whole or not there: hashing, and writes that end in one `os.replace`."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pretrainps.errors import CacheError

_BLOCK = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


def sha256_of(path: Path) -> str:
    """Return the lower-case hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1_of(path: Path) -> str:
    """Return git's name of a file's bytes, which the Hub gives as the etag of files outside LFS."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def place(temporary: Path, final: Path) -> None:
    """Give a finished temporary file its final name, in one step and after its bytes are on disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)


@contextlib.contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; on success it becomes `final`, on any failure it vanishes.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    with disk_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would lock other users out of a shared cache
            place(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    """Write a small text file that is never seen half-written."""
    with new_file(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below `folder` into a `CacheError` that says what to do."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        if error.errno in _NO_SPACE:
            _no_space(folder, error)
        if error.errno in _NOT_WRITABLE:
            raise CacheError(
                f"the cache folder {folder} cannot be written to ({error.strerror}). "
                "Set PRETRAINPS_HOME to a folder you may write to."
            ) from error
        raise


def _no_space(folder: Path, error: OSError) -> NoReturn:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free / 1e6
    raise CacheError(
        f"no space left while writing to {folder} ({free:.0f} MB free, or a quota is reached). Nothing incomplete was kept. "
        "Free some space, or set PRETRAINPS_HOME to a folder on another disk."
    ) from error
