"""Average precision: how high the right ones stand in a ranking. Two formulas are in use, and they differ.

`average_precision` is the mean, over the right ones, of the precision among everything that scores at least as high
(scikit-learn's `average_precision_score`; person search, fast-reid, torchreid): what scores the same enters together.
`trapezoid` takes the mean of the precisions just before and at each hit of a strict ranking (the MATLAB code of
Market-1501). Neither is interpolated.

In a strict ranking, of equal scores the one listed first stands first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.errors import ArgumentError
from pretrainps.images.boxes import F64
from pretrainps.inference.detections import I64


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision, 0 if nothing is right.

    >>> round(average_precision([1, 0, 1], [0.9, 0.8, 0.7]), 4)
    0.8333

    Args:
        truth: (N,) whether each one is right.
        scores: (N,) by which they are ranked, the highest first.

    Raises:
        ArgumentError: different numbers of both.
    """
    right, values = np.asarray(truth, dtype=bool), np.asarray(scores)
    if right.shape != values.shape or right.ndim != 1:
        raise ArgumentError(f"truth of shape {right.shape} and scores of shape {values.shape} must be (N,) both.")
    hits = np.flatnonzero(right)
    reach, _ = standing(values, hits)
    return float(precisions(values[hits], reach).mean()) if len(hits) else 0.0


def standing(scores: NDArray[np.generic], hits: I64) -> tuple[I64, I64]:
    """Say where some scores stand among all.

    Args:
        scores: (N,).
        hits: (P,) which of them.

    Returns:
        reach: (P,) how many score at least as high, itself among them.
        places: (P,) its place in a strict ranking, from 1.
    """
    values = scores[hits]
    if len(hits) == 0:
        return hits, hits
    # only what reaches the lowest value matters: sorting those alone is most of the saving at 30,000 scores
    high = scores[scores >= values.min()]
    high.sort()
    reach = len(high) - high.searchsorted(values)
    places = len(high) + 1 - high.searchsorted(values, side="right")
    if (reach > places).any():  # equal scores: rare
        for index in np.flatnonzero(reach > places):
            places[index] += np.count_nonzero(scores[: hits[index]] == values[index])
    return reach, places


def precisions(values: NDArray[np.generic], reach: I64) -> F64:
    """Return the precision among all that score at least as high as each hit.

    Args:
        values: (P,) the scores of all hits.
        reach: (P,) how many things score at least as high, from `standing`.
    """
    return (len(values) - np.sort(values).searchsorted(values)) / reach


def trapezoid(places: I64) -> float:
    """Return the area under precision over recall, with straight lines between the places of a ranking.

    Before the first place the precision counts as 1.

    Args:
        places: (P,) of all hits, from 1; at least one.
    """
    found = np.sort(places)
    hits = np.arange(1, len(found) + 1)
    before = np.where(found > 1, (hits - 1) / np.maximum(found - 1, 1), 1.0)
    return float(((before + hits / found) / 2).mean())
