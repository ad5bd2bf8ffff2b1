"""What a key layout is: another code base's names for the same tensors, as pure functions in both directions.

A `Layout` turns a file's state dict into the package's own names (`to_native`) and back (`from_native`). Most only rename;
SOLIDER's also reorders the channels of its patch merging. A layout never drops a key it does not know: that key goes
through unchanged and the load report shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pretrainps.errors import LayoutError

Tensors = dict[str, Tensor]
Suffix = Literal[".pth", ".pkl"]


def _unchanged(tensors: Tensors) -> Tensors:
    return dict(tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One code base's names for one family of backbones or detectors."""

    name: str
    to_native: Callable[[Tensors], Tensors] = _unchanged
    from_native: Callable[[Tensors], Tensors] = _unchanged
    wrapper: tuple[str, ...] = ()
    """Where that code base looks for the tensors inside a .pth file."""
    suffix: Suffix = ".pth"
    """`.pkl` is detectron2's own format, a pickled dictionary of numpy arrays."""
    foreign: tuple[str, ...] = ()
    """Shell patterns of keys that the layout's files have beyond what is taken from them."""
    use: str = ""
    """How that code base loads such a file, one line, with {file}, {state}, {arch} and {depth} to be filled in."""


Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def rename(tensors: Tensors, rules: Rules) -> Tensors:
    """Apply regular-expression substitutions to every key, in order.

    Raises:
        LayoutError: two keys would become one, and one of the tensors would be lost.
    """
    result: Tensors = {}
    for key, value in tensors.items():
        renamed = key
        for pattern, target in rules:
            renamed = re.sub(pattern, target, renamed)
        if renamed in result:
            raise LayoutError(f"the file has {key!r} and another key that both stand for {renamed!r} in this key layout.")
        result[renamed] = value
    return result
