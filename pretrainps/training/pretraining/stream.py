"""The batches of hybrid pre-training: scenes and crops together; at the start there may be steps with crops only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Self

from pretrainps.data.loading import Loader
from pretrainps.errors import ArgumentError
from pretrainps.training.engine.settings import LoopSettings
from pretrainps.training.engine.task import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """The position of each batch in a training."""

    steps: int
    """Steps of the training."""
    epoch_steps: int
    """Steps of an epoch."""
    crops_only: int
    """Steps at the start of the training that see crops only."""
    accumulate: int
    """Batches of a step."""

    @classmethod
    def of(cls, loop: LoopSettings, batches: int, crops_only_share: float) -> Self:
        """Return the course of a training.

        Args:
            loop: How long it is.
            batches: Of an epoch, for one process.
            crops_only_share: Share of the steps, at the start, that see crops only.
        """
        epoch_steps = batches // loop.accumulate
        steps = min(loop.epochs * epoch_steps, loop.max_steps or loop.epochs * epoch_steps)
        crops_only = max(0, min(round(crops_only_share * steps), steps - 1))
        return cls(steps=steps, epoch_steps=epoch_steps, crops_only=crops_only, accumulate=loop.accumulate)

    def progress(self, epoch: int, batch: int) -> float | None:
        """Return the share of the steps with scenes that are done; None for a batch of crops only."""
        done = epoch * self.epoch_steps + batch // self.accumulate - self.crops_only
        return None if done < 0 else min(1.0, done / max(1, self.steps - self.crops_only))

    def first_with_scenes(self, epoch: int) -> int:
        """Return the first batch of an epoch that has scenes; the number of its batches, if none has."""
        return max(0, self.crops_only - epoch * self.epoch_steps) * self.accumulate


class HybridStream:
    """A `Stream` of scenes by data set, crops by data set, and the share of the steps with scenes that is done.

    Args:
        scenes: Batches of scenes by data set; None without detection data.
        crops: Batches of crops by data set, as many; None without re-ID data.
        course: When there are crops only. Scenes are not even read then.

    Raises:
        ArgumentError: neither scenes nor crops.
    """

    def __init__(self, scenes: Loader[dict[str, Any]] | None, crops: Loader[dict[str, Any]] | None, course: Course) -> None:
        self.scenes, self.crops, self.course = scenes, crops, course
        if scenes is None and crops is None:
            raise ArgumentError("no data: give at least one data set for detection or re-ID.")
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return next(len(each) for each in (self.scenes, self.crops) if each is not None)

    def start_at(self, epoch: int, done: int = 0) -> None:
        """Go to an epoch, past the batches of it that were used."""
        self.epoch, self.done = epoch, done
        if self.scenes is not None:
            self.scenes.batches.start_at(epoch, min(len(self), max(done, self.course.first_with_scenes(epoch))))
        if self.crops is not None:
            self.crops.batches.start_at(epoch, done)

    def __iter__(self) -> Iterator[Batch | None]:
        # both start with the first batch, even if scenes come later: starting draws random numbers, which only the first batch
        # gives back
        scenes, crops = (repeat(None) if each is None else iter(each) for each in (self.scenes, self.crops))
        for number in range(self.done, len(self)):
            progress = self.course.progress(self.epoch, number)
            batch = (None if progress is None else next(scenes)) or {}, next(crops) or {}
            yield (*batch, progress or 0.0) if any(batch) else None
