"""Read the tensors of a checkpoint without running any code in it.

safetensors files are mapped into memory. torch's files and plain pickles are read by `pretrainps.weights.unpickle`, which
creates only tensors and plain containers, and an inert placeholder for everything else.
"""

from __future__ import annotations

import errno
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pretrainps.download.kinds import FileKind, kind_of, pickled_globals, safetensors_header
from pretrainps.download.pickled import is_refused, normal_name
from pretrainps.download.shards import read_index
from pretrainps.download.signatures import ADVICE
from pretrainps.errors import CheckpointFormatError
from pretrainps.weights.placeholders import EndlessNameError, RefusedNameError, Stranger, UnpackedError
from pretrainps.weights.torch_file import CompressedMemberError, read_legacy, read_plain, read_zip

Tensors = dict[str, Tensor]

_DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ArithmeticError, MemoryError),
    *(ValueError, LookupError, EOFError, struct.error, OSError),
)
"""Errors from a damaged archive or pickle."""
_ODD_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_sparse_csr_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch.nested._internal.nested_tensor._rebuild_njt": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils._rebuild_tensor_v2": "a conjugated or negated tensor",
    "torch._utils._rebuild_tensor_v3": "a conjugated or negated tensor",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
}
"""torch's functions for tensors that are more than plain arrays of numbers."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The dictionary that holds a checkpoint's tensors."""

    tensors: Tensors
    side_data: dict[str, str] = field(default_factory=dict)
    """Its other entries: key -> description of the value."""


def read_object(path: Path, *, mapped: bool = True, plain: bool = False) -> Any:
    """Return the object in a checkpoint: a dictionary of tensors, or the dictionary around it.

    Args:
        path: A .safetensors file, a .pth/.pt/.pth.tar/.bin/.ckpt of any torch version, a pickle of NumPy arrays, or the index
            of a sharded checkpoint. Tensors are on the CPU.
        mapped: Whether tensors stay in the file's memory-mapped pages, if the format allows it. Only for files that are never
            rewritten in place, such as those in the cache: a later write would change the tensors.
        plain: Whether to refuse a file with more than tensors, numbers, text and containers of them, instead of placeholders.

    Raises:
        CheckpointFormatError: it is no checkpoint, is damaged, or is a pickle that names functions that run commands.
        OSError: the file cannot be opened.
    """
    kind = kind_of(path)
    if kind in ADVICE:
        raise CheckpointFormatError(f"{path}: {ADVICE[kind]}")
    if kind is FileKind.SHARD_INDEX:
        return _read_shards(path, mapped=mapped)
    if kind is FileKind.SAFETENSORS:
        safetensors_header(path)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise CheckpointFormatError(f"{path}: damaged safetensors file ({error}). Fetch it again.") from error
        return tensors if mapped else {key: value.clone() for key, value in tensors.items()}
    return _read_pickle(path, kind, mapped=mapped, plain=plain)


def _read_pickle(path: Path, kind: FileKind, *, mapped: bool, plain: bool) -> Any:
    try:
        if kind is FileKind.TORCH_ZIP:
            found, strangers = read_zip(path, mapped=mapped)
        elif kind is FileKind.TORCH_LEGACY:
            found, strangers = read_legacy(path, mapped=mapped)
        else:
            found, strangers = read_plain(path)
            found = _tensors_of_arrays(found)  # detectron2's files hold NumPy's arrays
    except RefusedNameError as error:
        refused = sorted({str(error)} | {name for name in map(normal_name, pickled_globals(path)) if is_refused(name)})
        raise CheckpointFormatError(
            f"{path}: refused. Unpickling it would run {', '.join(refused[:5])}, which no tensor needs; nothing of it was run. "
            "If you trust its author, ask for a safetensors file or a plain state dict."
        ) from error
    except CompressedMemberError as error:
        raise CheckpointFormatError(
            f"{path}: {error} in it is compressed, which torch.save never does. It was packed again: unpack it, and pack it "
            "without compression (zip -0 -r), or ask for the file as it was saved."
        ) from error
    except EndlessNameError as error:
        raise CheckpointFormatError(
            f"{path}: damaged. Names in it are longer than any that Python imports. Fetch it again."
        ) from error
    except UnpackedError as error:
        raise CheckpointFormatError(f"{path}: {ADVICE[FileKind.UNPACKED]}") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # an error of the disk; the other case is a negative position in a damaged archive
        raise CheckpointFormatError(f"{path}: truncated or damaged ({_reason(error)}). Fetch it again.") from error
    if plain and strangers:
        raise CheckpointFormatError(
            f"{path}: refused. It holds {', '.join(sorted(strangers)[:5])}, and was to hold tensors, numbers and text only. "
            "Take the file as it was written."
        )
    if isinstance(found, Stranger) and not found:
        raise CheckpointFormatError(
            f"{path}: refused. It is a pickled {found.name} as a whole; making it would run that class's code, which no tensor "
            "needs. Ask its author for the model's state_dict(), best as a safetensors file."
        )
    return found


def _tensors_of_arrays(found: Any, depth: int = 0) -> Any:
    """Return the same object with a tensor for each NumPy array in its dictionaries."""
    if isinstance(found, np.ndarray):
        if found.dtype.kind == "u" and found.dtype.itemsize > 1:  # torch does not compute with these types
            found = found.astype(np.int64)
        return torch.from_numpy(np.array(found, dtype=found.dtype.newbyteorder("="), order="C"))
    if isinstance(found, dict) and not isinstance(found, Stranger) and depth < 3:  # a pickle may put a dictionary into itself
        return {key: _tensors_of_arrays(value, depth + 1) for key, value in found.items()}
    return found


def _reason(error: Exception) -> str:
    """Return an error's message in one short line."""
    text = " ".join(str(error).split())[:100]
    return text if text.isprintable() and text else type(error).__name__


def _read_shards(path: Path, *, mapped: bool) -> Tensors:
    """Return the tensors of all shards, each from its file in the index."""
    index = read_index(path)
    index.require_files(path.parent)
    tensors: Tensors = {}
    for name, keys in index.shards.items():
        shard = read_contents(path.parent / name, mapped=mapped).tensors
        index.require_keys(name, shard)
        tensors.update((key, shard[key]) for key in keys)
    index.require_total(sum(value.numel() * value.element_size() for value in tensors.values()))
    return tensors


def read_contents(path: Path, wrapper: tuple[str, ...] = (), *, mapped: bool = True) -> Contents:
    """Return a checkpoint's tensors, found by a declared rule, and the other entries of their dictionary.

    Args:
        path: The checkpoint, see `read_object`.
        wrapper: Dictionary keys above the tensors, the outermost first. It is not used for safetensors files, which have none.
        mapped: See `read_object`.

    Raises:
        CheckpointFormatError: see `read_object`; or a key of the wrapper is missing.
        OSError: the file cannot be opened.
    """
    found = read_object(path, mapped=mapped)
    if kind_of(path) not in (FileKind.SAFETENSORS, FileKind.SHARD_INDEX):
        for depth, key in enumerate(wrapper):
            if not isinstance(found, Mapping) or key not in found:
                raise CheckpointFormatError(
                    f"{path}: expected the tensors under {' > '.join(wrapper[: depth + 1])!r}, found {describe(found)}. "
                    f"`pretrainps inspect {path}` shows what the file is."
                )
            found = found[key]
    if not isinstance(found, Mapping) or (isinstance(found, Stranger) and not found):
        raise CheckpointFormatError(f"{path}: expected a dictionary of tensors, found {describe(found)}.")
    return contents_of(found)


def contents_of(found: Mapping[Any, Any]) -> Contents:
    """Divide a dictionary into tensors and other entries.

    NumPy arrays count as tensors if there are no torch tensors (detectron2 and PaddlePaddle save them so). Next to torch
    tensors they are side data, such as a curve.
    """
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        arrays = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, np.ndarray)}
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    return Contents(tensors, {str(key): describe(value) for key, value in found.items() if key not in tensors})


def read_tensors(path: Path, wrapper: tuple[str, ...] = (), *, mapped: bool = True) -> Tensors:
    """Return a checkpoint's tensors, found by a declared rule, from a dictionary without other entries.

    Args:
        path: The checkpoint, see `read_object`.
        wrapper: See `read_contents`.
        mapped: See `read_object`.

    Raises:
        CheckpointFormatError: see `read_contents`; or an entry is no tensor.
        OSError: the file cannot be opened.
    """
    contents = read_contents(path, wrapper, mapped=mapped)
    if contents.side_data:
        raise CheckpointFormatError(
            f"{path}: {len(contents.side_data)} entries are no plain tensors ({', '.join(list(contents.side_data)[:5])}). "
            f"`pretrainps inspect {path}` shows what the file is."
        )
    return contents.tensors


def describe(found: Any) -> str:
    """Return a description of a value."""
    if isinstance(found, Stranger):
        return _ODD_TENSORS.get(found.name, found.name)
    if isinstance(found, Tensor):
        return "a tensor"
    if isinstance(found, np.ndarray):
        return "a NumPy array"
    if isinstance(found, Mapping):
        keys = [str(key) for key in found]
        return f"a dictionary with {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" if keys else "an empty dictionary"
    return "nothing (None)" if found is None else f"a {type(found).__name__}"
