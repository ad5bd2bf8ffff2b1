"""Find the imports of a pickle without unpickling it, and decide which of them are refused."""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Iterator
from typing import IO

ENDLESS_NAME = "(a name without an end)"
"""Stands for an import of a damaged pickle with a name that has no end of line, so that the name is not known."""
NO_END = "no newline found"
"""Part of `pickletools`' error for such a name."""
UNREADABLE = (ValueError, EOFError, LookupError, OverflowError, MemoryError, struct.error)
"""Errors of `pickletools.genops` for damaged bytes."""

_REFUSED_PACKAGES = frozenset(
    {"os", "posix", "nt", "sys", "subprocess", "pty", "popen2", "shutil", "socket", "importlib", "imp", "zipimport", "runpy"}
    | {"codeop", "marshal", "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "ctypes", "_ctypes", "cffi", "pdb", "bdb"}
    | {"doctest", "webbrowser", "multiprocessing", "asyncio", "urllib2", "httplib", "ftplib", "smtplib", "pip", "setuptools"}
)
"""Modules that run commands or code, or that reach outside the process. A training script may have its own module of a common
name (`code`, `profile`): of those only the functions that run something are refused."""
_REFUSED_NAMES = re.compile(
    r"builtins\.(eval|exec|execfile|compile|__import__|open|input|raw_input|file|breakpoint|globals|locals|setattr|delattr|apply"
    r"|reload|help)"
    r"|types\.(FunctionType|LambdaType|CodeType|ModuleType)|_?operator\.(call|methodcaller|attrgetter)"
    r"|code\.(interact|InteractiveInterpreter|InteractiveConsole)|commands\.(getoutput|getstatusoutput)|platform\.popen"
    r"|timeit\.(timeit|repeat|Timer|main)|c?[pP]rofile\.(run|runctx|Profile)|trace\.Trace|_?io\.(open|open_code|FileIO)"
    r"|pathlib\.(_local\.)?\w*Path\.[a-z]\w*|(http\.client|urllib\.request)\..*"
    r"|torch\.(load|save|compile|(hub|jit|package|ops|classes|utils\.cpp_extension)\..*)|torch\.serialization\.(load|save)"
    r"|torch\.storage\._load_from_bytes|numpy\.(load|save|fromfile|memmap|(f2py|testing|distutils)\..*)"
)
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "exceptions": "builtins", "UserDict": "collections"}


def normal_name(name: str) -> str:
    """Return an import's name in Python 3."""
    module, _, rest = name.partition(".")
    return f"{_PYTHON_2.get(module, module)}.{rest}"


def is_refused(name: str) -> bool:
    """Return whether a name can run commands or code. A file with such a name is not read, although nothing would run."""
    return name.partition(".")[0] in _REFUSED_PACKAGES or _REFUSED_NAMES.fullmatch(name) is not None


def decoded(raw: bytes) -> str:
    """Decode text that Python 2 wrote without an encoding."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def globals_of_stream(stream: IO[bytes]) -> Iterator[str]:
    """Yield the imports. Strings are followed through the memo, because STACK_GLOBAL takes the two strings pushed last."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:]) if len(strings) > 1 else "something unnamed"
            elif isinstance(argument, str):
                strings.append(argument)
            elif opcode.name == "MEMOIZE":
                memo[len(memo)] = strings[-1] if strings else ""
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int):
                memo[argument] = strings[-1] if strings else ""
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET") and isinstance(argument, int):
                strings.append(memo.get(argument, ""))
    except UNREADABLE as error:
        if NO_END in str(error):
            yield ENDLESS_NAME
        return  # a damaged pickle: the names found so far remain
