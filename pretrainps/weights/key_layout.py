"""The type of a key layout: another code base's names for the same tensors, as pure functions in both directions.

A `KeyLayout` converts a file's state dict to native names (`to_native`) and back (`from_native`). Most layouts only rename.
SOLIDER's also reorders the channels of its patch merging, so it must be proven: `read` refuses keys that the layout itself
would not write. A layout never drops an unknown key: that key passes unchanged, and the load report shows it.
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
    """The dictionary keys above the tensors in a .pth file of that code base."""
    suffix: Suffix = ".pth"
    """The ending of files; `.pkl` is detectron2's own format, a pickled dictionary of numpy arrays."""
    reorders: bool = False
    """Whether values are reordered too, so that a file must be proven to be in this layout before it is converted."""
    unused: tuple[str, ...] = ()
    """Shell patterns of keys in the layout's files that are not used."""
    heads: tuple[str, ...] = ()
    """Shell patterns of the keys of a whole detector that are not part of its backbone."""
    use: str = ""
    """One line that loads such a file in that code base, with placeholders {file}, {state}, {arch} and {depth}."""

    def read(self, tensors: Tensors) -> Tensors:
        """Return a file's tensors under native names.

        Raises:
            LayoutError: two keys mean one tensor; or the layout reorders values, and some keys are not its own names.
        """
        native = self.to_native(tensors)
        if self.reorders and (strange := tensors.keys() - self.from_native(native).keys()):
            raise LayoutError(
                f"{len(strange)} keys are not the names of the key layout {self.name!r} ({', '.join(sorted(strange)[:3])}), "
                "so the order of the values cannot be known. Ask for a file with the names of one code base only."
            )
        return native

    def native_name(self, key: str) -> str:
        """Return the native name of one key."""
        return next(iter(self.to_native({key: _PROBE})))


_PROBE = torch.empty(4, device="meta")
"""A tensor to rename: the smallest that every layout can reorder."""

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
            raise LayoutError(f"the file has {key!r} and another key that both mean {renamed!r} in this key layout.")
        result[renamed] = value
    return result


def renumbered(prefix: str, shift: int) -> Callable[[re.Match[str]], str]:
    """Return a substitution for `rename` that renumbers the stage that a pattern's first group caught."""
    return lambda match: f"{prefix}{int(match[1]) + shift}"
