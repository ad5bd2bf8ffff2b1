"""The batches of each step. All processes read the same number."""

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
    """The batches of one step."""

    batches: list[Batch]
    """The batches of this process that could be read."""
    waiting: float
    """Seconds that it took to read them."""


class Feed:
    """Reads a stream in windows, each with the batches of one step. Batches at the end that do not fill a window are left out.

    Args:
        stream: The data.
        size: Batches in a window.
        processes: The processes that train together.
        stopping: Whether the run was asked to stop.
    """

    def __init__(self, stream: Stream, size: int, processes: Processes, stopping: StopSignal) -> None:
        self.stream, self.size, self.processes, self.stopping = stream, size, processes, stopping

    def left(self, done: int) -> int:
        """Return how many windows of an epoch are left after `done` batches."""
        return (len(self.stream) - done) // self.size

    def windows(self, epoch: int, done: int) -> Iterator[Window | None]:
        """Yield the rest of an epoch. If Ctrl-C also reached the processes that read, yield `None`, and nothing after it.

        A batch that one process cannot read is left out by all, for all must compute equally often.

        Raises:
            TrainingError: the stream ends before its length.
        """
        self.stream.start_at(epoch, done)
        batches = iter(self.stream)
        for number in range(self.left(done)):
            began = time.perf_counter()
            # the first batch starts the reading processes and draws a seed for them; a resumed run does so at another step
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
