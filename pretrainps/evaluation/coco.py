"""COCO's average precision of one class, people: the mean over ten overlaps from 0.5 to 0.95.

Precision is read at 101 recalls, after each was raised to the best at any higher recall. Regions to be ignored are COCO's
crowds: what lies in them is neither right nor wrong, however much of it there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrainps.data.records import Split
from pretrainps.evaluation.matching import descending_order, greedy, highest_scoring, ignored_of, people_of, require_same_images
from pretrainps.evaluation.overlaps import pairs
from pretrainps.evaluation.protocols import kept_by_detector
from pretrainps.images.boxes import F64, coverage, iou
from pretrainps.inference.detections import Detections

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_EPSILON = np.spacing(1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CocoResult:
    """What `evaluate_coco` found; shares in 0..1, -1 without people, as COCO's own tool does."""

    protocol: str
    """In words, what was computed."""
    ap: float
    """Mean over the ten overlaps."""
    ap50: float
    """At overlap 0.5."""
    ap75: float
    """At overlap 0.75."""
    ar: float
    """Recall, mean over the ten overlaps."""
    num_people: int
    """People annotated."""
    per_threshold_ap: F64
    """(10,) at overlaps 0.5, 0.55, ..., 0.95."""


def evaluate_coco(split: Split, detections: Detections, *, max_detections: int = 100) -> CocoResult:
    """Compute COCO's box numbers for people of any size.

    COCO's numbers for small, medium and large people are not computed: they go by the area of masks.

    Args:
        split: The images and the people in them; `ignore` holds the crowds.
        detections: What was found in each image, in order, before any threshold.
        max_detections: In each image so many take part, those with the highest scores.

    Raises:
        ArgumentError: not one result an image.
    """
    require_same_images(split, detections)
    detections = detections.rows(highest_scoring(detections, max_detections))
    people, crowds = people_of(split), ignored_of(split)
    one, other = pairs(detections.counts, people.counts)
    overlaps = iou(detections.boxes[one], people.boxes[other])
    inner, outer = pairs(detections.counts, crowds.counts)
    covered = coverage(detections.boxes[inner], crowds.boxes[outer])
    most_covered = np.zeros(len(detections))
    np.maximum.at(most_covered, inner, covered)
    order = descending_order(detections.scores)
    precision, recall = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for index, threshold in enumerate(np.minimum(THRESHOLDS, 1 - 1e-10)):
        enough = overlaps >= threshold
        right = greedy(one[enough], other[enough], overlaps[enough], detections.scores, len(people.boxes))
        counted = right | (most_covered < threshold)
        ranked = right[order][counted[order]]
        precision[index], recall[index] = _precision_and_recall(ranked, len(people.boxes))
    no_people = len(people.boxes) == 0
    return CocoResult(
        protocol=f"COCO boxes, people of any size, IoU 0.50:0.95, at most {max_detections} detections an image"
        + kept_by_detector(detections.kept_above),
        ap=-1.0 if no_people else float(precision.mean()),
        ap50=-1.0 if no_people else float(precision[0]),
        ap75=-1.0 if no_people else float(precision[5]),
        ar=-1.0 if no_people else float(recall.mean()),
        num_people=len(people.boxes),
        per_threshold_ap=precision,
    )


def _precision_and_recall(ranked: np.ndarray[tuple[int], np.dtype[np.bool_]], num_people: int) -> tuple[float, float]:
    """Return COCO's interpolated precision and the recall of a ranking. (N,) bool -> both."""
    if len(ranked) == 0 or num_people == 0:
        return 0.0, 0.0
    hits = np.cumsum(ranked)
    recall = hits / num_people
    precision = hits / (np.arange(1, len(ranked) + 1) + _EPSILON)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    read = np.where(place < len(recall), best_later[np.minimum(place, len(recall) - 1)], 0.0)
    return float(read.mean()), float(recall[-1])
