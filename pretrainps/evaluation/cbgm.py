"""Context bipartite graph matching: other people in the query's image help to find the person.

Li and Miao, "Sequential End-to-end Network for Efficient Person Search", AAAI 2021, section 4.4, as its code computes it
(`eval_func.py`, `utils/km.py` of github.com/serend1p1ty/SeqNet). In the images of the k1 most similar detections, the person
and up to k2 - 1 companions are matched to the people detected there, so that the sum of the weights is greatest. The detection
that is matched to the person gets the greatest weight of any matched pair, even of two companions, and not the sum. No other
similarity changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pretrainps.errors import MissingPackageError
from pretrainps.evaluation.protocols import ContextMatching
from pretrainps.inference.detections import F32, I64, Detections


def require_scipy() -> None:
    """Check that the library for matching is installed.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    try:
        import scipy.optimize  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("context matching needs scipy: pip install 'pretrainps[train]'") from error


def maximum_weight_matching(weights: NDArray[np.floating]) -> tuple[I64, I64]:
    """Match rows to columns so that the sum of weights is greatest; the smaller side is matched completely.

    Args:
        weights: (N, M), of either sign.

    Returns:
        (min(N, M),) rows, in order, and their columns.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    require_scipy()
    from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]  # scipy's types do not list it

    rows, columns = linear_sum_assignment(weights, maximize=True)
    return rows, columns


def rerank(
    similarities: F32,
    detections: I64,
    table: Detections,
    context: F32,
    settings: ContextMatching,
) -> F32:
    """Return the similarities after matching.

    Args:
        similarities: (N,) of one query to the detections of its gallery; -inf for those that do not belong to it. It is not
            changed.
        detections: (N,) their rows in the table. All detections of an image stand together and in order.
        table: The gallery.
        context: (C, D) embeddings of the people in the query's image, the person searched for first.
        settings: How many images and companions take part.
    """
    result = similarities.copy()
    people = context[: settings.k2]
    top = _most_similar(similarities, settings.k1)
    for image, place in {int(table.images[detections[place]]): int(place) for place in top}.items():
        row = int(table.starts[image])
        first = place - (int(detections[place]) - row)  # where the image's detections begin in this gallery
        weights = people @ table.embeddings[row : row + int(table.counts[image])].T  # (people, detections)
        rows, columns = maximum_weight_matching(weights)
        if len(rows) and rows[0] == 0:  # the person was matched
            best = weights[rows, columns].max()
            match = first + int(columns[0])
            result[match] = best if settings.update == "replace" else (best + result[match]) / 2
    return result


def _most_similar(similarities: F32, number: int) -> I64:
    """Return where the greatest ones stand, of equal ones the first; -inf is none. (N,) -> (at most number,)."""
    if len(similarities) > number:  # a sort of 30,000 for the best 30 would be most of the work
        places = np.flatnonzero(similarities >= np.partition(similarities, -number)[-number])
    else:
        places = np.arange(len(similarities))
    places = places[np.isfinite(similarities[places])]
    return places[np.argsort(-similarities[places], kind="stable")][:number]
