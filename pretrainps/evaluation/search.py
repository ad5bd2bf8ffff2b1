"""Person search: which people are found, in which scenes, and how far up in the ranking.

The numbers of `eval_search_cuhk` and `eval_search_prw` of github.com/serend1p1ty/SeqNet (which agree with NAE's), without
their loops over images. The following look like faults, but they are the protocol:

- in an image where the person is, exactly one detection can be right: the most similar of those that overlap the person enough;
- enough is an IoU of min(0.5, w h / ((w + 10) (h + 10))), so that small people need less;
- annotated boxes lose their fractions before they are compared;
- an occurrence counts among those to be found even if nothing was detected in its image, and once more if the list names its
  image twice; the average precision is multiplied by the share found;
- an image that a list names stays, also if it is the query's own;
- of a person who is annotated twice in a frame, the first box counts.

Of equal similarities, the first in the gallery stands first; the originals leave it to their sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.data.records import SearchSet
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.average_precision import precisions, standing
from pretrainps.evaluation.cbgm import rerank
from pretrainps.evaluation.galleries import galleries_of, require_suitable
from pretrainps.evaluation.occurrences import Candidates
from pretrainps.evaluation.overlaps import best_of
from pretrainps.evaluation.protocols import SearchProtocol
from pretrainps.evaluation.query_side import QueryEmbeddings, query_embeddings_of
from pretrainps.images.boxes import F64
from pretrainps.inference.detections import F32, I64, Detections

TOP = (1, 5, 10)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ranking:
    """The first answers to each evaluated query, for pictures: (E, K) each, -1 where there are fewer."""

    detections: I64
    """Row in the table of detections that was given."""
    similarities: F32
    correct: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchResult:
    """What `evaluate_search` found. All shares are in 0..1; 0 where no query could be evaluated."""

    protocol: str
    """In words, what was computed."""
    mAP: float
    top1: float
    """Share of queries with a right answer in first place."""
    top5: float
    top10: float
    num_queries: int
    """All queries, also those left out."""
    without_match: I64
    """Queries left out of all means because their gallery does not hold the person."""
    without_detection: I64
    """Queries left out because their own image has no detection, where the protocol takes the query embedding from one."""
    evaluated: I64
    """(E,) the queries that the following arrays are about."""
    per_query_ap: F64
    """(E,)."""
    per_query_hits: I64
    """(E, 3) 1 if a right answer is among the first 1, 5 and 10, else 0."""
    found: I64
    """(E,) occurrences that have a detection."""
    occurrences: I64
    """(E,) occurrences in the query's gallery."""
    ranking: Ranking | None = None

    @property
    def skipped(self) -> int:
        """How many queries were left out."""
        return len(self.without_match) + len(self.without_detection)


def evaluate_search(
    search_set: SearchSet,
    detections: Detections,
    protocol: SearchProtocol,
    *,
    query_embeddings: ArrayLike | None = None,
    query_detections: Detections | None = None,
    ranking: int = 0,
) -> SearchResult:
    """Search the gallery for every query.

    Args:
        search_set: The gallery and the people searched for.
        detections: What was found in each gallery image, in the gallery's order, before any threshold.
        protocol: How to judge; one of `PROTOCOLS`, or your own.
        query_embeddings: (Q, D) of the annotated boxes, as `model.embed` returns them; for protocols that take these.
        query_detections: One image a query. For context matching: from `model.query_as_gallery`, the person first. For
            protocols that take the query embedding from a detection: plain detections of the queries' images; None takes them
            from the gallery, by the images' names.
        ranking: How many answers a query to return, for pictures.

    Raises:
        ArgumentError: anything that does not fit the set or the protocol.
        MissingPackageError: context matching without scipy.
    """
    if detections.num_images != len(search_set.gallery):
        raise ArgumentError(
            f"detections in {detections.num_images} images, but the gallery has {len(search_set.gallery)}. "
            "Detect in every gallery image, in order; an image without people has an empty result."
        )
    if protocol.normalize:
        detections = detections.normalized()
    embeddings = query_embeddings_of(search_set, detections, protocol, query_embeddings, query_detections)
    require_suitable(search_set, protocol)
    sure = detections.scores >= protocol.min_score
    table = detections.rows(sure)
    if len(table) == 0:  # then the table does not know the length of an embedding
        table = replace(table, embeddings=np.zeros((0, embeddings.vectors.shape[1]), dtype=np.float32))
    galleries = galleries_of(search_set, table, protocol)
    tally = _Tally(np.flatnonzero(sure), ranking)
    for query, similarities, candidates in galleries.ask(embeddings.vectors):
        if candidates.occurrences == 0:
            tally.without_match.append(query)
        elif not embeddings.has_detection[query]:
            tally.without_detection.append(query)
        else:
            tally.add(query, _with_context(similarities, candidates, table, embeddings, query, protocol), candidates)
    words = protocol.words(detections.kept_above) + (
        "; the gallery's boxes are the annotated ones" if detections.annotated else ""
    )
    return tally.result(words, len(search_set.queries))


def _with_context(
    similarities: F32,
    candidates: Candidates,
    table: Detections,
    embeddings: QueryEmbeddings,
    query: int,
    protocol: SearchProtocol,
) -> F32:
    if protocol.context is None:
        return similarities
    return rerank(similarities, candidates.detections, table, embeddings.contexts[query], protocol.context)


class _Tally:
    """Collects what each query found."""

    def __init__(self, original_rows: I64, ranking: int) -> None:
        self.without_match: list[int] = []
        self.without_detection: list[int] = []
        self._original_rows = original_rows
        self._ranking = ranking
        self._queries: list[int] = []
        self._scores: list[float] = []
        self._first: list[int] = []
        self._found: list[int] = []
        self._occurrences: list[int] = []
        self._answers: list[tuple[I64, F32, NDArray[np.bool_]]] = []

    def add(self, query: int, similarities: F32, candidates: Candidates) -> None:
        values = similarities[candidates.places]
        right = candidates.places[best_of(candidates.groups, values)]
        right = right[np.isfinite(similarities[right])]  # what does not belong to the gallery is not found
        reach, places = standing(similarities, right)
        self._queries.append(query)
        self._scores.append(float(precisions(similarities[right], reach).sum()) / candidates.occurrences)
        self._first.append(int(places.min()) if len(right) else np.iinfo(np.int64).max)
        self._found.append(len(right))
        self._occurrences.append(candidates.occurrences)
        if self._ranking:
            self._answers.append(self._best(similarities, right, candidates))

    def _best(self, similarities: F32, right: I64, candidates: Candidates) -> tuple[I64, F32, NDArray[np.bool_]]:
        order = np.argsort(-similarities, kind="stable")[: self._ranking]
        order = order[np.isfinite(similarities[order])]
        missing = self._ranking - len(order)
        return (
            np.r_[self._original_rows[candidates.detections[order]], np.full(missing, -1)],
            np.r_[similarities[order], np.full(missing, -1, dtype=np.float32)],
            np.r_[np.isin(order, right), np.zeros(missing, dtype=bool)],
        )

    def result(self, words: str, num_queries: int) -> SearchResult:
        hits = np.array(self._first, dtype=np.int64)[:, None] <= np.array(TOP)
        top = hits.mean(axis=0) if len(hits) else np.zeros(len(TOP))
        return SearchResult(
            protocol=words,
            mAP=float(np.mean(self._scores)) if self._scores else 0.0,
            top1=float(top[0]),
            top5=float(top[1]),
            top10=float(top[2]),
            num_queries=num_queries,
            without_match=np.array(self.without_match, dtype=np.int64),
            without_detection=np.array(self.without_detection, dtype=np.int64),
            evaluated=np.array(self._queries, dtype=np.int64),
            per_query_ap=np.array(self._scores, dtype=np.float64),
            per_query_hits=hits.astype(np.int64),
            found=np.array(self._found, dtype=np.int64),
            occurrences=np.array(self._occurrences, dtype=np.int64),
            ranking=self._stacked() if self._ranking else None,
        )

    def _stacked(self) -> Ranking:
        columns: Sequence[Sequence[NDArray[np.generic]]] = list(zip(*self._answers, strict=True)) or [[], [], []]
        detections, similarities, correct = (np.array(column).reshape(len(self._queries), self._ranking) for column in columns)
        return Ranking(
            detections=detections.astype(np.int64),
            similarities=similarities.astype(np.float32),
            correct=correct.astype(bool),
        )
