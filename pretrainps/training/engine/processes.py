"""Communication between the processes of one training, apart from gradients: small values, over gloo on the CPU.

A collective operation on GPUs would make each step wait for the device.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed as dist

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=12)
"""How long one process waits for another, which may be measuring the model on a whole data set."""


class Processes:
    """The processes of one training. With a single process nothing is sent."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.count = dist.get_world_size() if together else 1
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and evaluates."""
        return self.rank == 0

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether a process has it set. All processes must call this with as many flags."""
        if self._group is None:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._group)
        return [bool(vote) for vote in votes.tolist()]

    def gather(self, thing: T) -> list[T]:
        """Return the values of all processes, in the order of ranks."""
        if self._group is None:
            return [thing]
        things: list[Any] = [None] * self.count
        dist.all_gather_object(things, thing, group=self._group)
        return things

    def on_main(self, do: Callable[[], T]) -> T:
        """Call a function in the main process only. All processes return what it returned, or raise what it raised."""
        if self._group is None:
            return do()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = do()
            except Exception as error:  # of any kind: without it the other processes would wait for hours
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self._group)
        if outcome[1] is not None:
            raise outcome[1]
        found: T = outcome[0]
        return found
