"""Read a pickle without any import or call of the names in it.

Python's own unpickler imports and calls any name in a file. Here each instruction is executed on plain containers, and a name
is only compared with the table `MAKERS`. This table has functions of this package that make tensors, NumPy numbers and arrays,
and plain containers, after a check of their arguments. Any other name becomes a `Stranger`, an inert record of the name: to
call it, set its state or fill it gives a `Stranger` again. So settings objects, dates and paths that a training script stored
with its weights are harmless, and need no package. Names of functions that run commands or code are refused nevertheless:
weight files do not need them.

torch's own restricted unpickler is not used, because it cannot skip unknown classes: each must be allowed by name, and a class
derived from `dict` is refused even then.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import IO, Any

import torch
from torch import Tensor

from pretrainps.download.pickled import NO_END, UNREADABLE, is_refused, normal_name
from pretrainps.weights.makers import DTYPES, MAKERS, filled_array
from pretrainps.weights.placeholders import (
    Array,
    DType,
    EndlessNameError,
    RefusedNameError,
    Storage,
    Stranger,
    UnpackedError,
    as_key,
    old_text,
)

_LONGEST_NAME = 1000
"""Most characters of the name of a module and a class."""

StorageOf = Callable[[tuple[Any, ...]], Storage]
"""Function from a reference in the pickle, `("storage", type, key, device, length, ...)`, to the storage."""


class Unpickler:
    """A safe unpickler.

    Args:
        storage_of: Function that finds the storages of the pickle; `None` if it cannot have any.
        budget: Most bytes of tensors and copies, because a few bytes of a pickle can request the same content again.
    """

    def __init__(self, storage_of: StorageOf | None = None, budget: int = 1 << 26) -> None:
        self._storage_of = storage_of
        self._budget = budget
        self.strangers: set[str] = set()
        """Names of objects that were not created."""

    def load(self, stream: IO[bytes]) -> Any:
        """Return the object of the pickle at the stream's position, and leave the stream at the pickle's end.

        Raises:
            pickle.UnpicklingError: it is damaged, or needs something that is not allowed.
            RefusedNameError: it names a function that runs commands.
            UnpackedError: it refers to storages, but there are none.
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
            self.push(old_text(argument) if opcode in ("BINSTRING", "SHORT_BINSTRING") else argument)
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
        if isinstance(top, Array):
            top.place = place

    def push(self, value: Any) -> None:
        """Put a value on the current stack. Call it after the value is complete: taking marked items changes the stack."""
        self._stack.append(value)

    def _marked(self) -> list[Any]:
        """Return the items since the last mark."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def name(self, module: Any, name: Any) -> Any:
        """Return the object for a name: a torch dtype, or a placeholder.

        Raises:
            RefusedNameError: it can run commands.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise pickle.UnpicklingError("a name in it is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise EndlessNameError
        full = normal_name(f"{module}.{name}")
        if is_refused(full):
            raise RefusedNameError(full)
        return DTYPES.get(full) or Stranger(full)

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the object for a call of a name with arguments; no code of the file is called."""
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("arguments are no tuple")
        if isinstance(function, torch.dtype) or not isinstance(function, Stranger):
            raise pickle.UnpicklingError("what is called has no name")
        maker = MAKERS.get(function.name)
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


# ---- instructions on the stack


def _call_with(self: Unpickler, _: Any) -> None:
    arguments = self._stack.pop()
    self.push(self.call(self._stack.pop(), arguments))


def _call_with_names(self: Unpickler, _: Any) -> None:
    self._stack.pop()  # keyword arguments, which no maker accepts
    _call_with(self, None)


def _inst(self: Unpickler, argument: Any) -> None:
    items = tuple(self._marked())
    self.push(self.call(self.name(*argument.split(" ", 1)), items))


def _obj(self: Unpickler, _: Any) -> None:
    function, *items = self._marked()
    self.push(self.call(function, tuple(items)))


def _stack_global(self: Unpickler, _: Any) -> None:
    name = self._stack.pop()
    self.push(self.name(self._stack.pop(), name))


def _build(self: Unpickler, _: Any) -> None:
    state, built = self._stack.pop(), self._stack[-1]
    if isinstance(built, Array):
        self._stack[-1] = array = filled_array(self, state)
        if built.place is not None:
            self._memo[built.place] = array
    elif isinstance(built, DType):
        match state:
            case (_, "<" | ">" | "=" | "|" as order, *_):
                built.dtype = built.dtype.newbyteorder(order)
            case _:
                raise pickle.UnpicklingError("numbers of an unknown order of bytes")
    elif not isinstance(built, Stranger | OrderedDict | Tensor):  # the state of these is not needed
        raise pickle.UnpicklingError("a state for what has none")


def _append(self: Unpickler, _: Any) -> None:
    _extend(self, [self._stack.pop()])


def _extend(self: Unpickler, items: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) is list:
        target.extend(items)
    elif not isinstance(target, Stranger):  # a class derived from list: its items are not needed
        raise pickle.UnpicklingError("items for what is no list")


def _add(self: Unpickler, _: Any) -> None:
    items = self._marked()
    if type(self._stack[-1]) is not set:
        raise pickle.UnpicklingError("items for what is no set")
    self._stack[-1].update(map(as_key, items))


def _set_items(self: Unpickler, items: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) not in (dict, OrderedDict, Counter) and not isinstance(target, Stranger):
        raise pickle.UnpicklingError("items for what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[as_key(key)] = value


def _set_item(self: Unpickler, _: Any) -> None:
    value = self._stack.pop()
    _set_items(self, [self._stack.pop(), value])


def _storage(self: Unpickler, _: Any) -> None:
    reference = self._stack.pop()
    if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
        self.push(reference[1])  # a module class, which older files store with its source
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
    "GLOBAL": lambda self, argument: self.push(self.name(*argument.split(" ", 1))),
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
    "FROZENSET": lambda self, _: self.push(frozenset(map(as_key, self._marked()))),
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
    else:  # Python allows POP to remove a mark
        self._marked()


def _drop(self: Unpickler) -> None:
    self._marked()
