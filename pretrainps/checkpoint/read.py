"""Read the tensors of a checkpoint without running anything that lies in it.

safetensors files are mapped into memory; torch pickles go through `torch.load(weights_only=True)`, which builds tensors
and plain containers and refuses every other import. What it refuses is named in the error.
"""

from __future__ import annotations

import argparse
import errno
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pretrainps.checkpoint.array_pickle import is_array_pickle, read_array_pickle
from pretrainps.errors import CheckpointFormatError
from pretrainps.store.kinds import ENDLESS_NAME, FileKind, kind_of, pickled_globals, safetensors_header

Tensors = dict[str, Tensor]

_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter|defaultdict)"
    r"|torch\.(\w*Storage|Size|Tensor|device|dtype|_utils\._rebuild\w+|_tensor\._rebuild\w+|nn\.parameter\.Parameter)"
    r"|argparse\.Namespace|_codecs\.encode"
)
_ROOMY = frozenset({"builtins.bytearray", "__builtin__.bytearray"})
"""What torch's restricted unpickler calls although a file of a few bytes can have it fill the memory."""
_LONGEST_NAME = 1000
"""Characters of a module and a class in it."""
_REFUSED = {
    FileKind.HTML: "it is a web page, not a weight file: the download met a login, quota or error page. Fetch it again.",
    FileKind.EMPTY: "it is empty. Fetch it again.",
    FileKind.TORCHSCRIPT: "it is a TorchScript program, which is code. Ask for the plain state dict.",
    FileKind.TAR: "it is a tar archive. Unpack it and give the checkpoint inside.",
    FileKind.ZIP: "it is a zip archive without a torch checkpoint. Unpack it and give the checkpoint inside.",
    FileKind.UNKNOWN: "it is neither safetensors nor a torch checkpoint.",
}

_DAMAGED = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
)
"""What torch's restricted unpickler ends in when the stream is damaged or asks for more than it allows."""


def read_object(path: Path, *, mapped: bool = True) -> Any:
    """Return what a checkpoint holds: a dictionary of tensors, or the dictionary around it.

    Args:
        path: A .safetensors file, or a .pth/.pt/.pth.tar/.bin/.ckpt of any torch version. Tensors land on the CPU.
        mapped: Leave the tensors in the file's own pages where the format allows it. Only for files that nobody rewrites in
            place, such as those in the cache: what is written there later would show in the tensors.

    Raises:
        CheckpointFormatError: not a checkpoint, damaged, or a pickle that wants to import more than tensors need.
        OSError: the file cannot be opened.
    """
    kind = kind_of(path)
    if kind in _REFUSED:
        raise CheckpointFormatError(f"{path}: {_REFUSED[kind]}")
    if kind is FileKind.SAFETENSORS:
        safetensors_header(path)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointFormatError(f"{path}: damaged safetensors file ({error}). Fetch it again.") from error
        return tensors if mapped else {key: value.clone() for key, value in tensors.items()}
    if kind is FileKind.TORCH_ZIP:
        _require_stored(path)
    return _read_pickle(path, mapped=mapped and kind is FileKind.TORCH_ZIP)


def _require_stored(path: Path) -> None:
    """Refuse an archive whose members are compressed: torch maps them as they lie, and would take that for numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise CheckpointFormatError(f"{path}: truncated or damaged ({type(error).__name__}). Fetch it again.") from error
    if packed:
        raise CheckpointFormatError(
            f"{path}: {packed[0]} in it is compressed, which torch.save never does. Somebody packed it again: unpack it, and "
            "pack it without compression (zip -0 -r), or ask for the file as it was saved."
        )


def _read_pickle(path: Path, *, mapped: bool) -> Any:
    wanted = pickled_globals(path)
    if kind_of(path) is FileKind.PICKLE and is_array_pickle(wanted):
        return read_array_pickle(path)
    if ENDLESS_NAME in wanted or any(len(name) > _LONGEST_NAME for name in wanted):  # torch would search it for minutes
        raise CheckpointFormatError(f"{path}: damaged. Names in it are longer than any that Python imports. Fetch it again.")
    if _ROOMY & wanted:
        raise CheckpointFormatError(
            f"{path}: refused. It makes a bytearray, of any size that it likes and of no use for tensors. Ask its author for a "
            "safetensors file or a plain state dict."
        )
    for encoding in ("utf-8", "latin1"):  # Python 2 pickles may hold byte strings that are not UTF-8
        try:
            return _load(path, encoding, mapped=mapped)
        except UnicodeDecodeError:
            continue
        except _DAMAGED as error:
            _explain(path, error)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _explain(path, error)  # it was to be read where no file has anything, before its start
    raise CheckpointFormatError(f"{path}: its text is in no known encoding.")


def _load(path: Path, encoding: str, *, mapped: bool) -> Any:
    try:
        # a Namespace of command-line options (SOLIDER, DINO) is a plain record; its class does nothing on loading
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped, encoding=encoding)
    except Exception:
        # torch still holds the sparse tensors of this file, and would blame the next one for what is wrong with them
        getattr(torch._utils, "_sparse_tensors_to_validate", []).clear()
        raise


def _explain(path: Path, error: Exception) -> NoReturn:
    named = re.findall(r"(?:GLOBAL|global:?|class) `?([A-Za-z_][\w.]*\.[\w]+)", str(error))
    refused = sorted(name for name in pickled_globals(path) | set(named) if not _HARMLESS.fullmatch(name))
    refused = [name for name in refused if not name.startswith("torch.serialization")]
    if isinstance(error, pickle.UnpicklingError) and (refused or "Unsupported global" in str(error)):
        raise CheckpointFormatError(
            f"{path}: refused. Unpickling it would run {', '.join(refused[:5]) or 'code'}, which loading tensors does not "
            "need; nothing of it was run. If you trust its author, ask for a safetensors file or a plain state dict."
        ) from error
    raise CheckpointFormatError(f"{path}: truncated or damaged ({type(error).__name__}). Fetch it again.") from error


def read_tensors(path: Path, wrapper: tuple[str, ...] = (), *, mapped: bool = True) -> Tensors:
    """Return a checkpoint's tensors, found by a declared rule.

    Args:
        path: The checkpoint, see `read_object`.
        wrapper: Dictionary keys to descend, outermost first. A safetensors file cannot have one, so there it is not used.
        mapped: See `read_object`.

    Raises:
        CheckpointFormatError: see `read_object`; or a wrapper key is missing, or an entry is no tensor.
        OSError: the file cannot be opened.
    """
    found = read_object(path, mapped=mapped)
    if kind_of(path) is not FileKind.SAFETENSORS:
        for depth, key in enumerate(wrapper):
            if not isinstance(found, Mapping) or key not in found:
                raise CheckpointFormatError(
                    f"{path}: expected the tensors under {' > '.join(wrapper[: depth + 1])!r}, found {_describe(found)}. "
                    f"`pretrainps inspect {path}` shows what the file is."
                )
            found = found[key]
    if not isinstance(found, Mapping):
        raise CheckpointFormatError(f"{path}: expected a dictionary of tensors, found {_describe(found)}.")
    strange = [str(key) for key, value in found.items() if not isinstance(key, str) or not _is_plain(value)]
    if strange:
        raise CheckpointFormatError(
            f"{path}: {len(strange)} entries are no plain tensors ({', '.join(strange[:5])}). "
            f"`pretrainps inspect {path}` shows what the file is."
        )
    # a Parameter, or a tensor that asks for gradients, would take its ways into the model it fills
    return {key: value.detach() for key, value in found.items()}


def has_shape(value: Any) -> bool:
    """Whether a value is a tensor with one size a dimension; nested tensors have several, and raise when asked for them."""
    return isinstance(value, Tensor) and not value.is_nested


def _is_plain(value: Any) -> bool:
    return has_shape(value) and value.layout is torch.strided and not value.is_quantized and not value.is_meta


def _describe(found: Any) -> str:
    if isinstance(found, Mapping):
        keys = [str(key) for key in found]
        return f"a dictionary with {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" if keys else "an empty dictionary"
    return f"a {type(found).__name__}"
