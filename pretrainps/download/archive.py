"""Extract one file from a tar archive. No other file is ever written.

The archive is read once, as a stream, to its end, because gzip's checksum comes last. `tarfile` itself takes a header that it
cannot read for the end of the archive, without an error; here such a header counts as damage.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import IO, Self, cast

from pretrainps.download.kinds import FileKind, kind_of
from pretrainps.download.source import SourceError

LARGEST_MEMBER = 4 << 30
"""Largest size of a member: more bytes than any detector's checkpoint with its optimizer."""
LARGEST_ARCHIVE = 32 << 30
"""Largest unpacked size of an archive. Otherwise a small malicious archive could keep a process busy for days."""
_LARGEST_NAME = 1 << 20
_BLOCK = 1 << 20
_NAMES_SHOWN = 5
_NAMING = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Kinds of entry that hold the name of the next one; each is read into memory as a whole."""
_DAMAGE = (
    *(
        tarfile.TarError,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
    ),  # `BadGzipFile` is an `OSError`; other OSErrors come from the disk
    *(ValueError, ArithmeticError, LookupError, RecursionError),  # from tarfile, for invalid headers
)
"""Errors that damaged bytes cause."""


def extract_member(archive: Path, member: str, target: Path) -> None:
    """Write one regular file of a `.tar` or `.tar.gz` to `target`.

    Of several members with that name the last is used, as when the whole archive is unpacked.

    Args:
        archive: The archive.
        member: The file's path inside it; a leading `./` makes no difference.
        target: The file to write. On any failure it does not exist.

    Raises:
        SourceError: it is no archive, or is damaged; or the member is missing, is no regular file, or is too large.
        OSError: the disk fails.
    """
    try:
        with _unzipped(archive) as stream:
            _copy_last(archive, stream, member, target)
            while stream.read(_BLOCK):  # padding, then gzip's checksum
                _require_below(stream.tell(), LARGEST_ARCHIVE, "the archive")
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, _DAMAGE):
            raise SourceError(f"the archive is damaged ({error})", integrity=True) from error
        raise


class _Header(tarfile.TarInfo):
    """A header that must be complete: `tarfile` takes a broken one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise  # two blocks of zeros: the only valid end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0 or (header.type in _NAMING and header.size > _LARGEST_NAME):
            raise tarfile.ReadError("a header with an impossible size")
        return header


def _unzipped(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    # tarfile does not compare the checksums of gzip streams
    return cast("IO[bytes]", gzip.open(archive)) if zipped else archive.open("rb")


def _opened(archive: Path, stream: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r|", bufsize=_BLOCK, tarinfo=_Header)
    except tarfile.ReadError as error:
        kind = kind_of(archive)
        what = "it is damaged at its beginning" if kind is FileKind.TAR else f"it is no tar archive ({kind.value})"
        raise SourceError(what, integrity=True) from error


def _copy_last(archive: Path, stream: IO[bytes], member: str, target: Path) -> None:
    """Read the whole archive and write each regular file of that name over the one before."""
    wanted = member.removeprefix("./")
    found = False
    others: list[str] = []
    with _opened(archive, stream) as tar:
        for entry in tar:
            _require_below(entry.offset_data + entry.size, LARGEST_ARCHIVE, "the archive")
            if entry.name.removeprefix("./") != wanted:
                if entry.isreg() and len(others) < _NAMES_SHOWN:
                    others.append(entry.name[:100])
                continue
            if not entry.isreg():
                raise SourceError(f"{member} is no file in the archive, but a {_kind(entry)}", integrity=True)
            _require_below(entry.size, LARGEST_MEMBER, member)
            _copy(tar, entry, target)
            found = True
    if not found:
        there = ", ".join(map(repr, others)) or "no file at all"
        raise SourceError(f"the archive has no {member}; it has, among others, {there}", integrity=True)


def _copy(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    body = tar.extractfile(entry)
    if body is None:
        raise tarfile.ReadError(f"{entry.name} has no content")
    with body, target.open("wb") as file:
        left = entry.size
        while left > 0:
            block = body.read(min(left, _BLOCK))
            if not block:
                raise tarfile.ReadError("unexpected end of data")
            file.write(block)
            left -= len(block)


def _require_below(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise SourceError(f"{what} would take {size:,} bytes, more than the {limit:,} that are allowed", integrity=True)


def _kind(entry: tarfile.TarInfo) -> str:
    if entry.isdir():
        return "folder"
    return "link" if entry.issym() or entry.islnk() else "device or a pipe"
