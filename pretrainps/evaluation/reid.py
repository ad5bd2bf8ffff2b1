"""Re-identification on crops: mean average precision, CMC and mINP, by the protocol of Market-1501.

For each query, gallery images of the same person from the same camera do not count at all; people without a label are
wrong answers to every query. Queries without a match in the gallery are left out of all means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.data.records import UNLABELLED
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.average_precision import precisions, standing, trapezoid
from pretrainps.images.boxes import F64
from pretrainps.inference.detections import F32, I64, unit_rows

Formula = Literal["hits", "trapezoid"]

_CHUNK = 32 * 2**20
"""Similarities that are held at once."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReidResult:
    """What `evaluate_reid` found. All shares are in 0..1; 0 where no query could be answered."""

    protocol: str
    """In words, what was computed."""
    mAP: float
    cmc1: float
    """Share of queries whose first answer is right."""
    cmc5: float
    """Share of queries with a right answer among the first five."""
    cmc10: float
    mINP: float
    """Mean inverse negative penalty: right ones over the place of the last right one."""
    num_queries: int
    """All queries, also those left out."""
    skipped: int
    """Those without any match in the gallery."""
    evaluated: I64
    """(E,) which queries the following speak of."""
    per_query_ap: F64
    """(E,)."""
    first_places: I64
    """(E,) place of the first right answer, from 1."""


def evaluate_reid(
    query_embeddings: ArrayLike,
    query_ids: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_embeddings: ArrayLike,
    gallery_ids: ArrayLike,
    gallery_cameras: ArrayLike | None,
    *,
    average_precision: Formula = "hits",
) -> ReidResult:
    """Rank the gallery by cosine similarity for each query.

    Of equal similarities, the first in the gallery stands first.

    Args:
        query_embeddings: (Q, D), of any length.
        query_ids: (Q,) identities, or `UNLABELLED`.
        query_cameras: (Q,); None where cameras are not known, and then no image is left out.
        gallery_embeddings: (G, D).
        gallery_ids: (G,).
        gallery_cameras: (G,), or None.
        average_precision: "hits", the mean of the precisions at the hits, or "trapezoid" as in the MATLAB code of
            Market-1501. They lie up to a point apart.

    Raises:
        ArgumentError: arrays that do not fit together, or embeddings that are not finite.
    """
    if average_precision not in ("hits", "trapezoid"):
        raise ArgumentError(f"average_precision is 'hits' or 'trapezoid', not {average_precision!r}.")
    if (query_cameras is None) != (gallery_cameras is None):
        raise ArgumentError("cameras of the queries or of the gallery alone are of no use. Give both, or neither.")
    queries = _Crops("query", query_embeddings, query_ids, query_cameras)
    gallery = _Crops("gallery", gallery_embeddings, gallery_ids, gallery_cameras)
    if queries.embeddings.shape[1] != gallery.embeddings.shape[1]:
        raise ArgumentError(
            f"query embeddings have {queries.embeddings.shape[1]} numbers, gallery embeddings "
            f"{gallery.embeddings.shape[1]}. Take both from one model."
        )
    evaluated, scores, first, penalties = [], [], [], []
    for query, similarities in _similarities(queries.embeddings, gallery.embeddings):
        same = (gallery.ids == queries.ids[query]) & (queries.ids[query] != UNLABELLED)
        seen_here = same & (gallery.cameras == queries.cameras[query]) if query_cameras is not None else np.zeros_like(same)
        similarities[seen_here] = -np.inf
        hits = np.flatnonzero(same & ~seen_here)
        if len(hits) == 0:
            continue
        reach, places = standing(similarities, hits)
        evaluated.append(query)
        first.append(places.min())
        penalties.append(len(hits) / places.max())
        scores.append(precisions(similarities[hits], reach).mean() if average_precision == "hits" else trapezoid(places))
    places = np.array(first, dtype=np.int64)
    num = len(queries.ids)
    return ReidResult(
        protocol=_words(average_precision, num, num - len(evaluated), len(gallery.ids), query_cameras is not None),
        mAP=_mean(scores),
        cmc1=_mean(places <= 1),
        cmc5=_mean(places <= 5),
        cmc10=_mean(places <= 10),
        mINP=_mean(penalties),
        num_queries=num,
        skipped=num - len(evaluated),
        evaluated=np.array(evaluated, dtype=np.int64),
        per_query_ap=np.array(scores, dtype=np.float64),
        first_places=places,
    )


class _Crops:
    """One side of the comparison, checked."""

    def __init__(self, side: str, embeddings: ArrayLike, ids: ArrayLike, cameras: ArrayLike | None) -> None:
        rows = np.asarray(embeddings, dtype=np.float32)
        self.ids = np.asarray(ids, dtype=np.int64)
        self.cameras = np.zeros_like(self.ids) if cameras is None else np.asarray(cameras, dtype=np.int64)
        if rows.ndim != 2 or self.ids.shape != (len(rows),) or self.cameras.shape != (len(rows),):
            raise ArgumentError(
                f"{side}: embeddings {rows.shape}, ids {self.ids.shape} and cameras {self.cameras.shape} must be "
                "(N, D), (N,) and (N,)."
            )
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise ArgumentError(f"{side}: embedding {bad} is not finite. Was the network loaded, and did it overflow?")
        self.embeddings: F32 = unit_rows(rows)


def _similarities(queries: F32, gallery: F32) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give each query's similarities to the gallery, in turn; they may be written to."""
    chunk = max(1, _CHUNK // max(1, len(gallery)))
    for start in range(0, len(queries), chunk):
        yield from enumerate(queries[start : start + chunk] @ gallery.T, start)


def _mean(values: ArrayLike) -> float:
    numbers = np.asarray(values, dtype=np.float64)
    return float(numbers.mean()) if len(numbers) else 0.0


def _words(formula: Formula, queries: int, skipped: int, gallery: int, cameras: bool) -> str:
    left_out = "gallery images of the same person from the same camera left out" if cameras else "cameras not known"
    precision = "precision at the hits" if formula == "hits" else "trapezoids, as Market-1501's MATLAB code"
    return (
        f"{queries} queries in a gallery of {gallery} images, {left_out}, people without a label as wrong answers, "
        f"{skipped} queries without a match skipped; cosine similarity; average precision from {precision}"
    )
