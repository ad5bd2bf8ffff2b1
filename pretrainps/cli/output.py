"""How the command speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def say(text: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(_printable(text) + "\n")


def note(text: str) -> None:
    """Write a remark that is not part of the result."""
    sys.stderr.write(_printable(text) + "\n")


def _printable(text: str) -> str:
    """Show control characters instead of obeying them: names from files and servers may hold any."""
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)


def say_json(value: Any) -> None:
    """Write the result for a program."""
    say(json.dumps(value, indent=2))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns under their heads."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def megabytes(size: int) -> str:
    """Return a size for people."""
    return f"{size / 1e6:.1f} MB"
