"""What goes into a graph and what comes out: names, sizes, meaning. Recording, files and the line of use all read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Free:
    """A size that may differ from run to run."""

    name: str
    """What it is called in a file; sizes of one name are equal in a run."""
    letter: str
    """What it is called in the line of use."""
    least: int = 1
    """The smallest that is allowed."""
    example: int = 2
    """The size that a graph is recorded with, and which is not kept. At least 2: PyTorch takes 0 and 1 as fixed."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One input or output."""

    shape: tuple[int | str | Free, ...]
    """Sizes; a text stands for a fixed one that only the model knows."""
    meaning: str = ""
    """What the numbers are, for people."""

    def __str__(self) -> str:
        sizes = [size.letter if isinstance(size, Free) else str(size) for size in self.shape]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''}) {self.meaning}".rstrip()


class Graph(nn.Module):
    """A model as one function of tensors, which a file is made of.

    Attributes:
        inputs: What `forward` takes, by name and in order.
        outputs: What it returns, in order; one alone is returned bare.
        operators: Packages beside torch whose operations PyTorch needs to run the file.
    """

    inputs: Mapping[str, Slot]
    outputs: Mapping[str, Slot]
    operators: tuple[str, ...] = ()

    def described(self) -> str:
        """Say in one line what goes in and what comes out."""
        sides = (", ".join(f"{name} {slot}" for name, slot in slots.items()) for slots in (self.inputs, self.outputs))
        return " -> ".join(sides)
