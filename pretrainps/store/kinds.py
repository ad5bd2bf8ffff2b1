"""Tell what a file is from its first bytes, and what a pickle would import, without unpickling anything."""

from __future__ import annotations

import bz2
import contextlib
import enum
import gzip
import io
import json
import lzma
import math
import pickle
import pickletools
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pretrainps.errors import CheckpointFormatError
from pretrainps.store.source import looks_like_html

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError, ValueError, OSError)
"""What reading an archive ends in when it is damaged, or of a kind that Python does not know."""


class FileKind(enum.Enum):
    """The container formats that turn up under weight-file names."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch zip (torch.save of 1.6 and later)"
    TORCH_LEGACY = "torch legacy pickle (torch.save before 1.6)"
    TORCHSCRIPT = "TorchScript archive"
    PICKLE = "plain pickle"
    TAR = "tar archive"
    ZIP = "zip archive without a torch checkpoint"
    HTML = "web page"
    EMPTY = "empty file"
    UNKNOWN = "unknown"


CHECKPOINTS = frozenset({FileKind.SAFETENSORS, FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.PICKLE})
"""What may hold tensors."""
LARGEST_HEADER = 100_000_000
"""The safetensors library's own limit on the JSON header, in bytes."""
ENDLESS_NAME = "(a name without an end)"
"""Stands among the imports of a pickle whose damage took the end of line behind a name: what the name is, nobody can say."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def kind_of(path: Path) -> FileKind:
    """Return what a file is, judged by its content only.

    Raises:
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return FileKind.EMPTY
    if looks_like_html(head):
        return FileKind.HTML
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= min(LARGEST_HEADER, size - 8):
        return FileKind.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(b"\x80"):
        return FileKind.TORCH_LEGACY if _first_pickle_is_magic(path) else FileKind.PICKLE
    return FileKind.TAR if head[257:262] == b"ustar" or _is_tar(path) else FileKind.UNKNOWN


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return a safetensors file's JSON header: `{key: {dtype, shape, data_offsets}}` and perhaps `__metadata__`.

    Raises:
        CheckpointFormatError: the header is damaged, or does not describe exactly the bytes that follow it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        length = struct.unpack("<Q", raw)[0] if len(raw) == 8 else 0
        if not 0 < length <= min(LARGEST_HEADER, size - 8):
            raise CheckpointFormatError(f"{path}: the safetensors header is damaged. Fetch the file again.")
        try:
            header = json.loads(file.read(length))
            end = _described_bytes(header)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise CheckpointFormatError(f"{path}: the safetensors header is damaged. Fetch the file again.") from error
    if 8 + length + end != size:
        raise CheckpointFormatError(
            f"{path}: the header announces {8 + length + end} bytes, the file has {size}. "
            "It is truncated or damaged; fetch it again."
        )
    return dict(header)


def _described_bytes(header: Any) -> int:
    """Return how many bytes of tensors a header describes; raise `ValueError` if it contradicts itself."""
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata is not text")
    end = 0
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        bits = int(re.findall(r"\d+", entry["dtype"])[0]) if entry["dtype"] != "BOOL" else 8
        whole = [start, stop, *entry["shape"]]
        if not all(type(number) is int and 0 <= number < 1 << 48 for number in whole):
            raise ValueError(f"{key}: not a shape")
        if math.prod(entry["shape"]) * bits != 8 * (stop - start):
            raise ValueError(f"{key}: shape and bytes differ")
        end = max(end, stop)
    return end


def pickled_globals(path: Path) -> set[str]:
    """Return every `module.name` that unpickling the file would import. Reads opcodes only; runs nothing.

    Of a damaged file, what was found until the damage; `ENDLESS_NAME` among it if a name or number has no end of line.

    Raises:
        OSError: the file cannot be read.
    """
    found: set[str] = set()
    if _is_zip(path):
        # a damaged archive: what was found until there is what can be said
        with contextlib.suppress(*_DAMAGED, RuntimeError, MemoryError), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # torch compresses no pickle; who does can make gigabytes of a few bytes, and torch is not given such files
                if info.filename.endswith(".pkl") and info.compress_type == zipfile.ZIP_STORED:
                    with archive.open(info) as stream:
                        found.update(_globals_of_stream(stream))
    else:
        with path.open("rb") as stream:
            # a legacy file is several pickles in a row: magic number, version, system, object, storage keys
            while stream.peek(1)[:1] == b"\x80" and stream.peek(2)[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
                found.update(_globals_of_stream(stream))
    return found


def _globals_of_stream(stream: IO[bytes]) -> Iterator[str]:
    """Follow strings through the memo, for STACK_GLOBAL names its import by the two strings pushed last."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:]) if len(strings) > 1 else "something unnamed"
            elif isinstance(argument, str):
                strings.append(argument)
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = strings[-1] if strings else ""
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int):
                memo[argument] = strings[-1] if strings else ""
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET") and isinstance(argument, int):
                strings.append(memo.get(argument, ""))
    except (ValueError, EOFError, UnicodeDecodeError, IndexError, OverflowError, MemoryError, struct.error) as error:
        if "no newline found" in str(error):
            yield ENDLESS_NAME
        return  # a damaged pickle: what was found until here is what can be said


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _DAMAGED:
        return FileKind.TORCH_ZIP  # truncated: its index, which lies at the end, is missing; reading it will say so
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return FileKind.TORCHSCRIPT
    return FileKind.TORCH_ZIP if "data.pkl" in inner else FileKind.ZIP


def _first_pickle_is_magic(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(32)
    try:
        return any(argument == _LEGACY_MAGIC for _, argument, _ in pickletools.genops(head))
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError, struct.error):
        return False


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except _DAMAGED:
        return True  # it says of itself that it is one


def _is_tar(path: Path) -> bool:
    """Whether the first block, perhaps after unpacking, is a member's head; `is_tarfile` goes on to whatever that claims."""
    for opened in (io.FileIO, gzip.open, bz2.open, lzma.open):
        with contextlib.suppress(tarfile.TarError, *_DAMAGED), opened(path) as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            return True
    return False
