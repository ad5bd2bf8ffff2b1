"""What reads a class and a box off a pooled region.

Of the two classes, background and person, only the person's box is ever used; the originals predict both, and their files
hold both, so the weights keep that shape.
"""

from __future__ import annotations

from torch import Tensor, nn

from pretrainps.backbones.precision import matching
from pretrainps.heads.norm_aware import initialize_projection
from pretrainps.ops.precision import to_float32

_CLASSES = 2


class SoftmaxBoxHead(nn.Module):
    """Class logits and box, as torchvision's `FastRCNNPredictor` (first stage of SeqNet, OIM)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, _CLASSES)
        self.bbox_pred = nn.Linear(channels, 4 * _CLASSES)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> logits of background and person (N, 2), the person's box deltas (N, 4)."""
        pooled = matching(pooled, self)
        return to_float32(self.cls_score(pooled)), to_float32(self.bbox_pred(pooled)[:, 4:])


class BatchNormBoxHead(nn.Module):
    """Box alone, through a batch norm (NAE; second stage of SeqNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        linear, norm = nn.Linear(channels, 4 * _CLASSES), nn.BatchNorm1d(4 * _CLASSES)
        initialize_projection(linear, norm)
        self.bbox_pred = nn.Sequential(linear, norm)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, C) -> the person's box deltas (N, 4)."""
        return to_float32(self.bbox_pred(matching(pooled, self))[:, 4:])
