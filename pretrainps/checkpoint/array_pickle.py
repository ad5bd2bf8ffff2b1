"""Read a plain pickle of NumPy arrays, detectron2's `.pkl`, with nothing of NumPy called by it.

Such a file rebuilds its arrays through functions of NumPy that it names. Here objects of this module stand in their places:
they take down what they are given, and an array is made of that after its size was checked. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrainps.errors import CheckpointFormatError

_REBUILD = frozenset(f"{core}.multiarray._reconstruct" for core in ("numpy.core", "numpy._core"))
_FROM_BUFFER = frozenset(f"{core}.numeric._frombuffer" for core in ("numpy.core", "numpy._core"))
_NO_BYTES = frozenset({"__builtin__.bytes", "builtins.bytes"})
"""What protocol 2 calls for the bytes of an empty array."""
_KNOWN = _REBUILD | _FROM_BUFFER | _NO_BYTES | {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict"}
_NUMBERS = re.compile(r"[<>|=]?(f[248]|[iu][1248]|b1)")
_MOST_TUPLES = 20_000
"""Tuples in one another are hashed by recursion without a limit; a file of arrays has four for each."""
_UNUSUAL = frozenset({"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"})
"""What takes objects from outside the file."""


def is_array_pickle(names: set[str]) -> bool:
    """Whether what a plain pickle imports is what arrays need, and nothing else.

    Args:
        names: What `pickled_globals` found.
    """
    return bool(names & (_REBUILD | _FROM_BUFFER)) and names <= _KNOWN


def read_array_pickle(path: Path) -> Any:
    """Return what the file holds, with a tensor for each array.

    Raises:
        CheckpointFormatError: it is damaged, or holds something else than numbers, text and containers.
        OSError: it cannot be opened.
    """
    content = path.read_bytes()
    try:
        # reads each length against what is there, so that nothing is reserved for bytes that do not come
        names = [opcode.name for opcode, _, _ in pickletools.genops(content)]
        if _UNUSUAL & set(names) or sum(name.startswith("TUPLE") for name in names) > _MOST_TUPLES:
            raise ValueError("made by no code that saves arrays")
        return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load(), depth=0)
    except Exception as error:  # of a damaged stream the unpickler raises anything
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise CheckpointFormatError(f"{path}: damaged, or no pickle of plain arrays ({reason}). Fetch it again.") from error


class _Unpickler(pickle.Unpickler):
    """Gives stand-ins for the names that arrays need, new ones for each file, and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in _KNOWN:
            raise pickle.UnpicklingError(f"{full} is not allowed")
        return OrderedDict if full == "collections.OrderedDict" else _Named(full)


class _Named:
    """Stands for a function or a class of NumPy."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if self.name == "_codecs.encode":  # Python 2's byte strings, and Python 3's in protocol 2
            text, _encoding = arguments
            return text.encode("latin1")
        if self.name in _NO_BYTES and not arguments:
            return b""
        if self.name == "numpy.dtype":
            return _Dtype(arguments[0])
        if self.name in _FROM_BUFFER:
            content, dtype, shape, order = arguments
            return _Array((1, shape, dtype, order == "F", content))
        if self.name in _REBUILD:
            return _Array(None)
        raise pickle.UnpicklingError(f"{self.name} is not called for an array")


class _Dtype:
    """What kind of numbers."""

    __slots__ = ("byte_order", "code")

    def __init__(self, code: Any) -> None:
        self.code, self.byte_order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = str(state[1])

    def numbers(self) -> np.dtype[Any]:
        order = self.byte_order if self.code[:1] not in "<>|=" else ""
        if not _NUMBERS.fullmatch(order + self.code):
            raise ValueError(f"an array of {self.code[:20]!r}")
        return np.dtype(order + self.code)


class _Array:
    """What an array is made of."""

    __slots__ = ("state",)

    def __init__(self, state: Any) -> None:
        self.state = state

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> torch.Tensor:
        _version, shape, dtype, fortran, content = self.state
        if isinstance(content, str):  # Python 2 had no bytes
            content = content.encode("latin1")
        numbers = dtype.numbers()
        found = np.frombuffer(bytes(content), numbers).reshape(shape, order="F" if fortran else "C")
        if found.dtype.kind == "u" and found.dtype.itemsize > 1:  # torch computes with none of these
            found = found.astype(np.int64)
        return torch.from_numpy(np.array(found, dtype=found.dtype.newbyteorder("="), order="C"))


def _plain(value: Any, depth: int) -> Any:
    """Put tensors in the places of arrays; plain values and mappings stay, anything else becomes text."""
    if isinstance(value, _Array):
        return value.tensor()
    if isinstance(value, Mapping) and depth < 20:  # a pickle may put one into itself
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    return value if isinstance(value, bool | int | float | str | bytes | None) else type(value).__name__
