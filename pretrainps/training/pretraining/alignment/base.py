"""The contract of an alignment, the table of all alignments, and their settings."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.errors import ArgumentError

SubTask = Literal["detection", "reid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSettings:
    """Which alignment, and how strong.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    kind: str = "adversarial"
    """The name of an alignment in `ALIGNMENTS`."""
    weight: float = 0.1
    """Weight of each alignment loss; 0.1 is Domain Adaptive Faster R-CNN's."""
    width: int = 128
    """Hidden channels of the networks that the alignment itself trains, such as the discriminators of `adversarial`."""

    def __post_init__(self) -> None:
        if self.kind not in ALIGNMENTS:
            near = difflib.get_close_matches(str(self.kind), ALIGNMENTS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ArgumentError(
                f"AlignmentSettings.kind must be one of {', '.join(map(repr, ALIGNMENTS))}, not {self.kind!r}.{hint}"
            )
        if not 0.0 <= self.weight < math.inf:
            raise ArgumentError(f"AlignmentSettings.weight must be a number of at least 0, not {self.weight}.")
        if self.width < 1:
            raise ArgumentError(f"AlignmentSettings.width must be at least 1, not {self.width}.")


@dataclass(frozen=True, slots=True)
class TaskFeatures:
    """What one batch of a sub-task looks like inside the network."""

    maps: Tensor
    """(N, C4, h, w) trunk maps of scenes or crops."""
    inside: Tensor
    """(N, h, w) True where a map shows picture, False where it shows padding."""
    map_sets: Tensor
    """(N,) the data set of each map, by number."""
    instances: Tensor
    """(R, C5) pooled features of people: of the positive regions, or of the crops."""
    instance_sets: Tensor
    """(R,) the data set of each instance, by number."""


class Alignment(nn.Module):
    """The base of all alignments. It is also the alignment `none`, which leaves everything as it is.

    A method fills in `levels` and `_losses`, or changes the network in `prepare`.

    Args:
        sets: Number of data sets of each sub-task.
        channels: Channels of the backbone's maps, by name.
        settings: Which alignment, and how strong.
    """

    levels: ClassVar[tuple[str, ...]] = ()
    """What it has losses on: "image", "instance"."""
    has_parameters_per_set: ClassVar[bool] = False
    """Whether `prepare` gives the backbone parameters that only one data set uses. A batch without that data set leaves them
    without a gradient. Gradient checkpointing is then refused: a recomputation would not know the data set of each row."""

    def __init__(self, sets: Mapping[SubTask, int], channels: Mapping[str, int], settings: AlignmentSettings) -> None:
        super().__init__()
        self.sets, self.channels, self.settings = dict(sets), dict(channels), settings

    def forward(self, task: SubTask, features: TaskFeatures, progress: float = 1.0) -> dict[str, Tensor]:
        """Return the unweighted losses that align a sub-task, by `names`.

        Args:
            task: Which sub-task.
            features: What its data sets look like.
            progress: Share of the training that is done.
        """
        if not self.names(task):
            return {}
        losses = self._losses(task, features, progress)
        return {name: losses[level] for name, level in zip(self.names(task), self.levels, strict=True)}

    def names(self, task: SubTask) -> list[str]:
        """Return `loss_align_TASK_LEVEL` for each level; nothing for a sub-task with a single data set."""
        return [f"loss_align_{task}_{level}" for level in self.levels] if self.sets[task] > 1 else []

    def prepare(self, half: Backbone) -> None:
        """Change the trunk or the last stage, which is about to be trained."""

    def rows(self, task: SubTask, counts: list[int]) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the backbone gets rows of a sub-task's data sets.

        Args:
            task: Which sub-task.
            counts: How many rows are of each data set, in order.
        """
        return contextlib.nullcontext()

    def plain_state(self, half: Backbone) -> dict[str, Tensor]:
        """Return the state of a half that was prepared, as a plain backbone has it."""
        return half.state_dict()

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        """Return the loss on each level, of a sub-task with two or more data sets."""
        return {}


A = TypeVar("A", bound=type[Alignment])

ALIGNMENTS: dict[str, type[Alignment]] = {"none": Alignment}
"""The alignments by name. `register_alignment` adds one."""


def register_alignment(name: str) -> Callable[[A], A]:
    """Return a decorator that enters a subclass of `Alignment` in `ALIGNMENTS`.

    Args:
        name: What `AlignmentSettings.kind` calls it.

    Raises:
        ArgumentError: the name belongs to another alignment.
    """

    def register(alignment: A) -> A:
        known = ALIGNMENTS.setdefault(name, alignment)
        if known is not alignment:
            raise ArgumentError(f"the alignment {name!r} is {known.__module__}.{known.__name__} already. Choose another name.")
        return alignment

    return register
