"""Read torch.save's two formats: a zip archive with a pickle and one member for each storage, or pickles and then storages.

The pickle is executed by `Unpickler`, which creates only tensors and plain values. This module finds each storage in the file,
and checks that it is inside the file.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from pretrainps.weights.makers import STORAGES
from pretrainps.weights.placeholders import Storage, Stranger
from pretrainps.weights.unpickle import Unpickler

Read = tuple[Any, set[str]]
"""An object, and the names of the objects in it that were not created."""
MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_ALIGNED = 16
"""Alignment for mapped storages. A storage at another position is copied, because some processors need aligned numbers."""
_MOST_COPIES = 16
"""Largest factor of the tensors' size over the file's, as several may share bytes: a small file must not become terabytes."""
_SOME_BYTES = 1 << 26
_LOCAL_HEADER = struct.Struct("<4s22sHH")


class CompressedMemberError(pickle.UnpicklingError):
    """A member of the archive is compressed, which torch.save never does."""


class _Bytes:
    """A file's bytes, mapped or read."""

    def __init__(self, path: Path, *, mapped: bool) -> None:
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self._left = self.budget  # members of an archive may overlap
        # a private mapping: writes to the tensors do not change the file
        self._map: Any = torch.UntypedStorage.from_file(str(path), False, self.size) if mapped and self.size else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def budget(self) -> int:
        return _MOST_COPIES * self.size + _SOME_BYTES

    def read(self, start: int, length: int) -> bytearray:
        if not 0 <= start <= start + length <= self.size:
            raise pickle.UnpicklingError("content is beyond the end of the file")
        self._left -= length
        if self._left < 0:
            raise pickle.UnpicklingError("many times as much content as the file has")
        content = bytearray(length)
        self._file.seek(start)
        if self._file.readinto(content) != length:
            raise pickle.UnpicklingError("the file ends before its content")
        return content

    def storage(self, start: int, length: int) -> torch.UntypedStorage:
        if not length:
            return torch.UntypedStorage(0)
        if self._map is not None and start % _ALIGNED == 0 and 0 <= start <= start + length <= self.size:
            return _part(self._map, start, start + length)
        return torch.frombuffer(self.read(start, length), dtype=torch.uint8).untyped_storage()


def read_zip(path: Path, *, mapped: bool) -> Read:
    """Return the object of a torch zip, and the names of objects that were not created.

    Args:
        path: The file.
        mapped: Leave tensors in the file's own pages.

    Raises:
        pickle.UnpicklingError: see `Unpickler.load`; or the archive is damaged.
        CompressedMemberError: a member is compressed.
        zipfile.BadZipFile: the archive's index is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
    packed = [name for name, info in members.items() if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1]
    if packed:
        raise CompressedMemberError(packed[0])
    root = min((name for name in members if name.rpartition("/")[2] == "data.pkl"), key=len).removesuffix("data.pkl")
    with _Bytes(path, mapped=mapped) as content:

        def place(name: str) -> tuple[int, int]:
            info = members[root + name]
            mark, _, name_length, extra_length = _LOCAL_HEADER.unpack(content.read(info.header_offset, _LOCAL_HEADER.size))
            if mark != b"PK\x03\x04":
                raise pickle.UnpicklingError("a member of the archive is not where its index says")
            return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length, info.file_size

        other_order = root + "byteorder" in members and content.read(*place("byteorder")).strip() != sys.byteorder.encode()

        def stored(key: str, dtype: torch.dtype, length: int) -> torch.UntypedStorage:
            start, size = place(f"data/{key}")
            if length * dtype.itemsize > size:
                raise pickle.UnpicklingError("a storage larger than its member of the archive")
            found = content.storage(start, length * dtype.itemsize)
            return _swapped(found, dtype) if other_order else found

        storages = _Storages(stored)
        unpickler = Unpickler(storages, content.budget)
        return unpickler.load(io.BytesIO(content.read(*place("data.pkl")))), unpickler.strangers


def read_legacy(path: Path, *, mapped: bool) -> Read:
    """Return the object of a legacy file, and the names of objects that were not created.

    Args:
        path: The file.
        mapped: Leave tensors in the file's own pages.

    Raises:
        pickle.UnpicklingError: see `Unpickler.load`; or the storages are not those in the pickle.
    """
    with _Bytes(path, mapped=mapped) as content, path.open("rb") as stream:
        plain = Unpickler()
        if plain.load(stream) != MAGIC or plain.load(stream) != _PROTOCOL:
            raise pickle.UnpicklingError("another version of the format")
        plain.load(stream)  # describes the machine that wrote it; numbers always have the byte order of x86
        begin = stream.tell()
        wanted: dict[str, tuple[torch.dtype, int]] = {}

        def note(key: str, dtype: torch.dtype, length: int) -> None:
            wanted[key] = (dtype, length)

        # first pass: collect the storages, because their sizes are needed to find them after the pickles
        Unpickler(_Storages(note), content.budget).load(stream)
        keys = plain.load(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in wanted for key in keys):
            raise pickle.UnpicklingError("storages that nothing refers to")
        places: dict[str, int] = {}
        here = stream.tell()
        for key in keys:
            dtype, length = wanted[key]
            if int.from_bytes(content.read(here, 8), "little") != length:
                raise pickle.UnpicklingError("a storage of another size")
            places[key] = here + 8
            here += 8 + length * dtype.itemsize

        def stored(key: str, dtype: torch.dtype, length: int) -> torch.UntypedStorage:
            if wanted[key] != (dtype, length):
                raise pickle.UnpicklingError("one storage of two sizes")
            found = content.storage(places[key], length * dtype.itemsize)
            return _swapped(found, dtype) if sys.byteorder == "big" else found

        stream.seek(begin)
        unpickler = Unpickler(_Storages(stored), content.budget)
        return unpickler.load(stream), unpickler.strangers


def read_plain(path: Path) -> Read:
    """Return the object of a pickle without tensors (detectron2's NumPy arrays), and the names of objects not created.

    Raises:
        pickle.UnpicklingError: see `Unpickler.load`.
    """
    with path.open("rb") as stream:
        unpickler = Unpickler(budget=_MOST_COPIES * path.stat().st_size + _SOME_BYTES)
        return unpickler.load(stream), unpickler.strangers


class _Storages:
    """Resolves a pickle's references to storages. Each is made once, so that tensors still share storages."""

    def __init__(self, stored: Callable[[str, torch.dtype, int], torch.UntypedStorage | None]) -> None:
        self._stored = stored
        self._made: dict[str, tuple[torch.dtype, torch.UntypedStorage | None, int]] = {}

    def __call__(self, reference: tuple[Any, ...]) -> Storage:
        _, kind, key, _, length, *more = reference
        dtype = STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Stranger) else None
        key = str(key) if isinstance(key, str | int) else None
        if dtype is None or key is None or type(length) is not int or not 0 <= length < 1 << 59:
            raise pickle.UnpicklingError("a reference to a storage that cannot be")
        if key not in self._made or self._made[key][2] < length * dtype.itemsize:
            self._made[key] = (dtype, self._stored(key, dtype, length), length * dtype.itemsize)
        values = self._made[key][1]
        if not more or more[0] is None:
            return Storage(values, dtype, length)
        _, begin, count = more[0]  # a part of it, in files from before torch 0.4
        if type(begin) is not int or type(count) is not int or not 0 <= begin <= begin + count <= length:
            raise pickle.UnpicklingError("a part outside its storage")
        part = None if values is None else _part(values, begin * dtype.itemsize, (begin + count) * dtype.itemsize)
        return Storage(part, dtype, count)


def _swapped(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.UntypedStorage:
    storage = storage.clone()
    storage.byteswap(dtype)
    return storage


def _part(storage: torch.UntypedStorage, begin: int, end: int) -> torch.UntypedStorage:
    found: torch.UntypedStorage = storage[begin:end]
    return found
