"""The query side of a search: one embedding a query, and for context matching the other people in the query's image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.data.records import SearchSet
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.protocols import SearchProtocol
from pretrainps.images.boxes import iou, whole_pixels
from pretrainps.inference.detections import F32, Detections, unit_rows

_NEAR = 1.0
"""Pixels by which a box that went through a detector may differ from the one given to it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueryEmbeddings:
    """One embedding a query."""

    vectors: F32
    """(Q, D)."""
    has_detection: NDArray[np.bool_]
    """(Q,) False where the protocol takes the embedding from a detection, and the query's image has none."""
    contexts: Sequence[F32] = ()
    """For each query (C, D), the person first; only for context matching."""


def query_embeddings_of(
    search_set: SearchSet,
    detections: Detections,
    protocol: SearchProtocol,
    query_embeddings: ArrayLike | None,
    query_detections: Detections | None,
) -> QueryEmbeddings:
    """Return the query embeddings that a protocol takes.

    Args:
        search_set: Gallery and queries.
        detections: The gallery's, before any threshold; of unit length if the protocol wants that.
        protocol: Says where the query embeddings come from.
        query_embeddings: See `evaluate_search`.
        query_detections: See `evaluate_search`.

    Raises:
        ArgumentError: what the protocol needs is missing, or does not fit the queries.
    """
    if query_detections is not None:
        if query_detections.num_images != len(search_set.queries):
            raise ArgumentError(
                f"query_detections of {query_detections.num_images} images for {len(search_set.queries)} queries. "
                "Give one image a query, in order, also if two queries share an image."
            )
        _require_same_length(query_detections.dim, detections, "query_detections")
        if protocol.normalize:
            query_detections = query_detections.normalized()
    if protocol.query == "best_detection":
        if query_embeddings is not None:
            raise ArgumentError(
                f"protocol {protocol.name!r} takes query embeddings from detections: leave out query_embeddings."
            )
        if query_detections is None:
            query_detections = _from_gallery(search_set, detections)
        return _best_detections(search_set, query_detections, protocol)
    if query_embeddings is None:
        raise ArgumentError(
            f"protocol {protocol.name!r} embeds the annotated boxes: give query_embeddings, one row a query, "
            "as model.embed(images, boxes) returns them."
        )
    vectors = np.asarray(query_embeddings, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(search_set.queries):
        raise ArgumentError(f"query_embeddings of shape {vectors.shape} for {len(search_set.queries)} queries.")
    _require_same_length(vectors.shape[1], detections, "query_embeddings")
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ArgumentError(f"the embedding of query {bad} is not finite. Was the network loaded, and did it overflow?")
    return QueryEmbeddings(
        vectors=unit_rows(vectors) if protocol.normalize else vectors,
        has_detection=np.ones(len(vectors), dtype=bool),
        contexts=() if protocol.context is None else _contexts(search_set, query_detections, protocol),
    )


def _contexts(search_set: SearchSet, query_detections: Detections | None, protocol: SearchProtocol) -> tuple[F32, ...]:
    if query_detections is None:
        raise ArgumentError(
            f"protocol {protocol.name!r} compares the people around the query: give query_detections, one image a query, "
            "as model.query_as_gallery(images, boxes) returns them."
        )
    found = []
    for index, query in enumerate(search_set.queries):
        rows = slice(query_detections.starts[index], query_detections.starts[index] + query_detections.counts[index])
        boxes = query_detections.boxes[rows]
        if len(boxes) == 0 or np.abs(boxes[0] - query.box).max() > _NEAR:
            raise ArgumentError(
                f"query_detections of query {index} ({query.sample.name}) do not begin with the person searched for: "
                f"{boxes[0].tolist() if len(boxes) else 'nothing'} instead of {query.box.tolist()}. "
                "model.query_as_gallery puts them first; plain detections do not."
            )
        found.append(query_detections.embeddings[rows])
    return tuple(found)


def _best_detections(search_set: SearchSet, table: Detections, protocol: SearchProtocol) -> QueryEmbeddings:
    """Take the detection that overlaps the annotated box most, however little, and however low its score.

    Overlap is of boxes that hold their last pixel, as AlignPS and PSTR compute it. The context is PSTR's: this detection, then
    the others that reach the threshold, in descending order of scores.
    """
    vectors = np.zeros((len(search_set.queries), table.dim), dtype=np.float32)
    contexts = []
    for index, query in enumerate(search_set.queries):
        rows = np.arange(table.starts[index], table.starts[index] + table.counts[index])
        if len(rows) == 0:
            contexts.append(vectors[:0])
            continue
        box = np.broadcast_to(whole_pixels(query.box), (len(rows), 4))
        best = rows[np.argmax(iou(table.boxes[rows], box, pixels=1.0))]
        vectors[index] = table.embeddings[best]
        others = rows[(rows != best) & (table.scores[rows] >= protocol.min_score)]
        others = others[np.argsort(-table.scores[others], kind="stable")]
        contexts.append(table.embeddings[np.r_[best, others]])
    return QueryEmbeddings(vectors=vectors, has_detection=table.counts > 0, contexts=contexts)


def _from_gallery(search_set: SearchSet, detections: Detections) -> Detections:
    """Take the detections in the queries' images from the gallery's."""
    index = {sample.name: image for image, sample in enumerate(search_set.gallery.samples)}
    images: list[int] = []
    for place, query in enumerate(search_set.queries):
        if query.sample.name not in index:
            raise ArgumentError(
                f"the image of query {place} ({query.sample.name}) is not in the gallery: "
                "give query_detections, what was detected in each query's image."
            )
        images.append(index[query.sample.name])
    return detections.of_images(np.array(images, dtype=np.int64))


def _require_same_length(dim: int, detections: Detections, what: str) -> None:
    if len(detections) and dim != detections.dim:
        raise ArgumentError(f"{what} have {dim} numbers, the gallery's embeddings {detections.dim}. Take both from one model.")
