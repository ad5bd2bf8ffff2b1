"""Placeholders for objects of a pickle that are not created, and the errors that stop reading."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pretrainps.download.pickled import decoded

_LONGEST_KEY = 64
"""Most items of a tuple, or 64-bit words of a number, for a key: hashes of longer ones are slow at each use."""


class RefusedNameError(pickle.UnpicklingError):
    """The pickle names a function that runs commands or code."""


class EndlessNameError(pickle.UnpicklingError):
    """A name in the pickle is longer than any that Python imports."""


class UnpackedError(pickle.UnpicklingError):
    """The pickle refers to storages, but has none."""


class Stranger(dict[Any, Any]):
    """Placeholder of an object that was not created: the name of its class or function, and the items put into it.

    Args:
        name: The module and name of the import.
    """

    __slots__ = ("name",)
    __hash__ = object.__hash__  # type: ignore[assignment]  # a dictionary has no hash, but this may be a key in another one

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
    """A NumPy dtype of plain numbers; its byte order follows later in the pickle."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__("numpy.dtype")
        self.dtype = dtype


class Array(Stranger):
    """A NumPy array before its content was read; `place` is its position in the memo."""

    __slots__ = ("place",)

    def __init__(self) -> None:
        super().__init__("numpy.ndarray")
        self.place: int | None = None


class OldText(str):
    """Text that Python 2 wrote as bytes, with these bytes, which may be those of an array."""

    __slots__ = ("raw",)
    raw: bytes


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat array of numbers of one type; tensors are views of it."""

    values: torch.UntypedStorage | None
    """The numbers; `None` while only the positions are collected."""
    dtype: torch.dtype
    length: int
    """How many numbers it has."""


def as_key(key: Any) -> Any:
    """Return a key for a dictionary or set. Deeply nested tuples are refused, because their hash could end the process."""
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
