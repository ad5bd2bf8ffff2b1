"""The contract of a training: a model that returns its losses, its batches, and its evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import nn

from pretrainps.data.loading import Loader

Batch = tuple[Any, ...]
"""The arguments of one forward pass. Tensors in it, however deep in lists and dictionaries, are moved to the device, and bytes
(uint8: pixels) become float32 in 0..1 there."""


class Stream(Protocol):
    """The batches of one process, epoch after epoch. Their order depends on seed and epoch only."""

    def __len__(self) -> int:
        """Return how many batches an epoch has for this process, used ones included. It is the same in all processes."""

    def start_at(self, epoch: int, done: int = 0) -> object:
        """Go to an epoch, past the batches of it that were used."""

    def __iter__(self) -> Iterator[Batch | None]:
        """Yield the rest of the epoch; `None` for a batch of which nothing could be read."""


class Task(Protocol):
    """A training: the model, its data and its measure."""

    @property
    def model(self) -> nn.Module:
        """The model. `model(*batch)` returns weighted losses by name, the same names in each step. Their sum is minimized."""

    @property
    def batch_size(self) -> int:
        """Images in one batch of one process."""

    @property
    def metric(self) -> str | None:
        """The key in the result of `evaluate` whose highest value is best; `None` to keep no best weights."""

    def stream(self, rank: int, world_size: int) -> Stream:
        """Return the batches of process `rank` among `world_size`."""

    def names(self, batch: Batch) -> list[str]:
        """Return the names of a batch's images, for the record of a batch without a finite loss."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the model, which is in eval mode. Only the main process calls this. The result may be empty.

        Args:
            model: The task's own model, with averaged weights if the settings ask for them.
        """


@runtime_checkable
class DescribedTask(Protocol):
    """A task that describes its data."""

    def describe(self) -> dict[str, Any]:
        """Return what else is recorded with the run, ready for JSON: fingerprints of the data, hashes of weights.

        A run is resumed only if it is the same, except for names in `may_differ` of `train`. So nothing in it should change by
        itself.
        """


class LoaderStream:
    """A `Loader` as a stream.

    Args:
        loader: Its batches are tuples.
    """

    def __init__(self, loader: Loader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def start_at(self, epoch: int, done: int = 0) -> None:
        """Go to an epoch, past the batches of it that were used."""
        self.loader.batches.start_at(epoch, done)

    def __iter__(self) -> Iterator[Batch | None]:
        yield from self.loader  # the first batch starts the processes that read
