"""Check that a MATLAB file meets the assumptions of scipy's reader.

That reader looks up the type of an element in a table without a check that the table has it, and follows nested cells to any
depth. So one damaged byte can end the process instead of raising an error. Here the elements of a variable are visited in
the same order, by the tags before them ("MAT-File Format", MathWorks). Values are not read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Container

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18})
"""Types of elements that hold numbers or characters."""
_CELL, _STRUCT, _CHAR = 1, 2, 4
_ARRAYS = frozenset(range(6, 16))
"""Classes of numeric arrays."""
_COMPLEX = 1 << 11
_HEADER = 128
"""Bytes before the first element."""
_DIMENSIONS = 32
"""The largest number of dimensions that scipy allows."""
_DEEPEST = 32
"""The greatest depth of nested cells; annotations need few."""


def check_elements(raw: bytes, variables: Container[str]) -> None:
    """Check the elements of some variables of a file of version 5 to 7; do nothing for another version.

    Args:
        raw: The whole file.
        variables: Names of the variables that will be read.

    Raises:
        ValueError: an element has no known type, or is longer than its data; or it is an object, a function or a sparse array.
        struct.error: an element is cut off.
        zlib.error: a compressed element is damaged.
    """
    version = raw[125:126] if raw[126:127] == b"I" else raw[124:125]
    if 0 in raw[:4] or version != b"\x01":  # how scipy recognizes versions 4 and 7.3
        return
    order, place = "<" if raw[126:128] == b"IM" else ">", _HEADER
    while place + 8 <= len(raw):
        kind, length = struct.unpack_from(f"{order}2I", raw, place)
        body = raw[place + 8 : place + 8 + length]
        place += 8 + length
        if kind == _COMPRESSED:
            body = zlib.decompressobj().decompress(body)[8:]  # it holds one element; its tag is not needed
        _Variable(body, order).check(variables)


class _Variable:
    """The elements of a variable, one after the other."""

    def __init__(self, body: bytes, order: str) -> None:
        self.body, self.place = body, 0
        self._words, self._pair = struct.Struct(f"{order}4I"), struct.Struct(f"{order}2I")
        self._whole = f"{order}%di"

    def check(self, variables: Container[str]) -> None:
        kind, flags, sides = self._head()
        start, length = self._element()
        if self.body[start : start + length].decode("latin1") in variables:
            self._content(kind, flags, sides, 0)

    def _head(self) -> tuple[int, int, int]:
        """Return the class, the flags and the number of entries of an array."""
        flags = self._words.unpack_from(self.body, self.place)[2]
        self.place += 16
        if flags & 0xFF > 15:
            return flags & 0xFF, flags, 0  # a function or an object, which has no dimensions
        start, length = self._element()
        sides = struct.unpack_from(self._whole % (length // 4), self.body, start)
        if length % 4 or not 2 <= len(sides) <= _DIMENSIONS or min(sides) < 0:
            raise ValueError(f"an array has the dimensions {sides}")
        return flags & 0xFF, flags, math.prod(sides)

    def _content(self, kind: int, flags: int, entries: int, depth: int) -> None:
        if kind in (_CELL, _STRUCT):
            self._arrays(entries * (self._fields() if kind == _STRUCT else 1), depth + 1)
        elif kind == _CHAR or kind in _ARRAYS:
            for _ in range(2 if flags & _COMPLEX and kind != _CHAR else 1):
                self._element()
        else:
            raise ValueError(f"it has an array of class {kind}, which annotations do not use")

    def _fields(self) -> int:
        """Return the number of fields of a struct."""
        start, length = self._element()
        longest = struct.unpack_from(self._whole % 1, self.body, start)[0]
        _, names = self._element()
        if length != 4 or longest < 1:
            raise ValueError(f"a struct has field names of {longest} characters")
        return int(names // longest)

    def _arrays(self, count: int, depth: int) -> None:
        if depth > _DEEPEST or 8 * count > len(self.body) - self.place:
            raise ValueError(f"a cell or struct of {count} arrays, {depth} deep, is more than there is")
        for _ in range(count):
            kind, length = self._pair.unpack_from(self.body, self.place)
            self.place += 8
            if kind != _MATRIX:
                raise ValueError(f"type {kind} is not that of an array")
            if length:
                head = self._head()
                self._element()  # its name
                self._content(*head, depth)

    def _element(self) -> tuple[int, int]:
        """Step over an element of numbers or characters, and return its start and its length."""
        kind, length = self._pair.unpack_from(self.body, self.place)
        start = self.place + 8
        if kind >> 16:  # up to four bytes are stored in the tag itself
            kind, length, start = kind & 0xFFFF, kind >> 16, start - 4
            self.place += 8
        else:
            self.place = start + length + -length % 8
        if kind not in _NUMBERS or start + length > min(len(self.body), self.place):
            raise ValueError(f"an element of type {kind} and {length} bytes is damaged")
        return start, length
