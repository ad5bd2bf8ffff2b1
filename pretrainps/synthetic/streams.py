"""Random numbers that depend only on a key: the same in every process, on every machine, in any order of calls."""

from __future__ import annotations

import hashlib
import math
import operator
import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

Weighted = tuple[tuple[T, float], ...]
"""Items with their relative weights."""


class Stream:
    """The random numbers for one purpose, fixed by a key.

    All numbers come from `random.Random.random`, the only sequence that Python promises never to change for a seed.

    Args:
        key: The purpose of the numbers, as words and whole numbers.

    Example:
        >>> Stream("coat", 7).below(1000) == Stream("coat", 7).below(1000)
        True
    """

    __slots__ = ("_next",)

    def __init__(self, *key: str | int) -> None:
        plain = [part if isinstance(part, str) else operator.index(part) for part in key]  # numpy's repr differs
        digest = hashlib.blake2b(repr(plain).encode(), digest_size=8).digest()
        self._next = random.Random(int.from_bytes(digest, "big")).random

    def uniform(self, low: float, high: float) -> float:
        """Return a number from low to high, uniformly distributed."""
        return low + (high - low) * self._next()

    def normal(self, mean: float, deviation: float) -> float:
        """Return a number from the normal distribution, by the Box-Muller transform."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self._next()))
        return mean + deviation * radius * math.cos(math.tau * self._next())

    def chance(self, probability: float) -> bool:
        """Return `True` with this probability."""
        return self._next() < probability

    def below(self, count: int) -> int:
        """Return a whole number from 0 to count - 1."""
        return int(self._next() * count)

    def side(self) -> int:
        """Return 1 or -1."""
        return 1 if self._next() < 0.5 else -1

    def choice(self, things: Sequence[T]) -> T:
        """Return one of several items, with equal probability."""
        return things[int(self._next() * len(things))]

    def weighted(self, things: Weighted[T]) -> T:
        """Return one of several items, with probabilities by their weights."""
        left = self._next() * sum(weight for _, weight in things)
        for thing, weight in things:
            left -= weight
            if left <= 0:
                return thing
        return things[-1][0]

    def shuffled(self, things: Iterable[T]) -> list[T]:
        """Return the items in random order."""
        drawn = [(self._next(), place, thing) for place, thing in enumerate(things)]
        return [thing for _, _, thing in sorted(drawn, key=lambda row: row[:2])]

    def array_source(self) -> np.random.RandomState:
        """Return a generator of random arrays, of a type whose sequences numpy never changes."""
        return np.random.RandomState(self.below(2**32))
