"""Determine a file's kind from its bytes, and the imports of a pickle without unpickling it."""

from __future__ import annotations

import bz2
import contextlib
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
from pathlib import Path
from typing import Any

from pretrainps.download.pickled import ENDLESS_NAME as ENDLESS_NAME
from pretrainps.download.pickled import UNREADABLE, globals_of_stream
from pretrainps.download.signatures import CHECKPOINTS as CHECKPOINTS
from pretrainps.download.signatures import FileKind as FileKind
from pretrainps.download.signatures import is_shard_index, signature_of, text_kind
from pretrainps.errors import CheckpointFormatError

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError, ValueError, OSError)
"""Errors from an archive that is damaged, or of a kind that Python cannot read."""


LARGEST_HEADER = 100_000_000
"""The safetensors library's own limit on the JSON header, in bytes."""
_SCANNED = 1 << 16
"""Number of bytes of a pickle that are enough to determine its kind."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file, judged by its content only.

    Raises:
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if not head:
        return FileKind.EMPTY
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= min(LARGEST_HEADER, size - 8):
        return FileKind.SAFETENSORS
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    if head.startswith(b"\x80"):
        return FileKind.TORCH_LEGACY if _first_pickle_is_magic(path) else _pickle_kind(path)
    if head[257:262] == b"ustar" or _is_tar(path):
        return FileKind.TAR
    kind = signature_of(head, tail) or text_kind(head) or FileKind.UNKNOWN
    if kind is FileKind.JSON and size <= LARGEST_HEADER and is_shard_index(path.read_text("utf-8", "replace")):
        return FileKind.SHARD_INDEX
    return kind


def folder_advice(folder: Path) -> str | None:
    """Return a description and advice for a folder that is a common mistake; else `None`."""
    names = {path.name for path in folder.iterdir()}
    if "data.pkl" in names and {"data", "version"} & names:
        return (
            "it is an unpacked torch file: its data.pkl refers to the tensors in data/. Pack it again without compression "
            f"(zip -0 -r weights.pth {folder.absolute().name}, from the folder's parent), or take the original."
        )
    if "saved_model.pb" in names or any(name.endswith(".data-00000-of-00001") for name in names):
        return "it is a TensorFlow model, not torch weights. Save its arrays with torch.save or safetensors."
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return (
            "it is a checkpoint of torch.distributed in many files. Make one file of it: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pth."
        )
    return None


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
    """Return the number of bytes of tensors that a header describes; raise `ValueError` if it contradicts itself."""
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

    For a damaged file, it returns the names before the damage, with `ENDLESS_NAME` if a name or number has no end of line.

    Raises:
        OSError: the file cannot be read.
    """
    found: set[str] = set()
    if _is_zip(path):
        # a damaged archive: return the names found so far
        with contextlib.suppress(*_DAMAGED, RuntimeError, MemoryError), zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                # torch never compresses its pickle, and a few compressed bytes can become gigabytes: such files are refused
                if info.filename.endswith(".pkl") and info.compress_type == zipfile.ZIP_STORED:
                    with archive.open(info) as stream:
                        found.update(globals_of_stream(stream))
    else:
        with path.open("rb") as stream:
            # a legacy file is several pickles in a row: magic number, version, system, object, storage keys
            while stream.peek(1)[:1] == b"\x80" and stream.peek(2)[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
                found.update(globals_of_stream(stream))
    return found


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _DAMAGED:
        return FileKind.TORCH_ZIP  # truncated: the index at its end is missing; the reader will raise the error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return FileKind.TORCHSCRIPT
    if "data.pkl" in inner or "data.pkl" in names:
        return FileKind.TORCH_ZIP
    if "archive_format" in inner or any(name.startswith("models/") and name.endswith(".json") for name in inner | set(names)):
        return FileKind.EXPORTED_PROGRAM
    if "serialized_exported_program.json" in names:  # before torch 2.8
        return FileKind.EXPORTED_PROGRAM
    if any(name.startswith(".data/") for name in inner):
        return FileKind.PACKAGE
    if names and all(name.endswith(".npy") for name in names):
        return FileKind.NPZ
    return FileKind.KERAS if "model.weights.h5" in names else FileKind.ZIP


def _pickle_kind(path: Path) -> FileKind:
    """Distinguish a plain pickle from the one inside a torch zip, which refers to storages in other files."""
    with path.open("rb") as stream:
        head = stream.read(_SCANNED)
    try:
        unpacked = any(opcode.name == "BINPERSID" for opcode, _, _ in pickletools.genops(head))
    except UNREADABLE:
        unpacked = False
    return FileKind.UNPACKED if unpacked else FileKind.PICKLE


def _first_pickle_is_magic(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(32)
    try:
        return any(argument == _LEGACY_MAGIC for _, argument, _ in pickletools.genops(head))
    except UNREADABLE:
        return False


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except _DAMAGED:
        return True  # it has the signature of a zip file


def _is_tar(path: Path) -> bool:
    """Whether the first block, perhaps unpacked, is a tar header. `is_tarfile` would also read the contents it claims."""
    for opened in (io.FileIO, gzip.open, bz2.open, lzma.open):
        with contextlib.suppress(tarfile.TarError, *_DAMAGED), opened(path) as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            return True
    return False
