"""Recall and average precision of person detection, as person search counts them.

The numbers of `eval_detection` of github.com/serend1p1ty/SeqNet: a detection is right if it and a person are each other's best
overlap, and it is at least 0.5. Average precision is scikit-learn's, times the recall. Detections under the threshold do not
take part, so this is not what COCO or Pascal call average precision; `pretrainps.evaluation.coco` computes that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrainps.data.records import UNLABELLED, Split
from pretrainps.evaluation.average_precision import average_precision
from pretrainps.evaluation.matching import ignored_of, people_of, require_same_images
from pretrainps.evaluation.overlaps import best_of, pairs
from pretrainps.evaluation.protocols import score_words
from pretrainps.images.boxes import iou, whole_pixels
from pretrainps.inference.detections import Detections


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionResult:
    """What `evaluate_detection` found; shares in 0..1."""

    protocol: str
    """In words, what was computed."""
    recall: float
    """Share of people found; 0 without people."""
    ap: float
    """Average precision times recall; 0 without detections or without people."""
    num_people: int
    """People annotated, those that count."""
    num_detections: int
    """Detections that took part."""
    found: int
    """People found."""


def evaluate_detection(
    split: Split,
    detections: Detections,
    *,
    min_score: float = 0.5,
    labelled_only: bool = False,
    iou_threshold: float = 0.5,
    ignore_iou: float | None = None,
) -> DetectionResult:
    """Count the people that were detected.

    Annotated boxes lose their fractions first, as in the originals.

    Args:
        split: The images and the people in them.
        detections: What was found in each of them, in order.
        min_score: Detections that score less do not take part.
        labelled_only: Only people with an identity count, in images that have any; detections of the others are then wrong.
        iou_threshold: Overlap that is enough; equal is.
        ignore_iou: Leave out wrong detections that overlap a region to be ignored by more than this IoU. 0.1 is PoseTrack21's,
            whose regions are polygons; here they are their boxes. None ignores such regions.

    Raises:
        ArgumentError: not one result an image.
    """
    require_same_images(split, detections)
    detections = detections.rows(detections.scores >= min_score)
    people = people_of(split)
    boxes, counts = people.boxes, people.counts
    images = np.repeat(np.arange(len(split)), counts)
    if labelled_only:
        ids = np.concatenate([sample.ids for sample in split.samples] or [np.zeros(0, np.int64)])
        boxes, images = boxes[ids != UNLABELLED], images[ids != UNLABELLED]
        counts = np.bincount(images, minlength=len(split)).astype(np.int64)
        detections = detections.rows(counts[detections.images] > 0)
    one, other = pairs(detections.counts, counts)
    # in float32, as the originals hold them: overlaps that differ by less are equal, and the first person or detection wins
    overlaps = iou(detections.boxes[one], whole_pixels(boxes)[other]).astype(np.float32)
    best_person = np.zeros(len(one), dtype=bool)
    best_person[best_of(one, overlaps)] = True
    by_person = np.lexsort((one, other))
    best_detection = np.zeros(len(one), dtype=bool)
    best_detection[by_person[best_of(other[by_person], overlaps[by_person])]] = True
    hit = best_person & best_detection & (overlaps >= iou_threshold)
    right = np.zeros(len(detections), dtype=bool)
    right[one[hit]] = True
    counted = np.ones(len(detections), dtype=bool)
    if ignore_iou is not None:
        regions = ignored_of(split)
        one, other = pairs(detections.counts, regions.counts)
        near = iou(detections.boxes[one], regions.boxes[other]) > ignore_iou
        counted[one[near]] = False
        counted |= right
    found = int(np.count_nonzero(right))
    recall = found / len(boxes) if len(boxes) else 0.0
    return DetectionResult(
        protocol=_words(score_words(min_score, detections.kept_above), labelled_only, iou_threshold, ignore_iou),
        recall=recall,
        ap=average_precision(right[counted], detections.scores[counted]) * recall,
        num_people=len(boxes),
        num_detections=int(np.count_nonzero(counted)),
        found=found,
    )


def _words(taken: str, labelled_only: bool, iou_threshold: float, ignore_iou: float | None) -> str:
    who = "people with an identity" if labelled_only else "everyone annotated"
    ignored = "" if ignore_iou is None else f"; wrong detections with an IoU above {ignore_iou:g} with ignored regions left out"
    return (
        f"{who}; {taken}; mutually best pairs with an IoU of {iou_threshold:g} and above"
        f"{ignored}; average precision as scikit-learn's, times recall"
    )
