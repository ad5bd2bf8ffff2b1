"""Output of the command: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image


def say(text: str) -> None:
    """Write a line of the result."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Write a remark that is not part of the result."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # characters that a console cannot show are escaped
    stream.write(_printable(text).encode(encoding, "backslashreplace").decode(encoding) + "\n")


@contextlib.contextmanager
def console() -> Iterator[None]:
    """Use null streams where Python has none (pythonw, `>&-`), because progress bars and other libraries write too."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            before: TextIO | None = getattr(sys, name)
            if before is None or before.closed:
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
                stack.callback(setattr, sys, name, before)
        yield


def flush() -> None:
    """Flush the output; an error of writing shows only here."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def abandon() -> None:
    """Stop all writes and shutdown errors of Python on streams that their readers have closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the stream is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _printable(text: str) -> str:
    """Return a text with control characters escaped: names from files and servers may hold any."""
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)


def say_json(value: Any) -> None:
    """Write the result for a program."""
    say(json.dumps(value, indent=2))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns with a header."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def picture_file(path: Path) -> Path:
    """Check the path of an image to write, before a long computation, and return it.

    Raises:
        ArgumentError: its ending is no known format, or its folder does not exist.
    """
    path = path.expanduser()
    if path.suffix.lower() not in (".png", ".jpg"):
        raise ArgumentError(f"{path}: the ending sets the format; use .png or .jpg.")
    if not path.parent.is_dir() or path.is_dir():
        raise ArgumentError(f"{path} cannot be written: {path.parent} is no folder, or {path.name} is a folder.")
    return path


def save_picture(picture: Image, path: Path) -> None:
    """Write an image in one step, so that no reader sees a part of it.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    from pretrainps.files import new_file

    with new_file(path) as temporary:
        picture.save(temporary, format="PNG" if path.suffix.lower() == ".png" else "JPEG")


def megabytes(size: int) -> str:
    """Return a size in MB as text."""
    return f"{size / 1e6:.1f} MB"
