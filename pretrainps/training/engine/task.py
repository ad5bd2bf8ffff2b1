"""What the engine trains: a model that returns its losses, the batches it sees, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import nn

from pretrainps.data.loading import Loader

Batch = tuple[Any, ...]
"""The arguments of one forward pass. Tensors in it, however deep in lists and dictionaries, are moved to the device, and bytes
(uint8: pixels) become float32 in 0..1 there."""


class Stream(Protocol):
    """The batches of one process, epoch after epoch, in an order that depends on nothing but seed and epoch."""

    def __len__(self) -> int:
        """Return the batches of an epoch for this process, those already used among them; the same for all processes."""

    def start_at(self, epoch: int, done: int = 0) -> object:
        """Go to an epoch, past the batches of it that were used."""

    def __iter__(self) -> Iterator[Batch | None]:
        """Yield what is left of the epoch; `None` for a batch of which nothing could be read."""


class Task(Protocol):
    """A training: the model, its data and its measure."""

    @property
    def model(self) -> nn.Module:
        """What learns: `model(*batch)` returns weighted losses by name, the same names in each step; their sum is minimized."""

    @property
    def batch_size(self) -> int:
        """Images in one batch of one process."""

    @property
    def metric(self) -> str | None:
        """The key of what `evaluate` returns whose highest value is best; `None` to keep no best weights."""

    def stream(self, rank: int, world_size: int) -> Stream:
        """Return the batches of process `rank` among `world_size`."""

    def names(self, batch: Batch) -> list[str]:
        """Return what the images of a batch are called, for the record of a batch that went wrong."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the model, which is in eval mode; called by the main process only. May return nothing.

        Args:
            model: The task's own model, with averaged weights in it if they are asked for.
        """


@runtime_checkable
class DescribedTask(Protocol):
    """A task that can say what it learns from."""

    def describe(self) -> dict[str, Any]:
        """Return what else belongs to the run's record, ready for JSON: data fingerprints, hashes of weights.

        A run is resumed only if it is the same, but for what `train` is told may differ: nothing in it should change by itself.
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
        yield from self.loader  # with its first batch, and not before, processes start
