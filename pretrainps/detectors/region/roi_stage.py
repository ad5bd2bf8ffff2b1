"""What happens to proposals around the heads: they are pooled from the map, sampled for the losses, and moved to people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.ops import box_iou, clip_boxes_to_image, roi_align

from pretrainps.backbones import Backbone
from pretrainps.detectors.region.config import RegionConfig
from pretrainps.detectors.transform import Size
from pretrainps.ops.precision import to_float32

coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
"""Box deltas of every region head."""


class RegionMaps(NamedTuple):
    """A last stage's input and output for R regions."""

    c4: Tensor | None
    """(R, C4, size, size); `None` unless it was asked for."""
    c5: Tensor
    """(R, C5, size / 2, size / 2)."""

    def at(self, index: Tensor) -> RegionMaps:
        """Return the maps of some regions, in another order."""
        return RegionMaps(None if self.c4 is None else self.c4[index], self.c5[index])

    def pooled(self, how: str) -> dict[str, Tensor]:
        """Return a vector a region for each map, {name: (R, C)}, by "max" or "average" pooling."""
        maps = {"c4": self.c4, "c5": self.c5}
        return {name: pool(each, how) for name, each in maps.items() if each is not None}


class RoIStage(nn.Module):
    """RoIAlign on the stride-16 map, then a last stage of a backbone.

    Args:
        stage: The half of a backbone that can `last_stage`.
        size: Height and width of a region.
        sampling: RoIAlign's samples along each side of a bin.
    """

    def __init__(self, stage: Backbone, *, size: int, sampling: int) -> None:
        super().__init__()
        self.stage = stage
        self.size = size
        self.sampling = sampling
        self.scale = 1.0 / stage.strides["c4"]

    def forward(self, features: Tensor, boxes: Sequence[Tensor], *, with_c4: bool) -> RegionMaps:
        """Return the maps of all images' regions, one image after the other.

        Args:
            features: (N, C4, H / 16, W / 16).
            boxes: N tensors (R_i, 4), in pixels of the batch.
            with_c4: Whether the last stage's input is wanted too.
        """
        wide = to_float32(features)
        regions = roi_align(wide, [each.to(wide.dtype) for each in boxes], self.size, self.scale, self.sampling)
        regions = regions.to(features.dtype)
        return RegionMaps(regions if with_c4 else None, self._last_stage(regions))

    def whole(self, features: Tensor, size: Size) -> RegionMaps:
        """Return the maps of one region an image: all of it. Several times faster than `forward`, and the same to rounding.

        RoIAlign is linear, along rows and columns one after the other, and for the same region of all images its weights are
        the same: two matrix products. What the weights are, RoIAlign itself tells.

        Args:
            features: (N, C4, H / 16, W / 16).
            size: Height and width of all images.
        """
        wide = to_float32(features)
        rows, columns = (self._weights(*each, wide) for each in zip(features.shape[-2:], size, strict=True))
        with torch.autocast(features.device.type, enabled=False):
            regions = (rows @ wide @ columns.T).to(features.dtype)
        return RegionMaps(regions, self._last_stage(regions))

    def _weights(self, places: int, length: int, like: Tensor) -> Tensor:
        """Return how RoIAlign weighs the places along a side of so many pixels, (size, places): its answer to unit vectors."""
        units = torch.eye(places, dtype=like.dtype, device=like.device)[None, :, :, None].expand(-1, -1, -1, 2)
        box = units.new_tensor([[0.0, 0.0, 1.0 / self.scale, length]])
        return roi_align(units, [box], self.size, self.scale, self.sampling)[0, :, :, 0].T

    def _last_stage(self, regions: Tensor) -> Tensor:
        """Run the last stage, which not every backbone can on no region at all."""
        if regions.shape[0]:
            return self.stage.last_stage(regions)
        half = math.ceil(self.size / 2)
        return regions.new_zeros(0, self.stage.channels["c5"], half, half)


@dataclass(frozen=True, slots=True)
class Samples:
    """Regions taken for the loss, all images' in one tensor."""

    boxes: list[Tensor]
    """For each image (S_i, 4)."""
    people: list[Tensor]
    """For each image (S_i, 4), the person matched to each; for background its first one; zeros if it has nobody."""
    labels: Tensor
    """(S,) 1 for a person, 0 for background."""
    ids: Tensor
    """(S,) the person's identity; -1 without a label, and for background."""
    deltas: Tensor
    """(S, 4) from the region to the person's box."""


class RegionSampler:
    """Chooses the regions that the losses see.

    Args:
        config: The detector's.
    """

    def __init__(self, config: RegionConfig) -> None:
        self.matcher = Matcher(config.region_positive_iou, config.region_negative_iou, allow_low_quality_matches=False)
        self.sampler = BalancedPositiveNegativeSampler(config.region_samples, config.region_positive_fraction)

    @torch.no_grad()
    def __call__(self, proposals: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> Samples:
        """Add the people themselves to the proposals, match, and sample.

        Args:
            proposals: For each image (R_i, 4).
            targets: For each image `boxes` (P_i, 4) and `ids` (P_i,).
        """
        candidates = [torch.cat([boxes, target["boxes"]]) for boxes, target in zip(proposals, targets, strict=True)]
        matched = [self._match(boxes, target) for boxes, target in zip(candidates, targets, strict=True)]
        chosen = [
            torch.where(positive | negative)[0]
            for positive, negative in zip(*self.sampler([labels for labels, _ in matched]), strict=True)
        ]
        boxes, labels, ids, people = [], [], [], []
        for image, index in enumerate(chosen):
            label, person = matched[image][0][index], matched[image][1][index]
            target = targets[image]
            boxes.append(candidates[image][index])
            labels.append(label)
            if len(target["boxes"]):
                people.append(target["boxes"][person])
                ids.append(torch.where(label > 0, target["ids"][person], -1))
            else:  # encoded like torchvision does, and never used
                people.append(boxes[-1].new_zeros(len(index), 4))
                ids.append(torch.full_like(label, -1))
        deltas = torch.cat(coder.encode(people, boxes))
        return Samples(boxes, people, torch.cat(labels), torch.cat(ids), deltas)

    def _match(self, boxes: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return each box's label (1 person, 0 background, -1 neither) and the index of its person."""
        if len(target["boxes"]) == 0:
            nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            return nothing, nothing
        match: Tensor = self.matcher(box_iou(target["boxes"], boxes))
        labels = (match >= 0).long()
        labels[match == Matcher.BETWEEN_THRESHOLDS] = -1
        return labels, match.clamp(min=0)


def pool(maps: Tensor, how: str) -> Tensor:
    """(R, C, h, w) -> (R, C) in full precision, by "max" or "average"."""
    return to_float32(maps.amax(dim=(2, 3)) if how == "max" else maps.mean(dim=(2, 3)))


def box_loss(deltas: Tensor, samples: Samples) -> Tensor:
    """Smooth L1 of the positives, divided by the number of all samples. (S, 4) -> ()."""
    positive = torch.where(samples.labels > 0)[0]
    total = F.smooth_l1_loss(deltas[positive], samples.deltas[positive], reduction="sum")
    return total / max(len(samples.labels), 1)


def decode_boxes(boxes: Sequence[Tensor], deltas: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """Apply deltas to each image's boxes and clip them to the image. [(R_i, 4)], (R, 4) -> [(R_i, 4)]."""
    moved = coder.decode_single(deltas, torch.cat(list(boxes)))
    parts = moved.split([each.shape[0] for each in boxes])
    return [clip_boxes_to_image(part, size) for part, size in zip(parts, sizes, strict=True)]
