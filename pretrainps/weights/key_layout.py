"""What a key layout is: another code base's names for the same tensors, as pure functions in both directions.

A `KeyLayout` turns a file's state dict into the package's own names (`to_native`) and back (`from_native`). Most only rename.
SOLIDER's also reorders the channels of its patch merging, so it must be proven: `read` refuses keys that the layout itself
would not write. A layout never drops a key it does not know: that key goes through unchanged and the load report shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pretrainps.errors import LayoutError

Tensors = dict[str, Tensor]
Suffix = Literal[".pth", ".pkl"]


def _unchanged(tensors: Tensors) -> Tensors:
    return dict(tensors)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyLayout:
    """One code base's names for one family of backbones or detectors."""

    name: str
    to_native: Callable[[Tensors], Tensors] = _unchanged
    from_native: Callable[[Tensors], Tensors] = _unchanged
    wrapper: tuple[str, ...] = ()
    """Where that code base looks for the tensors inside a .pth file."""
    suffix: Suffix = ".pth"
    """`.pkl` is detectron2's own format, a pickled dictionary of numpy arrays."""
    reorders: bool = False
    """Whether values change places too, so that a file must be proven to be in this layout before it is read by it."""
    unused: tuple[str, ...] = ()
    """Shell patterns of keys that the layout's files hold and nothing computes with."""
    heads: tuple[str, ...] = ()
    """Shell patterns of keys of a whole detector, which a backbone that is taken out of it leaves behind."""
    use: str = ""
    """How that code base loads such a file, one line, with {file}, {state}, {arch} and {depth} to be filled in."""

    def read(self, tensors: Tensors) -> Tensors:
        """Return a file's tensors under our own names.

        Raises:
            LayoutError: two keys stand for one tensor; or the layout reorders values, and some keys are not its own names.
        """
        native = self.to_native(tensors)
        if self.reorders and (strange := tensors.keys() - self.from_native(native).keys()):
            raise LayoutError(
                f"{len(strange)} keys are not the names of the key layout {self.name!r} ({', '.join(sorted(strange)[:3])}), "
                "so the order of the values cannot be known. Ask for a file whose names are all of one code base."
            )
        return native

    def native_name(self, key: str) -> str:
        """Return our own name of one key."""
        return next(iter(self.to_native({key: _PROBE})))


_PROBE = torch.empty(4, device="meta")
"""Something to rename: the smallest tensor that every layout can reorder."""

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


def renumbered(prefix: str, shift: int) -> Callable[[re.Match[str]], str]:
    """Return a substitution for `rename` that renumbers the stage that a pattern's first group caught."""
    return lambda match: f"{prefix}{int(match[1]) + shift}"
