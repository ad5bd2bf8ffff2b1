"""The region proposal network: torchvision's, with the box loss of the originals and no work done twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from pretrainps.backbones.precision import matching
from pretrainps.detectors.finite import made_finite, require_finite, spoiled_by
from pretrainps.detectors.region.config import RegionConfig
from pretrainps.ops.nms import nms
from pretrainps.ops.precision import to_float32

Targets = list[dict[str, Tensor]]


class ProposalNetwork(RegionProposalNetwork):
    """Proposals on one map.

    Anchors, matching, sampling and box coding are torchvision's. Two things differ in how, not in what: only the best anchors
    are decoded, and boxes are computed in full precision whatever the map's.

    Args:
        channels: Channels of the map.
        config: The detector's.
    """

    def __init__(self, channels: int, config: RegionConfig) -> None:
        anchors = AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,))
        super().__init__(
            anchors,
            RPNHead(channels, anchors.num_anchors_per_location()[0]),
            **_settings(config),
        )
        self.box_loss = config.rpn_box_loss

    def configure(self, config: RegionConfig) -> None:
        """Follow other settings; anchors and head stay."""
        other = RegionProposalNetwork(self.anchor_generator, self.head, **_settings(config))
        for name in ("proposal_matcher", "fg_bg_sampler", "_pre_nms_top_n", "_post_nms_top_n", "nms_thresh"):
            setattr(self, name, getattr(other, name))
        self.box_loss = config.rpn_box_loss

    def propose(
        self, images: ImageList, features: Tensor, targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return each image's best boxes, and in training the losses.

        Args:
            images: The batch, with each image's size before padding.
            features: (N, C, H / stride, W / stride).
            targets: In training, each image's `boxes`, (P, 4) in pixels of the batch.

        Returns:
            Boxes (R, 4) for each image, the best first; {"loss_rpn_cls", "loss_rpn_reg"} in training, else nothing. A loss is
            NaN where something computed is not finite.

        Raises:
            NonFiniteError: without targets, something computed is not finite.
        """
        objectness_maps, delta_maps = self.head([matching(features, self.head)])
        anchors = self.anchor_generator(images, [to_float32(features)])
        objectness, deltas = concat_box_prediction_layers(objectness_maps, delta_maps)
        objectness = to_float32(objectness).view(len(anchors), -1)  # (N, A)
        deltas = to_float32(deltas).view(len(anchors), -1, 4)  # (N, A, 4)
        if targets is None:
            require_finite("scores and boxes of proposals", objectness, deltas)
            return self._best(objectness.detach(), deltas.detach(), anchors, images.image_sizes), {}
        best = made_finite(objectness.detach()), made_finite(deltas.detach())
        boxes = self._best(*best, anchors, images.image_sizes)
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(matched, anchors)
        losses = self._losses(objectness, deltas, torch.cat(labels), torch.cat(wanted), labels)
        return boxes, {**losses, "loss_rpn_reg": spoiled_by(losses["loss_rpn_reg"], objectness, deltas)}

    def _best(self, objectness: Tensor, deltas: Tensor, anchors: list[Tensor], sizes: list[tuple[int, int]]) -> list[Tensor]:
        """Decode each image's best anchors, clip them, and drop the specks and the doubles."""
        count = torch.sym_min(self.pre_nms_top_n(), objectness.shape[1])  # `min`, and in a graph too
        best_objectness, best = objectness.topk(count, dim=1)  # (N, K)
        found = []
        for image, size in enumerate(sizes):
            chosen = best[image]
            boxes = self.box_coder.decode_single(deltas[image, chosen], anchors[image][chosen])
            boxes = clip_boxes_to_image(boxes, size)
            scores = best_objectness[image].sigmoid()
            keep = remove_small_boxes(boxes, self.min_size)
            boxes, scores = boxes[keep], scores[keep]
            found.append(boxes[nms(boxes, scores, self.nms_thresh, self.post_nms_top_n())])
        return found

    def _losses(
        self, objectness: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, labels_by_image: list[Tensor]
    ) -> dict[str, Tensor]:
        positive_masks, negative_masks = self.fg_bg_sampler(labels_by_image)
        positive = torch.where(torch.cat(positive_masks))[0]
        sampled = torch.cat([positive, torch.where(torch.cat(negative_masks))[0]])
        found = deltas.flatten(0, 1)[positive]
        if self.box_loss == "l1":
            box_loss = F.l1_loss(found, wanted[positive], reduction="sum")
        else:
            box_loss = F.smooth_l1_loss(found, wanted[positive], beta=1 / 9, reduction="sum")
        return {
            "loss_rpn_cls": F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], labels[sampled]),
            "loss_rpn_reg": box_loss / max(len(sampled), 1),
        }


def _settings(config: RegionConfig) -> dict[str, Any]:
    """Return torchvision's names of the settings that no weight depends on."""
    return {
        "fg_iou_thresh": config.rpn_positive_iou,
        "bg_iou_thresh": config.rpn_negative_iou,
        "batch_size_per_image": config.rpn_samples,
        "positive_fraction": config.rpn_positive_fraction,
        "pre_nms_top_n": {"training": config.rpn_candidates_train, "testing": config.rpn_candidates},
        "post_nms_top_n": {"training": config.rpn_proposals_train, "testing": config.rpn_proposals},
        "nms_thresh": config.rpn_nms_iou,
    }
