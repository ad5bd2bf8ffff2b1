"""The objects that a pickle may create: tensors, NumPy numbers and arrays, and plain containers, each checked first."""

from __future__ import annotations

import math
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pretrainps.weights.placeholders import Array, DType, OldText, RefusedNameError, Storage, Stranger, as_key

_MOST_DIMENSIONS = 64
_ITEM = 100
"""Approximate number of bytes of an item in a container."""
DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
STORAGES = {
    f"{kind}Storage": dtype
    for kind, dtype in (
        *(("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16), ("BFloat16", torch.bfloat16)),
        *(("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8)),
        *(("Bool", torch.bool), ("ComplexDouble", torch.complex128), ("ComplexFloat", torch.complex64)),
        *(("Untyped", torch.uint8), ("QInt8", torch.qint8), ("QUInt8", torch.quint8), ("QInt32", torch.qint32)),
        *(("QUInt4x2", torch.quint4x2), ("QUInt2x4", torch.quint2x4)),
    )
}
"""A storage class's name -> the type of its numbers."""


class Unpickling(Protocol):
    """The methods of the unpickler that a maker may use."""

    def name(self, module: Any, name: Any) -> Any:
        """Return the object for a name."""

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the object for a call of a name with arguments."""

    def spend(self, amount: int) -> None:
        """Take bytes from the budget."""


Maker = Callable[[Unpickling, tuple[Any, ...]], Any]
"""Function from the unpickler and the pickled arguments to the new object; `None` if the arguments are not supported."""


def _view(self: Unpickling, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Any:
    """Return a view of a storage, after a check that it is inside the storage."""
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = [offset, *size, *stride]
    if not len(size) == len(stride) <= _MOST_DIMENSIONS or any(
        type(number) is not int or not 0 <= number < 1 << 62 for number in numbers
    ):
        raise pickle.UnpicklingError("a tensor of an impossible shape")
    dtype, length = dtype or storage.dtype, storage.length
    if dtype != storage.dtype:
        length = length * storage.dtype.itemsize // dtype.itemsize
    count = math.prod(size)
    last = offset + sum((many - 1) * step for many, step in zip(size, stride, strict=True)) if count else 0
    self.spend(count * dtype.itemsize)
    if (count and last >= length) or math.prod(many for many in size if many) >= 1 << 59:
        raise pickle.UnpicklingError("a tensor larger than its storage")
    if storage.values is None:
        return Stranger("a tensor with numbers that come later")
    if dtype in _QUANTISED:
        return Stranger("torch._utils._rebuild_qtensor")
    found = torch.empty(0, dtype=dtype)
    found.set_(storage.values, offset if count else 0, tuple(size), tuple(stride))
    return found


def _rebuild_tensor(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, *more = arguments
    if len(more) > 2 and more[2]:  # marked as conjugated or negated, but its numbers are not
        return None
    return _view(self, storage, offset, size, stride)


def _rebuild_tensor_of_type(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, _, _, dtype, *more = arguments
    if (more and more[0]) or not isinstance(dtype, torch.dtype):
        return None
    return _view(self, storage, offset, size, stride, dtype)


def _first_tensor(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments and isinstance(arguments[0], Tensor) else None


def _with_attributes(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    """Make a tensor with additional attributes; a tensor of another class has a meaning that is not known here."""
    function, kind, inner, _ = arguments
    name = getattr(kind, "name", "")
    if name in ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        return self.call(function, inner)
    return Stranger(f"{name} (a tensor class)")


def _bytes(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            self.spend(len(text))
            return text.encode("latin-1")
        case ():
            return b""
    return None


def _copied(kind: Callable[..., Any], *accepted: type) -> Maker:
    """Return a function that makes a container from the items of one plain container."""

    def make(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
        if not arguments:
            return kind()
        if len(arguments) > 1 or type(arguments[0]) not in accepted:
            return None
        self.spend(_ITEM * len(arguments[0]))
        return kind(arguments[0])

    return make


def _ordered(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    """Make an ordered dictionary: empty, or from pairs as Python 2 writes them."""
    pairs = arguments[0] if arguments else []
    if (
        len(arguments) > 1
        or type(pairs) is not list
        or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs)
    ):
        return None
    self.spend(_ITEM * len(pairs))
    return OrderedDict((as_key(key), value) for key, value in pairs)


def _hashable(kind: Callable[..., Any]) -> Maker:
    def make(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) > 1 or (arguments and type(arguments[0]) not in (list, tuple)):
            return None
        self.spend(_ITEM * len(arguments[0]) if arguments else 0)
        return kind(map(as_key, arguments[0])) if arguments else kind()

    return make


def _complex(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    return complex(*arguments) if len(arguments) == 2 and all(type(part) is float for part in arguments) else None


def _attribute(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    """Return the name of an attribute of a class. Old pickles use it for nested classes, and attacks for anything."""
    match arguments:
        case (Stranger() as owner, str() as attribute) if attribute.isidentifier() and not attribute.startswith("_"):
            return self.name(owner.name, attribute)
    raise RefusedNameError("builtins.getattr")


def _reconstructed(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    return Stranger(arguments[0].name) if arguments and isinstance(arguments[0], Stranger) else None


def _dtype(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    name = arguments[0] if arguments else None
    return DType(np.dtype(str(name))) if isinstance(name, str) and re.fullmatch(r"[<>|=]?[biufc](1|2|4|8|16)", name) else None


def _array(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    return Array() if arguments and isinstance(arguments[0], Stranger) and arguments[0].name == "numpy.ndarray" else None


def filled_array(self: Unpickling, state: Any) -> Any:
    """Return the NumPy array from a state: version, shape, dtype, order and numbers."""
    match state:
        case (_, tuple() as shape, DType() as dtype, bool() | int() as fortran, data):
            return _array_of(self, data, dtype, shape, "F" if fortran else "C")
    return Stranger("numpy.ndarray")


def _array_from_buffer(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (data, DType() as dtype, tuple() as shape, "C" | "F" as order):
            return _array_of(self, data, dtype, shape, order)
    return None


def _array_of(self: Unpickling, data: Any, dtype: DType, shape: tuple[Any, ...], order: str) -> Any:
    raw = _raw(data)
    if raw is None or any(type(length) is not int or length < 0 for length in shape):
        return Stranger("numpy.ndarray")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise pickle.UnpicklingError("an array of another size than its numbers")
    self.spend(len(raw))
    native = dtype.dtype.newbyteorder("=")
    # copied, because torch accepts neither read-only numbers nor the other byte order
    return np.array(np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C"), dtype=native)


def _scalar(self: Unpickling, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (DType() as dtype, data) if (raw := _raw(data)) is not None and len(raw) == dtype.dtype.itemsize:
            return np.frombuffer(raw, dtype.dtype)[0].item()
    return None


def _raw(data: Any) -> bytes | None:
    if isinstance(data, OldText):
        return data.raw
    if isinstance(data, str) and data.isascii():
        return data.encode("ascii")
    return bytes(data) if isinstance(data, bytes | bytearray) else None


_QUANTISED = frozenset({torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4})
MAKERS: dict[str, Maker] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_of_type,
    "torch._utils._rebuild_parameter": _first_tensor,
    "torch._utils._rebuild_parameter_with_state": _first_tensor,
    "torch.nn.parameter.Parameter": _first_tensor,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": _copied(tuple, tuple, list),
    "collections.OrderedDict": _ordered,
    "collections.Counter": _copied(Counter, dict),
    "collections.defaultdict": lambda self, arguments: {},
    "builtins.set": _hashable(set),
    "builtins.frozenset": _hashable(frozenset),
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "_codecs.encode": _bytes,
    "builtins.getattr": _attribute,
    "copyreg._reconstructor": _reconstructed,
    "numpy.dtype": _dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_from_buffer for core in ("core", "_core")},
}
