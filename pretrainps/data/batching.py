"""Batch samplers: seeded, independent of the number of worker processes, and able to resume where a run stopped.

Each class is a batch sampler for `torch.utils.data.DataLoader`. It yields `Draw`s: the index of an image and a seed for its
random augmentation. So an image is augmented in the same way, whichever worker process reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.records import UNLABELLED, Split
from pretrainps.errors import ArgumentError

I64 = NDArray[np.int64]


class Draw(NamedTuple):
    """One image of a batch."""

    item: int
    """Its index."""
    seed: int
    """The seed of everything that is random about it."""


class BatchSampler(ABC):
    """A seeded order of batches, epoch after epoch.

    Args:
        seed: Seed of the order. The same seed and epoch give the same batches.
        rank: Number of this process, from 0.
        world_size: Number of processes. Each gets every `world_size`-th batch; left-over batches are dropped.
    """

    def __init__(self, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if seed < 0:
            raise ArgumentError(f"seed={seed}: it must not be negative.")
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank {rank} of {world_size} processes: it must be from 0 to {world_size - 1}.")
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.done = 0

    def start_at(self, epoch: int, done: int = 0) -> Self:
        """Go to an epoch and skip those of its batches that were used already, for example when a stopped run is resumed.

        The setting stays until the next call, so call it before each pass.

        Args:
            epoch: Number of the epoch, from 0.
            done: Batches of this process that were used. Count those that were trained on: a `DataLoader` reads further ahead.
        """
        self.epoch, self.done = epoch, done
        return self

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches = self._plan(rng)
        seeds = rng.integers(2**62, size=len(batches))
        for number in range(self.done * self.world_size + self.rank, len(self) * self.world_size, self.world_size):
            yield [Draw(int(index), int(seeds[number]) + place) for place, index in enumerate(batches[number])]

    def __len__(self) -> int:
        """Return the number of batches of an epoch for this process, including those already done."""
        return self._count() // self.world_size

    @abstractmethod
    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        """Return all batches of an epoch, `_count` of them."""

    @abstractmethod
    def _count(self) -> int:
        """Return the number of batches of an epoch for all processes; it must not change from epoch to epoch."""


class ShuffledBatches(BatchSampler):
    """Every image once an epoch, in random order; images that do not fill a last batch are left out of that epoch.

    Args:
        images: Number of images.
        batch_size: Images in a batch.
        seed, rank, world_size: See `BatchSampler`.
    """

    def __init__(self, images: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size)
        _require_enough(images, batch_size * world_size)
        self.images, self.batch_size = images, batch_size

    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        return _full(rng.permutation(self.images), self.batch_size)

    def _count(self) -> int:
        return self.images // self.batch_size


class AspectBatches(BatchSampler):
    """Batches of images with similar aspect ratios (upright or wide); each image once an epoch.

    A batch of scenes is padded to its largest image, so mixed batches waste memory and time.

    Args:
        aspects: Width / height of each image (from the sizes in a `Split`, or from the files' headers).
        batch_size: Images in a batch.
        borders: Aspects that separate the groups.
        seed, rank, world_size: See `BatchSampler`.
    """

    def __init__(
        self,
        aspects: Sequence[float],
        batch_size: int,
        *,
        borders: Sequence[float] = (1.0,),
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size)
        _require_enough(len(aspects), batch_size * world_size)
        self.batch_size = batch_size
        group = np.digitize(np.asarray(aspects, dtype=np.float64), sorted(borders))
        self.groups = [np.flatnonzero(group == each) for each in np.unique(group)]

    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        batches, left = [], []
        for group in self.groups:
            order = rng.permutation(group)
            full = len(order) // self.batch_size * self.batch_size
            batches += _full(order[:full], self.batch_size)
            left.append(order[full:])
        batches += _full(np.concatenate(left), self.batch_size)  # left-overs of all groups share batches, to use them
        return [batches[place] for place in rng.permutation(len(batches))]

    def _count(self) -> int:
        return sum(len(group) for group in self.groups) // self.batch_size


class PKBatchSampler(BatchSampler):
    """P people with K images each, as losses need that compare images within a batch (batch-hard triplet).

    Each person comes once an epoch. Of a person with fewer than K images, some images come more than once.

    Args:
        ids: (N,) identity of each image; unlabelled images take no part.
        p: Identities in a batch.
        k: Images of each.
        seed, rank, world_size: See `BatchSampler`.
    """

    def __init__(self, ids: Sequence[int] | I64, p: int, k: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size)
        if p < 1 or k < 1:
            raise ArgumentError(f"p={p}, k={k}: both must be 1 or more.")
        labels = np.asarray(ids, dtype=np.int64)
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] != UNLABELLED]
        self.images = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
        if len(self.images) < max(2, p * world_size):
            raise ArgumentError(
                f"{len(self.images)} identities with images, but a batch needs {p * world_size}, and no loss can tell fewer "
                "than 2 apart. Lower the number of identities in a batch (p), or take a larger data set."
            )
        self.p, self.k = p, k

    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        return [
            np.concatenate([self._some(rng, self.images[each]) for each in group])
            for group in _full(rng.permutation(len(self.images)), self.p)
        ]

    def _some(self, rng: np.random.Generator, images: I64) -> I64:
        turns = [rng.permutation(images) for _ in range(-(-self.k // len(images)))]
        return np.concatenate(turns)[: self.k]

    def _count(self) -> int:
        return len(self.images) // self.p


class BalancedBatches(BatchSampler):
    """Several data sets, one after the other in one index. Each has a fixed share of every batch, whatever its own size.

    A share that is no whole number of images is rounded up in some batches and down in others, so that it holds over an
    epoch. Each data set is passed through in random order, as often as needed.

    Args:
        sizes: Images of each data set.
        batch_size: Images in a batch.
        length: Batches of an epoch for each process; by default, enough for as many images as all data sets have.
        weights: Share of each data set, with any sum; equal by default.
        seed, rank, world_size: See `BatchSampler`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        *,
        length: int | None = None,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size)
        self.sizes, self.batch_size = tuple(sizes), batch_size
        shares = np.ones(len(self.sizes)) if weights is None else np.asarray(weights, dtype=np.float64)
        if batch_size < 1 or (length is not None and length < 1):
            raise ArgumentError(f"batch_size={batch_size}, length={length}: both must be 1 or more.")
        if min(self.sizes, default=0) < 1:
            raise ArgumentError(f"data sets of {self.sizes} images: each must have at least one.")
        if shares.shape != (len(self.sizes),) or not (np.isfinite(shares) & (shares > 0)).all():
            raise ArgumentError(f"weights {weights} for {len(self.sizes)} data sets: each data set needs a weight above 0.")
        self.shares = shares / shares.sum()
        self.length = max(1, sum(self.sizes) // (batch_size * world_size)) if length is None else length

    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        turns = np.array(list(islice(_turns(self.shares), self._count() * self.batch_size))).reshape(-1, self.batch_size)
        taken = (turns[:, :, None] == np.arange(len(self.sizes))).sum(axis=1)  # (batches, data sets)
        first = np.cumsum((0, *self.sizes))
        parts = []
        for place, size in enumerate(self.sizes):
            wanted = int(taken[:, place].sum())
            order = np.concatenate([rng.permutation(size) for _ in range(-(-wanted // size))] or [np.zeros(0, np.int64)])
            parts.append(np.split(order[:wanted] + first[place], np.cumsum(taken[:, place])[:-1]))
        return [np.concatenate(batch) for batch in zip(*parts, strict=True)]

    def _count(self) -> int:
        return self.length * self.world_size


class JoinedBatches(BatchSampler):
    """Several data sets, one after the other in one index. Every batch joins one batch of each.

    Each part repeats its own epochs. A part's batches stay together, so it may be a `PKBatchSampler`.

    Args:
        parts: Batch sampler of each data set, each with its own index; their seed, rank and epoch are not used.
        sizes: Images of each data set.
        length: Batches of an epoch for each process; by default, those of the longest part over all processes.
        seed, rank, world_size: See `BatchSampler`.
    """

    def __init__(
        self,
        parts: Sequence[BatchSampler],
        sizes: Sequence[int],
        *,
        length: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size)
        if not parts or len(parts) != len(sizes) or (length is not None and length < 1):
            raise ArgumentError(
                f"{len(parts)} parts, {len(sizes)} sizes, length={length}: give one size for each part, and a length above 0."
            )
        self.parts, self.sizes = tuple(parts), tuple(sizes)
        self.length = max(1, max(part._count() for part in parts) // world_size) if length is None else length

    def _plan(self, rng: np.random.Generator) -> Sequence[I64]:
        first = np.cumsum((0, *self.sizes))
        columns = [
            [batch + begin for batch in _again_and_again(part, rng, self._count())]
            for part, begin in zip(self.parts, first[:-1], strict=True)
        ]
        return [np.concatenate(batch) for batch in zip(*columns, strict=True)]

    def _count(self) -> int:
        return self.length * self.world_size


def _again_and_again(part: BatchSampler, rng: np.random.Generator, number: int) -> list[I64]:
    batches: list[I64] = []
    while len(batches) < number:
        batches += part._plan(rng)
    return batches[:number]


def _turns(shares: NDArray[np.float64]) -> Iterator[int]:
    """Yield the index of the next turn. After any number of turns, each index is less than one turn away from its share.

    A turn goes to an index that is behind its share and would be the first to be a whole turn behind. This is "earliest
    deadline first" scheduling, which is known to keep such bounds.
    """
    had = [0] * len(shares)
    for turn in count(1):
        behind = [each for each, share in enumerate(shares) if had[each] < share * turn]
        chosen = min(behind, key=lambda each: (had[each] + 1) / shares[each])
        had[chosen] += 1
        yield chosen


def identities_of(split: Split) -> I64:
    """Return the one identity of each image of a re-ID split. (N,)."""
    return np.array([sample.ids[0] for sample in split.samples], dtype=np.int64)


def _full(order: I64, size: int) -> list[I64]:
    return list(order[: len(order) // size * size].reshape(-1, size))


def _require_enough(images: int, needed: int) -> None:
    if needed < 1 or images < needed:
        raise ArgumentError(f"{images} images do not fill a batch of {needed}. Lower the batch size, or take a larger split.")
