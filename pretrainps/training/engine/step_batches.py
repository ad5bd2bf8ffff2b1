"""The batches of each step, read alike by all processes."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pretrainps.errors import TrainingError
from pretrainps.training.engine.processes import Processes
from pretrainps.training.engine.random_state import untouched_randomness
from pretrainps.training.engine.signals import StopSignal
from pretrainps.training.engine.task import Batch, Stream


@dataclass(frozen=True, slots=True)
class Window:
    """What one step learns from."""

    batches: list[Batch]
    """Those of this process that could be read; none, if nothing could."""
    waiting: float
    """Seconds until they were there."""


class Feed:
    """Reads a stream in windows of as many batches as make a step; those that would not fill one are left out.

    Args:
        stream: The data.
        size: Batches in a window.
        processes: Those that train together.
        stopping: Whether somebody asked to stop.
    """

    def __init__(self, stream: Stream, size: int, processes: Processes, stopping: StopSignal) -> None:
        self.stream, self.size, self.processes, self.stopping = stream, size, processes, stopping

    def left(self, done: int) -> int:
        """Return the windows of an epoch that are left after `done` batches."""
        return (len(self.stream) - done) // self.size

    def windows(self, epoch: int, done: int) -> Iterator[Window | None]:
        """Yield what is left of an epoch; `None`, and nothing after it, if Ctrl-C reached the processes that read, too.

        What one process cannot read no process uses, for all of them must compute as many times.

        Raises:
            TrainingError: the stream ends before its length.
        """
        self.stream.start_at(epoch, done)
        batches = iter(self.stream)
        for number in range(self.left(done)):
            began = time.perf_counter()
            # the first batch starts the reading processes, which draws a seed for them; a resumed run does so elsewhere
            with untouched_randomness() if number == 0 else contextlib.nullcontext():
                window, broken = self._read(batches)
            *missing, broken = self.processes.any([*(batch is None for batch in window), broken])
            if broken:
                yield None
                return
            read = [batch for batch, gone in zip(window, missing, strict=True) if batch is not None and not gone]
            yield Window(read, time.perf_counter() - began)

    def _read(self, batches: Iterator[Batch | None]) -> tuple[list[Batch | None], bool]:
        try:
            window = list(itertools.islice(batches, self.size))
        except RuntimeError:  # what a DataLoader says of workers that have gone
            if self.stopping.name is None:
                raise
            return [None] * self.size, True
        if len(window) < self.size:
            raise TrainingError(f"the stream of data promised {len(self.stream)} batches an epoch, but ended before.")
        return window, False
