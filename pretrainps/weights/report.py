"""The report of a load, as plain data: the comparison of a file's tensors with a model. It does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SideData:
    """An entry among the tensors of a file that is no tensor: an epoch, settings, a curve."""

    key: str
    """The key in the file."""
    native: str | None
    """The model's key of a tensor with that name; `None` if there would be none."""
    what: str
    """A description of the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """The comparison of a checkpoint with a model: each tensor of both sides is in exactly one list."""

    name: str
    matched: tuple[str, ...]
    """Keys in both, with the same shape."""
    expected_missing: tuple[str, ...] = ()
    """Keys only in the model, as declared; they keep their initial values."""
    ignored: tuple[str, ...] = ()
    """Keys only in the file, as declared (for example a classifier over ImageNet's classes)."""
    side_data: tuple[str, ...] = ()
    """Keys only in the file, of entries that are no tensors: numbers, settings, text. They are left out."""
    no_tensor: tuple[tuple[str, str], ...] = ()
    """Keys in both, but not of a plain tensor in the file: (key of the model, description of the entry in the file)."""
    missing: tuple[str, ...] = ()
    """Keys only in the model, undeclared."""
    unexpected: tuple[str, ...] = ()
    """Keys only in the file, undeclared."""
    wrong_shape: tuple[tuple[str, Shape, Shape], ...] = ()
    """Keys in both, with different shapes: (key, shape in the file, shape in the model)."""
    wrong_kind: tuple[tuple[str, str, str], ...] = ()
    """Keys in both, but integers on one side and floats on the other: (key, type in the file, type in the model)."""
    converted: tuple[str, ...] = ()
    """Those of `matched` that are stored in another precision than the model's; they are converted on loading."""
    new: tuple[str, ...] = ()
    """Keys only in the model: a requested new head, or identity tables that were removed from the file."""
    parameters_loaded: int = 0
    """Number of learned parameters filled from the file, without batch-norm statistics."""
    parameters: int = 0
    """Number of learned parameters in the part of the model that the file is for."""

    @property
    def ok(self) -> bool:
        """Whether there is no undeclared difference, and at least one tensor was filled."""
        filled = self.parameters_loaded > 0 or self.parameters == 0
        return filled and not (self.missing or self.unexpected or self.wrong_shape or self.wrong_kind or self.no_tensor)

    @property
    def share(self) -> float:
        """Share of the parameters filled from the file, 0 to 1."""
        return self.parameters_loaded / self.parameters if self.parameters else 0.0

    def __str__(self) -> str:
        unfit = len(self.wrong_shape) + len(self.wrong_kind) + len(self.no_tensor)
        model_side = len(self.matched) + len(self.expected_missing) + len(self.missing) + unfit
        # rounded down, because 99.99 % is not 100 %
        percent = f"{int(self.share * 10000) / 100:g} %"
        lines = [
            f"{self.name}: {len(self.matched)} of {model_side} tensors matched, "
            f"{self.parameters_loaded:,} of {self.parameters:,} parameters ({percent})"
        ]
        for label, keys in (
            ("not in the file, as declared", self.expected_missing),
            ("in the file and not used, as declared", self.ignored),
            ("in the file and no tensors, left out", self.side_data),
            ("stored in another precision and converted", self.converted),
            ("new, freshly initialized", self.new),
            ("MISSING from the file", self.missing),
            ("UNEXPECTED in the file", self.unexpected),
        ):
            if keys:
                lines.append(f"  {label}: {len(keys)} ({some(keys)})")
        for key, found, wanted in self.wrong_shape[:5]:
            lines.append(f"  WRONG SHAPE: {key} is {list(found)} in the file and {list(wanted)} in the model")
        if len(self.wrong_shape) > 5:
            lines.append(f"  WRONG SHAPE: {len(self.wrong_shape) - 5} more")
        for key, what in self.no_tensor[:5]:
            lines.append(f"  NO PLAIN TENSOR: {key} is {what} in the file")
        for key, kind, model_kind in self.wrong_kind[:5]:
            lines.append(f"  WRONG TYPE: {key} is {kind} in the file and {model_kind} in the model")
        return "\n".join(lines)


def some(keys: Sequence[str]) -> str:
    """Return the first few keys as text."""
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
