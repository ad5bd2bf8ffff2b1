"""Regions to ignore in training: crowds, posters, people too small to be annotated. They are neither people nor background.

Anchors and proposals that would be background, but lie mostly inside such a region, take no part in the losses. Everything
else is the detectors' own code. Without such regions the results are the same as theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area

from pretrainps.detectors.region import RegionConfig
from pretrainps.detectors.region.proposals import ProposalNetwork, Targets
from pretrainps.detectors.region.roi_stage import RegionSampler

_UNUSED = -1


def covered_share(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return the largest share of each box's area that one region covers. (N, 4), (M, 4) -> (N,), 0 without a region."""
    if len(regions) == 0:
        return boxes.new_zeros(len(boxes))
    left_top = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    right_bottom = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=2)  # (N, M)
    return shared.amax(dim=1) / box_area(boxes).clamp(min=1e-6)


class SparingProposals(ProposalNetwork):
    """`ProposalNetwork` whose negative anchors are not taken from regions to ignore.

    Args:
        channels: Channels of the map.
        config: The detector's.
        covered: Share of an anchor from which on it lies inside a region.
    """

    def __init__(self, channels: int, config: RegionConfig, covered: float) -> None:
        super().__init__(channels, config)
        self.covered = covered

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: Targets) -> tuple[list[Tensor], list[Tensor]]:
        """Return each image's anchor labels (1 a person, 0 background, -1 neither) and the box each anchor is matched to.

        Args:
            anchors: For each image (A, 4).
            targets: For each image `boxes` (P, 4) and `ignore` (M, 4).
        """
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, boxes, target in zip(labels, anchors, targets, strict=True):
            if len(target["ignore"]):
                label[(label == 0) & (covered_share(boxes, target["ignore"]) >= self.covered)] = _UNUSED
        return labels, matched

    def _losses(
        self, objectness: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, labels_by_image: list[Tensor]
    ) -> dict[str, Tensor]:
        if bool((labels == _UNUSED).all()):  # the mean over no anchor at all would not be a number
            return {"loss_rpn_cls": 0.0 * objectness.sum(), "loss_rpn_reg": 0.0 * deltas.sum()}
        return super()._losses(objectness, deltas, labels, wanted, labels_by_image)


class SparingSampler(RegionSampler):
    """`RegionSampler` whose background is not taken from regions to ignore.

    Args:
        config: The detector's.
        covered: Share of a proposal from which on it lies inside a region.
    """

    def __init__(self, config: RegionConfig, covered: float) -> None:
        super().__init__(config)
        self.covered = covered

    def _match(self, boxes: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels, person = super()._match(boxes, target)
        if len(target["ignore"]):
            spared = (labels == 0) & (covered_share(boxes, target["ignore"]) >= self.covered)
            labels = labels.masked_fill(spared, _UNUSED)
        return labels, person
