"""Non-maximum suppression that also works with `torch.export`."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import ops

_APART = ((-2.0, -2.0, -1.0, -1.0), (-4.0, -4.0, -3.0, -3.0))
"""Two boxes that overlap neither each other nor any box in an image."""


def nms(boxes: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Return the indices of the boxes to keep, the highest score first.

    Args:
        boxes: (N, 4), inside an image.
        scores: (N,)
        iou: Overlap (IoU) above which the box with the lower score is removed.
        most: Largest number of boxes to keep.
    """
    if not torch.compiler.is_exporting():
        return ops.nms(boxes, scores.to(boxes.dtype), iou)[:most]
    # torchvision tells the exporter that at least two boxes are kept, so a graph would fail on an image with one person.
    # Two additional boxes that are always kept make this true for any runtime; they are removed afterwards.
    kept = ops.nms(torch.cat([boxes, boxes.new_tensor(_APART)]), torch.cat([scores, scores.new_ones(len(_APART))]), iou)
    return kept[kept < boxes.shape[0]][:most]
