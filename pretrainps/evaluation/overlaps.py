"""Pairs of boxes that stand in the same image, and the best pair of each box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretrainps.inference.detections import I64, spread


def pairs(first: I64, second: I64) -> tuple[I64, I64]:
    """Return the pairs of boxes that stand in the same image.

    Args:
        first: (I,) boxes of the first kind in each image, which lie one image after the other.
        second: (I,) boxes of the second kind.

    Returns:
        (P,) index of the first box and (P,) index of the second, ordered by the first.
    """
    image = np.repeat(np.arange(len(first)), first)
    starts = np.cumsum(second) - second
    return spread(starts[image], second[image])


def best_of(groups: I64, values: NDArray[np.floating]) -> I64:
    """Return where each group's greatest value stands; of equal ones the first.

    Args:
        groups: (P,) group of each value, ascending.
        values: (P,).

    Returns:
        (G,) index into the values, for the groups that occur, in order.
    """
    first = np.ones(len(groups), dtype=bool)
    np.not_equal(groups[1:], groups[:-1], out=first[1:])
    return np.lexsort((-values, groups))[first]
