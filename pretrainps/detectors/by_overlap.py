"""Detectors that embed only what they detect: a given box is answered for by the detection that overlaps it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from pretrainps.detectors.validation import PERSON

_SAME_PERSON = 0.4
"""Overlap above which a detection is the person of a given box."""


def embeddings_by_overlap(found: Sequence[Mapping[str, Tensor]], boxes: Sequence[Tensor]) -> list[Tensor]:
    """Return for each given box the embedding of the detection that overlaps it best; zeros where none overlaps it.

    Args:
        found: For each image what was detected in it: `boxes` (K, 4) and `embeddings` (K, dim).
        boxes: For each image (N, 4).

    Returns:
        For each image (N, dim).
    """
    return [_of_image(each["boxes"], each["embeddings"], given) for each, given in zip(found, boxes, strict=True)]


def query_first(found: Mapping[str, Tensor], box: Tensor, embedding: Tensor) -> dict[str, Tensor]:
    """Put a person who is known to be there before what was detected, and leave out the detections of the same person.

    Args:
        found: What was detected in an image.
        box: (1, 4) where the person is.
        embedding: (1, dim).
    """
    boxes = box.to(found["boxes"].dtype)
    others = torch.where(box_iou(boxes, found["boxes"])[0] <= _SAME_PERSON)[0]
    first = {
        "boxes": boxes,
        "labels": found["labels"].new_full((1,), PERSON),
        "scores": found["scores"].new_ones(1),
        "embeddings": embedding,
    }
    return {name: torch.cat([first[name], value[others]]) for name, value in found.items()}


def _of_image(detected: Tensor, embeddings: Tensor, given: Tensor) -> Tensor:
    if not len(detected):
        return embeddings.new_zeros(len(given), embeddings.shape[1])
    overlaps, best = box_iou(given.to(detected.dtype), detected).max(dim=1)  # (N, K) -> (N,)
    return embeddings[best] * (overlaps > 0)[:, None]
