"""What stands for the objects of a pickle that are not made, and how a reading of one ends early."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pretrainps.download.pickled import decoded

_LONGEST_KEY = 64
"""Items of a tuple, and 64 bits each of a number, that may be a key: hashes of longer ones take their time, each time."""


class RefusedNameError(pickle.UnpicklingError):
    """The pickle names something that runs commands or code."""


class EndlessNameError(pickle.UnpicklingError):
    """A name in the pickle is longer than any that Python imports."""


class UnpackedError(pickle.UnpicklingError):
    """The pickle refers to storages, and there are none at hand."""


class Stranger(dict[Any, Any]):
    """Stands for an object that was not made: its class's or function's name, and the items that it was filled with.

    Args:
        name: Where it would have been imported from.
    """

    __slots__ = ("name",)
    __hash__ = object.__hash__  # type: ignore[assignment]  # a dictionary has none, and this may be a key in another

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __repr__(self) -> str:
        return f"<{self.name}>"


class DType(Stranger):
    """A NumPy dtype of plain numbers, whose order of bytes comes after it."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__("numpy.dtype")
        self.dtype = dtype


class Array(Stranger):
    """A NumPy array before its content comes; `place` is where the memo keeps it."""

    __slots__ = ("place",)

    def __init__(self) -> None:
        super().__init__("numpy.ndarray")
        self.place: int | None = None


class OldText(str):
    """Text that Python 2 wrote as bytes, with those: they may be an array's."""

    __slots__ = ("raw",)
    raw: bytes


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of one type in a row, that tensors are views of."""

    values: torch.UntypedStorage | None
    """`None` while only the places are being looked for."""
    dtype: torch.dtype
    length: int
    """Numbers in it."""


def as_key(key: Any) -> Any:
    """Return a key for a dictionary or set; tuples in tuples could be so deep that hashing them ends the process."""
    if isinstance(key, tuple | frozenset):
        if len(key) > _LONGEST_KEY or any(isinstance(item, tuple | frozenset) for item in key):
            return Stranger("a long tuple")
        return key if all(as_key(item) is item for item in key) else Stranger("a long tuple")
    if isinstance(key, int) and key.bit_length() > 64 * _LONGEST_KEY:
        return Stranger("a long number")
    return str(key) if isinstance(key, OldText) else key


def old_text(text: str) -> str:
    """Return text that Python 2 wrote as bytes, read here as latin-1."""
    if text.isascii():
        return text
    raw = text.encode("latin-1")
    found = OldText(decoded(raw))
    found.raw = raw
    return found
