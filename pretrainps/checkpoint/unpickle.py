"""Read a pickle without importing or calling anything that it names.

Python's own unpickler looks up whatever a file names and calls it. Here each instruction is carried out on plain containers,
and a name is only ever compared with the table of `_MAKERS`: functions of this module that make tensors, NumPy numbers and
arrays, and plain containers, and check their arguments first. Any other name becomes a `Stranger`, an inert record of the
name: calling it, setting its state or filling it gives a `Stranger` again. So settings objects, dates and paths that a
training script stored with its weights do no harm, and need no package. Names of what runs commands or code are refused all
the same: they have no place among weights.

torch's own restricted unpickler is not used, for it cannot leave out what it does not know: classes have to be allowed one by
one, and one derived from `dict` is refused even then.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pretrainps.store.pickled import NO_END, UNREADABLE, decoded, is_refused, normal_name

_LONGEST_NAME = 1000
"""Characters of a module and a class in it."""
_MOST_DIMENSIONS = 64
_ITEM = 100
"""Bytes that an item of a container takes, about."""
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


class _DType(Stranger):
    """A NumPy dtype of plain numbers, whose order of bytes comes after it."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype[Any]) -> None:
        super().__init__("numpy.dtype")
        self.dtype = dtype


class _Array(Stranger):
    """A NumPy array before its content comes; `place` is where the memo keeps it."""

    __slots__ = ("place",)

    def __init__(self) -> None:
        super().__init__("numpy.ndarray")
        self.place: int | None = None


class _OldText(str):
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


StorageOf = Callable[[tuple[Any, ...]], Storage]
"""From a reference in the pickle, `("storage", type, key, device, length, ...)`, to the storage."""

_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
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


class Unpickler:
    """Carries out pickles.

    Args:
        storage_of: Finds the storages that the pickle refers to; `None` if there can be none.
        budget: Bytes of tensors and copies that may be made. A few bytes of a pickle can ask for the same content once more.
    """

    def __init__(self, storage_of: StorageOf | None = None, budget: int = 1 << 26) -> None:
        self._storage_of = storage_of
        self._budget = budget
        self.strangers: set[str] = set()
        """Names of what was not made."""

    def load(self, stream: IO[bytes]) -> Any:
        """Return the object of the pickle that begins here; the stream is left behind it.

        Raises:
            pickle.UnpicklingError: damaged, or asking for what is not allowed.
            RefusedNameError: it names what runs commands.
            UnpackedError: it refers to storages, and there are none.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self._step(opcode.name, argument)
        except UNREADABLE as error:
            if NO_END in str(error):
                raise EndlessNameError from error
            if isinstance(error, UnicodeDecodeError):
                raise pickle.UnpicklingError("its text is in no known encoding") from error
            raise pickle.UnpicklingError(str(error)) from error
        except (TypeError, RecursionError, ArithmeticError, RuntimeError, AttributeError) as error:
            raise pickle.UnpicklingError(str(error)) from error
        return self._stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        if opcode in _SILENT:
            return
        if opcode in _CONSTANTS:
            self.push(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.push(_EMPTY[opcode]())
        elif opcode in _VALUES:
            self.push(_old_text(argument) if opcode in ("BINSTRING", "SHORT_BINSTRING") else argument)
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._remember(len(self._memo) if opcode == "MEMOIZE" else argument)
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self._memo[argument])
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        else:
            raise pickle.UnpicklingError(f"the instruction {opcode} has no place in a weight file")

    def _remember(self, place: int) -> None:
        top = self._stack[-1]
        self._memo[place] = top
        if isinstance(top, _Array):
            top.place = place

    def push(self, value: Any) -> None:
        """Put a value on the stack that is there once the value is known: taking marked items changes which one it is."""
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        """Return what was put down since the last mark."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _name(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name in it is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise EndlessNameError
        full = normal_name(f"{module}.{name}")
        if is_refused(full):
            raise RefusedNameError(full)
        return _DTYPES.get(full) or Stranger(full)

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("arguments are no tuple")
        if isinstance(function, torch.dtype) or not isinstance(function, Stranger):
            raise pickle.UnpicklingError("what is called has no name")
        maker = _MAKERS.get(function.name)
        made = maker(self, arguments) if maker else None
        made = Stranger(function.name) if made is None else made
        if type(made) is Stranger:
            self.strangers.add(made.name)
        return made

    def spend(self, amount: int) -> None:
        """Take bytes from the budget."""
        self._budget -= amount
        if self._budget < 0:
            raise pickle.UnpicklingError("many times as much content as the file has")

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Any:
        """Return a view of a storage, after proving that it lies inside."""
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
            return Stranger("a tensor whose numbers come later")
        if dtype in _QUANTISED:
            return Stranger("torch._utils._rebuild_qtensor")
        found = torch.empty(0, dtype=dtype)
        found.set_(storage.values, offset if count else 0, tuple(size), tuple(stride))
        return found


# ---- instructions on the stack


def _call_with(self: Unpickler, _: Any) -> None:
    arguments = self._stack.pop()
    self.push(self._call(self._stack.pop(), arguments))


def _call_with_names(self: Unpickler, _: Any) -> None:
    self._stack.pop()  # arguments by name, which nothing that is made here takes
    _call_with(self, None)


def _inst(self: Unpickler, argument: Any) -> None:
    items = tuple(self._marked())
    self.push(self._call(self._name(*argument.split(" ", 1)), items))


def _obj(self: Unpickler, _: Any) -> None:
    function, *items = self._marked()
    self.push(self._call(function, tuple(items)))


def _stack_global(self: Unpickler, _: Any) -> None:
    name = self._stack.pop()
    self.push(self._name(self._stack.pop(), name))


def _build(self: Unpickler, _: Any) -> None:
    state, built = self._stack.pop(), self._stack[-1]
    if isinstance(built, _Array):
        self._stack[-1] = array = _filled(self, state)
        if built.place is not None:
            self._memo[built.place] = array
    elif isinstance(built, _DType):
        match state:
            case (_, "<" | ">" | "=" | "|" as order, *_):
                built.dtype = built.dtype.newbyteorder(order)
            case _:
                raise pickle.UnpicklingError("numbers of an unknown order of bytes")
    elif not isinstance(built, Stranger | OrderedDict | Tensor):  # what those would be told is not needed
        raise pickle.UnpicklingError("a state for what has none")


def _append(self: Unpickler, _: Any) -> None:
    _extend(self, [self._stack.pop()])


def _extend(self: Unpickler, items: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) is list:
        target.extend(items)
    elif not isinstance(target, Stranger):  # a class derived from list: its items are of no use
        raise pickle.UnpicklingError("items for what is no list")


def _add(self: Unpickler, _: Any) -> None:
    items = self._marked()
    if type(self._stack[-1]) is not set:
        raise pickle.UnpicklingError("items for what is no set")
    self._stack[-1].update(map(_as_key, items))


def _set_items(self: Unpickler, items: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) not in (dict, OrderedDict, Counter) and not isinstance(target, Stranger):
        raise pickle.UnpicklingError("items for what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_as_key(key)] = value


def _set_item(self: Unpickler, _: Any) -> None:
    value = self._stack.pop()
    _set_items(self, [self._stack.pop(), value])


def _storage(self: Unpickler, _: Any) -> None:
    reference = self._stack.pop()
    if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
        self.push(reference[1])  # a class of modules, which older files hold with its source
        return
    if self._storage_of is None:
        raise UnpackedError("it refers to storages")
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise pickle.UnpicklingError("a reference to what is no storage")
    self.push(self._storage_of(reference))


def _mark(self: Unpickler, _: Any) -> None:
    self._marks.append(self._stack)
    self._stack = []


def _tuple_of(count: int) -> Callable[[Unpickler, Any], None]:
    def make(self: Unpickler, _: Any) -> None:
        if len(self._stack) < count:
            raise pickle.UnpicklingError("a tuple of more than there is")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    return make


_SILENT = frozenset({"PROTO", "FRAME", "STOP"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
    | {"SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"BYTEARRAY8"}
)
_STEPS: dict[str, Callable[[Unpickler, Any], None]] = {
    "GLOBAL": lambda self, argument: self.push(self._name(*argument.split(" ", 1))),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call_with,
    "NEWOBJ": _call_with,
    "NEWOBJ_EX": _call_with_names,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
    "APPEND": _append,
    "APPENDS": lambda self, _: _extend(self, self._marked()),
    "ADDITEMS": _add,
    "SETITEM": _set_item,
    "SETITEMS": lambda self, _: _set_items(self, self._marked()),
    "BINPERSID": _storage,
    "MARK": _mark,
    "TUPLE": lambda self, _: self.push(tuple(self._marked())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda self, _: self.push(self._marked()),
    "DICT": lambda self, _: _dict(self),
    "FROZENSET": lambda self, _: self.push(frozenset(map(_as_key, self._marked()))),
    "POP": lambda self, _: _pop(self),
    "POP_MARK": lambda self, _: _drop(self),
    "DUP": lambda self, _: self.push(self._stack[-1]),
}


def _dict(self: Unpickler) -> None:
    items = self._marked()
    self.push({})
    _set_items(self, items)


def _pop(self: Unpickler) -> None:
    if self._stack:
        self._stack.pop()
    else:  # Python lets it take back a mark
        self._marked()


def _drop(self: Unpickler) -> None:
    self._marked()


def _as_key(key: Any) -> Any:
    """Return a key for a dictionary or set; tuples in tuples could be so deep that hashing them ends the process."""
    if isinstance(key, tuple | frozenset):
        if len(key) > _LONGEST_KEY or any(isinstance(item, tuple | frozenset) for item in key):
            return Stranger("a long tuple")
        return key if all(_as_key(item) is item for item in key) else Stranger("a long tuple")
    if isinstance(key, int) and key.bit_length() > 64 * _LONGEST_KEY:
        return Stranger("a long number")
    return str(key) if isinstance(key, _OldText) else key


def _old_text(text: str) -> str:
    """Return text that Python 2 wrote as bytes, read here as latin-1."""
    if text.isascii():
        return text
    raw = text.encode("latin-1")
    found = _OldText(decoded(raw))
    found.raw = raw
    return found


# ---- what is made, by the name that stands for it; `None` leaves the stranger


def _rebuild_tensor(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, *more = arguments
    if len(more) > 2 and more[2]:  # conjugated or negated without its numbers being so
        return None
    return self.tensor(storage, offset, size, stride)


def _rebuild_tensor_of_type(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    storage, offset, size, stride, _, _, dtype, *more = arguments
    if (more and more[0]) or not isinstance(dtype, torch.dtype):
        return None
    return self.tensor(storage, offset, size, stride, dtype)


def _first_tensor(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments and isinstance(arguments[0], Tensor) else None


def _with_attributes(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """Make a tensor that has attributes of its own; one of a class of its own means something that is not known here."""
    function, kind, inner, _ = arguments
    name = getattr(kind, "name", "")
    if name in ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        return self._call(function, inner)
    return Stranger(f"{name} (a tensor class)")


def _bytes(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            self.spend(len(text))
            return text.encode("latin-1")
        case ():
            return b""
    return None


def _copied(kind: Callable[..., Any], *accepted: type) -> Callable[[Unpickler, tuple[Any, ...]], Any]:
    """Make a container of what one plain container holds."""

    def make(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
        if not arguments:
            return kind()
        if len(arguments) > 1 or type(arguments[0]) not in accepted:
            return None
        self.spend(_ITEM * len(arguments[0]))
        return kind(arguments[0])

    return make


def _ordered(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """Make an ordered dictionary: empty, or of the pairs that Python 2 writes."""
    pairs = arguments[0] if arguments else []
    if (
        len(arguments) > 1
        or type(pairs) is not list
        or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs)
    ):
        return None
    self.spend(_ITEM * len(pairs))
    return OrderedDict((_as_key(key), value) for key, value in pairs)


def _hashable(kind: Callable[..., Any]) -> Callable[[Unpickler, tuple[Any, ...]], Any]:
    def make(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) > 1 or (arguments and type(arguments[0]) not in (list, tuple)):
            return None
        self.spend(_ITEM * len(arguments[0]) if arguments else 0)
        return kind(map(_as_key, arguments[0])) if arguments else kind()

    return make


def _complex(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    return complex(*arguments) if len(arguments) == 2 and all(type(part) is float for part in arguments) else None


def _attribute(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    """Name what lies in a class: old pickles reach a class in a class so, and attacks whatever they need."""
    match arguments:
        case (Stranger() as owner, str() as attribute) if attribute.isidentifier() and not attribute.startswith("_"):
            return self._name(owner.name, attribute)
    raise RefusedNameError("builtins.getattr")


def _reconstructed(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    return Stranger(arguments[0].name) if arguments and isinstance(arguments[0], Stranger) else None


def _dtype(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    name = arguments[0] if arguments else None
    return _DType(np.dtype(str(name))) if isinstance(name, str) and re.fullmatch(r"[<>|=]?[biufc](1|2|4|8|16)", name) else None


def _array(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    return _Array() if arguments and isinstance(arguments[0], Stranger) and arguments[0].name == "numpy.ndarray" else None


def _filled(self: Unpickler, state: Any) -> Any:
    match state:
        case (_, tuple() as shape, _DType() as dtype, bool() | int() as fortran, data):
            return _array_of(self, data, dtype, shape, "F" if fortran else "C")
    return Stranger("numpy.ndarray")


def _array_from_buffer(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (data, _DType() as dtype, tuple() as shape, "C" | "F" as order):
            return _array_of(self, data, dtype, shape, order)
    return None


def _array_of(self: Unpickler, data: Any, dtype: _DType, shape: tuple[Any, ...], order: str) -> Any:
    raw = _raw(data)
    if raw is None or any(type(length) is not int or length < 0 for length in shape):
        return Stranger("numpy.ndarray")
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise pickle.UnpicklingError("an array of another size than its numbers")
    self.spend(len(raw))
    native = dtype.dtype.newbyteorder("=")
    # copied, for torch takes no numbers that cannot be written to, and none of the other order
    return np.array(np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if order == "F" else "C"), dtype=native)


def _scalar(self: Unpickler, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (_DType() as dtype, data) if (raw := _raw(data)) is not None and len(raw) == dtype.dtype.itemsize:
            return np.frombuffer(raw, dtype.dtype)[0].item()
    return None


def _raw(data: Any) -> bytes | None:
    if isinstance(data, _OldText):
        return data.raw
    if isinstance(data, str) and data.isascii():
        return data.encode("ascii")
    return bytes(data) if isinstance(data, bytes | bytearray) else None


_QUANTISED = frozenset({torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4})
_MAKERS: dict[str, Callable[[Unpickler, tuple[Any, ...]], Any]] = {
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
