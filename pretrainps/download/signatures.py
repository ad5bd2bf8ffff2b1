"""The kinds of file that users mistake for weight files: their signatures, descriptions and advice."""

from __future__ import annotations

import enum
import json
import re

from pretrainps.download.source import looks_like_html


class FileKind(enum.Enum):
    """Formats of files that are found under names of weight files."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch zip (torch.save of 1.6 and later)"
    TORCH_LEGACY = "torch legacy pickle (torch.save before 1.6)"
    PICKLE = "plain pickle"
    SHARD_INDEX = "index of a sharded checkpoint"
    UNPACKED = "data.pkl of an unpacked torch zip"
    TORCHSCRIPT = "TorchScript archive"
    EXPORTED_PROGRAM = "exported program of torch.export"
    PACKAGE = "torch.package archive"
    ONNX = "ONNX graph"
    LFS_POINTER = "Git LFS pointer"
    NPZ = "NumPy .npz archive"
    NPY = "NumPy .npy array"
    KERAS = "Keras archive"
    HDF5 = "HDF5 file"
    TENSORFLOW_INDEX = "index of a TensorFlow checkpoint"
    TFLITE = "TensorFlow Lite graph"
    GGUF = "GGUF file"
    MATLAB = "MATLAB file"
    TAR = "tar archive"
    ZIP = "zip archive without a torch checkpoint"
    GZIP = "gzip file"
    BZIP2 = "bzip2 file"
    XZ = "xz file"
    ZSTD = "zstd file"
    LZ4 = "lz4 file"
    SEVEN_ZIP = "7z archive"
    RAR = "RAR archive"
    HTML = "web page"
    XML = "XML document"
    JSON = "JSON document"
    TEXT = "text"
    PDF = "PDF document"
    PICTURE = "picture"
    VIDEO = "video"
    DATABASE = "SQLite database"
    PARQUET = "Parquet table"
    PROGRAM = "program for the processor"
    ZEROS = "zeros"
    EMPTY = "empty file"
    UNKNOWN = "unknown"


CHECKPOINTS = frozenset({FileKind.SAFETENSORS, FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.PICKLE})
"""Formats that may hold tensors in one file."""

_NOT_TORCH = (
    "load it with the software that wrote it, and save its arrays with torch.save or safetensors under the names of a model."
)
_UNPACK = "neither safetensors nor a torch checkpoint yet. Unpack it{how} and give the checkpoint inside."
_NO_WEIGHTS = "not a weight file. Check the path or the address that it came from."

ADVICE: dict[FileKind, str] = {
    FileKind.UNPACKED: (
        "it is the data.pkl of an unpacked torch file: the tensors are in the files next to it. Pack the whole folder again "
        "without compression (zip -0 -r weights.pth FOLDER, from the folder's parent), or take the original."
    ),
    FileKind.TORCHSCRIPT: (
        "it is a TorchScript program, which is code and weights in one. Run it as it is (import torchvision; "
        "torch.jit.load(FILE)), or ask for the plain state dict."
    ),
    FileKind.EXPORTED_PROGRAM: (
        "it is an exported program of torch.export (.pt2), a graph to run rather than weights to load. Run it as it is "
        "(import torchvision; torch.export.load(FILE).module()), or load the model that it was exported from."
    ),
    FileKind.PACKAGE: "it is a torch.package archive, which holds code. Ask for the plain state dict.",
    FileKind.ONNX: (
        "it is an ONNX graph, a program to run rather than weights to load. Run it as it is "
        "(onnxruntime.InferenceSession(FILE)), or load the model that it was exported from."
    ),
    FileKind.LFS_POINTER: (
        "it is a Git LFS pointer: a few lines of text in place of the file, from a git clone without LFS. Run "
        "`git lfs pull` in that clone, or download the file itself."
    ),
    FileKind.NPZ: f"it is a NumPy .npz archive (JAX and Flax write such files), not a torch checkpoint: {_NOT_TORCH}",
    FileKind.NPY: f"it is one NumPy array (.npy), not a torch checkpoint: {_NOT_TORCH}",
    FileKind.KERAS: f"it is a Keras model (.keras), not a torch checkpoint: {_NOT_TORCH}",
    FileKind.HDF5: f"it is an HDF5 file (Keras and TensorFlow write .h5), not a torch checkpoint: {_NOT_TORCH}",
    FileKind.TENSORFLOW_INDEX: f"it is the index of a TensorFlow checkpoint, not a torch checkpoint: {_NOT_TORCH}",
    FileKind.TFLITE: f"it is a TensorFlow Lite graph, not a torch checkpoint: {_NOT_TORCH}",
    FileKind.GGUF: f"it is a GGUF file (llama.cpp), not a torch checkpoint: {_NOT_TORCH}",
    FileKind.MATLAB: f"it is a MATLAB file, not a torch checkpoint: {_NOT_TORCH}",
    FileKind.TAR: "it is a tar archive. Unpack it and give the checkpoint inside.",
    FileKind.ZIP: "it is a zip archive without a torch checkpoint. Unpack it and give the checkpoint inside.",
    FileKind.GZIP: f"it is compressed with gzip, {_UNPACK.format(how=' (gunzip)')}",
    FileKind.BZIP2: f"it is compressed with bzip2, {_UNPACK.format(how=' (bunzip2)')}",
    FileKind.XZ: f"it is compressed with xz, {_UNPACK.format(how=' (unxz)')}",
    FileKind.ZSTD: f"it is compressed with zstd, {_UNPACK.format(how=' (unzstd)')}",
    FileKind.LZ4: f"it is compressed with lz4, {_UNPACK.format(how=' (unlz4)')}",
    FileKind.SEVEN_ZIP: f"it is a 7z archive, {_UNPACK.format(how='')}",
    FileKind.RAR: f"it is a RAR archive, {_UNPACK.format(how='')}",
    FileKind.HTML: (
        "it is a web page, not a weight file: the download met a login, quota or error page. Open its address in a browser, "
        "and download the file itself."
    ),
    FileKind.XML: (
        "it is an XML document, as storage servers answer instead of a file that is not there or not public. Check the address "
        "and download the file itself."
    ),
    FileKind.JSON: (
        "it is a JSON document: a configuration, or a server's answer instead of the file. Check the address and download the "
        "file itself."
    ),
    FileKind.TEXT: (
        "it is text, neither safetensors nor a torch checkpoint: perhaps a server's answer instead of the file. Check the "
        "address and download the file itself."
    ),
    FileKind.PDF: f"it is a PDF document, {_NO_WEIGHTS}",
    FileKind.PICTURE: f"it is a picture, {_NO_WEIGHTS}",
    FileKind.VIDEO: f"it is a video, {_NO_WEIGHTS}",
    FileKind.DATABASE: f"it is an SQLite database, {_NO_WEIGHTS}",
    FileKind.PARQUET: f"it is a Parquet table, {_NO_WEIGHTS}",
    FileKind.PROGRAM: f"it is a program for the processor, {_NO_WEIGHTS}",
    FileKind.ZEROS: "it begins with zeros only: a download that reserved its space and never ended. Fetch it again.",
    FileKind.EMPTY: "it is empty. Fetch it again.",
    FileKind.UNKNOWN: "it is neither safetensors nor a torch checkpoint.",
}
"""For kinds without loadable tensors: a description and what to do."""

_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", FileKind.LFS_POINTER),
    (0, b"\x93NUMPY", FileKind.NPY),
    (0, b"\x89HDF\r\n\x1a\n", FileKind.HDF5),
    (4, b"TFL3", FileKind.TFLITE),
    (0, b"GGUF", FileKind.GGUF),
    (0, b"MATLAB ", FileKind.MATLAB),
    (0, b"\x1f\x8b", FileKind.GZIP),
    (0, b"BZh", FileKind.BZIP2),
    (0, b"\xfd7zXZ\x00", FileKind.XZ),
    (0, b"\x28\xb5\x2f\xfd", FileKind.ZSTD),
    (0, b"\x04\x22\x4d\x18", FileKind.LZ4),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind.SEVEN_ZIP),
    (0, b"Rar!\x1a\x07", FileKind.RAR),
    (0, b"%PDF-", FileKind.PDF),
    (0, b"\x89PNG\r\n\x1a\n", FileKind.PICTURE),
    (0, b"\xff\xd8\xff", FileKind.PICTURE),
    (0, b"GIF8", FileKind.PICTURE),
    (8, b"WEBP", FileKind.PICTURE),
    (0, b"II*\x00", FileKind.PICTURE),
    (0, b"MM\x00*", FileKind.PICTURE),
    (4, b"ftyp", FileKind.VIDEO),
    (0, b"\x1aE\xdf\xa3", FileKind.VIDEO),
    (8, b"AVI ", FileKind.VIDEO),
    (0, b"SQLite format 3\x00", FileKind.DATABASE),
    (0, b"PAR1", FileKind.PARQUET),
    (0, b"\x7fELF", FileKind.PROGRAM),
    (0, b"MZ\x90\x00", FileKind.PROGRAM),
)
"""Offset, bytes and kind of each signature."""
_ONNX = re.compile(
    rb"\x08[\x01-\x20](?:\x12[\x01-\x40][\x20-\x7e]|[\x1a\x22\x32][\x00-\x7f]|\x3a[\x80-\xff]|\x42[\x02-\x40]\x0a)"
)
"""A protobuf message: the first field is ONNX's version, the second another of ONNX's fields."""
_TABLE_END = bytes.fromhex("57fb808b247547db")
"""The last bytes of TensorFlow's sorted table of a checkpoint's names."""


def signature_of(head: bytes, tail: bytes) -> FileKind | None:
    """Return the kind of a file by its first bytes (or last eight), if it is none of the checkpoint formats.

    Args:
        head: The first bytes, at most 512.
        tail: The last eight bytes.
    """
    if looks_like_html(head):
        return FileKind.HTML
    for start, mark, kind in _MAGIC:
        if head[start : start + len(mark)] == mark:
            return kind
    if tail == _TABLE_END:
        return FileKind.TENSORFLOW_INDEX
    if _ONNX.match(head):
        return FileKind.ONNX
    return None if head.strip(b"\x00") else FileKind.ZEROS


def text_kind(head: bytes) -> FileKind | None:
    """Return the kind of a text by its beginning; `None` if it is no text."""
    try:
        # a character of several bytes may be incomplete at the end
        text = head.decode(
            "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "strict" if len(head) < 512 else "ignore"
        )
    except UnicodeDecodeError:
        return None
    if sum(not letter.isprintable() and letter not in "\t\r\n" for letter in text) or len(text) < len(head) // 4:
        return None
    start = text.lstrip()
    if start.startswith(("<?xml", "<Error", "<error")):
        return FileKind.XML
    if start.startswith(("{", "[")):
        return FileKind.JSON
    return FileKind.TEXT


def is_shard_index(text: str) -> bool:
    """Return whether a JSON document is an index of shards, with the file of each tensor."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("weight_map"), dict)
