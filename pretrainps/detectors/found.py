"""What was found in one image of a batch, and filtering it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import remove_small_boxes

from pretrainps.ops.nms import nms

_SMALLEST_DETECTION = 1e-2
"""In pixels of the resized image."""


@dataclass(frozen=True, slots=True)
class Detections:
    """People found in one image."""

    boxes: Tensor
    """(K, 4) in pixels of the batch."""
    scores: Tensor
    """(K,)"""
    embeddings: Tensor | None = None
    """(K, dim)"""


def filter_detections(
    found: Detections, *, threshold: float, nms_iou: float, most: int, first: Detections | None = None
) -> Detections:
    """Keep what scores above the threshold and is not covered by something better, the best first.

    Args:
        found: The candidates of one image.
        threshold: A score must be higher.
        nms_iou: Overlap above which the weaker of two goes.
        most: How many may stay.
        first: People who are known to be there: they come first, and what overlaps them is left out.
    """
    keep = torch.where(found.scores > threshold)[0]
    keep = keep[remove_small_boxes(found.boxes[keep], _SMALLEST_DETECTION)]
    kept = _taken(found, keep)
    if first is not None:
        kept = _joined(first, kept)
    return _taken(kept, nms(kept.boxes, kept.scores, nms_iou, most))


def _taken(found: Detections, index: Tensor) -> Detections:
    embeddings = None if found.embeddings is None else found.embeddings[index]
    return Detections(found.boxes[index], found.scores[index], embeddings)


def _joined(first: Detections, rest: Detections) -> Detections:
    both = [each.embeddings for each in (first, rest) if each.embeddings is not None]
    return Detections(
        torch.cat([first.boxes, rest.boxes]), torch.cat([first.scores, rest.scores]), torch.cat(both) if both else None
    )
