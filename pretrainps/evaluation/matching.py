"""Greedy matching of detections to people, as the detection benchmarks do it.

The detection with the highest score comes first; each takes the person that it overlaps most among those still free.

The benchmarks differ in which overlap is enough, and in which detections an ignored region excuses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.records import Split
from pretrainps.errors import ArgumentError
from pretrainps.images.boxes import F64
from pretrainps.inference.detections import F32, I64, Detections


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Truth:
    """Annotated boxes of all images, one image after the other."""

    boxes: F32
    """(G, 4)."""
    counts: I64
    """(I,) boxes in each image."""


def people_of(split: Split) -> Truth:
    """Return everyone annotated in a split."""
    return Truth(
        boxes=np.concatenate([sample.boxes for sample in split.samples] or [np.zeros((0, 4), np.float32)]),
        counts=np.array([len(sample.boxes) for sample in split.samples], dtype=np.int64),
    )


def ignored_of(split: Split) -> Truth:
    """Return the regions of a split that are neither people nor background."""
    return Truth(
        boxes=np.concatenate([sample.ignore for sample in split.samples] or [np.zeros((0, 4), np.float32)]),
        counts=np.array([len(sample.ignore) for sample in split.samples], dtype=np.int64),
    )


def require_same_images(split: Split, detections: Detections) -> None:
    """Check that there is a result for each image of a split.

    Raises:
        ArgumentError: another number of images.
    """
    if detections.num_images != len(split):
        raise ArgumentError(
            f"detections in {detections.num_images} images, but split {split.name!r} of {split.dataset} has {len(split)}. "
            "Detect in every image, in order; an image without people has an empty result."
        )


def descending_order(scores: F32) -> I64:
    """Return the order from the highest score to the lowest; equal ones keep theirs. (N,) -> (N,)."""
    return np.argsort(-scores, kind="stable")


def highest_scoring(detections: Detections, most: int) -> NDArray[np.bool_]:
    """Say which detections have the highest scores of their image. (N,) bool."""
    order = np.lexsort((-detections.scores, detections.images))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - detections.starts[detections.images]
    return place < most


def greedy(
    detection: I64, person: I64, overlaps: F64, scores: F32, num_people: int, *, last_wins: bool = True
) -> NDArray[np.bool_]:
    """Match each detection, in descending order of scores, to the person it overlaps most among those still free.

    Args:
        detection: (P,) detections of the pairs that overlap enough.
        person: (P,) the person of each pair.
        overlaps: (P,) how far they overlap.
        scores: (N,) of all detections.
        num_people: How many people there are.
        last_wins: Of people overlapped equally, the last is taken (COCO, EuroCity, CityPersons), or the first (CrowdHuman).

    Returns:
        (N,) whether each detection was matched.
    """
    rank = np.empty(len(scores), dtype=np.int64)
    rank[descending_order(scores)] = np.arange(len(scores))
    order = np.lexsort((-person if last_wins else person, -overlaps, rank[detection]))
    matched, taken = bytearray(len(scores)), bytearray(num_people)
    for one, other in zip(detection[order].tolist(), person[order].tolist(), strict=True):
        if not matched[one] and not taken[other]:
            matched[one] = taken[other] = True
    return np.frombuffer(bytes(matched), dtype=np.uint8).astype(bool)
