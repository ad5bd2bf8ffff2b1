"""SeqNet composed of torchvision's modules like its original: one image at a time, without optimization.

It is the reference for time and output of the optimized detector. It shares no code with the package, only weights: its state
dict has the original's names in torchvision's current spelling (`rpn.head.conv.0.0`).
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, remove_small_boxes


class RegionHead(nn.Module):
    """layer4, with max pooling of its input and of its output."""

    def __init__(self, layer4: nn.Module) -> None:
        super().__init__()
        self.layer4 = layer4

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(R, 1024, 14, 14) -> (R, 1024), (R, 2048)."""
        pooled = [F.adaptive_max_pool2d(maps, 1).flatten(1) for maps in (regions, self.layer4(regions))]
        return pooled[0], pooled[1]


class EmbeddingHead(nn.Module):
    """Norm-aware embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.projectors = nn.ModuleDict(
            {
                "feat_res4": nn.Sequential(nn.Linear(1024, 128), nn.BatchNorm1d(128)),
                "feat_res5": nn.Sequential(nn.Linear(2048, 128), nn.BatchNorm1d(128)),
            }
        )
        self.rescaler = nn.BatchNorm1d(1)

    def forward(self, res4: Tensor, res5: Tensor) -> Tensor:
        """Unit vectors (R, 256)."""
        joined = torch.cat([self.projectors["feat_res4"](res4), self.projectors["feat_res5"](res5)], dim=1)
        return joined / joined.norm(dim=1, keepdim=True).clamp(min=1e-12)


class BoxPredictor(nn.Module):
    """Box deltas of background and person, through a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bbox_pred = nn.Sequential(nn.Linear(2048, 8), nn.BatchNorm1d(8))


class Tables(nn.Module):
    """The identity loss's tables, unused at test time."""

    def __init__(self, identities: int, queue: int) -> None:
        super().__init__()
        self.register_buffer("lut", torch.zeros(identities, 256))
        self.register_buffer("cq", torch.zeros(queue, 256))


class RoIHeads(nn.Module):
    """All stages after the proposals."""

    def __init__(self, layer4: nn.Module, identities: int, queue: int) -> None:
        super().__init__()
        self.box_head = RegionHead(layer4)
        self.reid_head = RegionHead(copy.deepcopy(layer4))
        self.faster_rcnn_predictor = FastRCNNPredictor(2048, 2)
        self.box_predictor = BoxPredictor()
        self.embedding_head = EmbeddingHead()
        self.reid_loss = Tables(identities, queue)
        self.pool = MultiScaleRoIAlign(["feat_res4"], 14, 2)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))

    def forward(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and weighted embeddings of the one image."""
        _, res5 = self.box_head(self.pool(features, proposals, sizes))
        logits, deltas = self.faster_rcnn_predictor(res5)
        boxes = clip_boxes_to_image(self.coder.decode(deltas, proposals)[:, 1], sizes[0])
        boxes, scores, _ = _filtered(boxes, logits.softmax(-1)[:, 1], None, 0.4)
        if len(boxes) == 0:
            return boxes, scores, boxes.new_zeros(0, 256)
        res4, res5 = self.reid_head(self.pool(features, [boxes], sizes))
        embeddings = self.embedding_head(res4, res5) * scores[:, None]
        deltas = self.box_predictor.bbox_pred(res5)
        boxes = clip_boxes_to_image(self.coder.decode(deltas, [boxes])[:, 1], sizes[0])
        boxes, scores, kept = _filtered(boxes, scores, embeddings, 0.5)
        assert kept is not None
        return boxes, scores, kept


def _filtered(boxes: Tensor, scores: Tensor, embeddings: Tensor | None, nms: float) -> tuple[Tensor, Tensor, Tensor | None]:
    keep = torch.nonzero(scores > 0.5).squeeze(1)
    keep = keep[remove_small_boxes(boxes[keep], 1e-2)]
    keep = keep[batched_nms(boxes[keep], scores[keep], torch.ones_like(scores[keep]), nms)[:300]]
    return boxes[keep], scores[keep], None if embeddings is None else embeddings[keep]


class PlainSeqNet(nn.Module):
    """The whole detector, for batches of one."""

    def __init__(self, identities: int, queue: int) -> None:
        super().__init__()
        net = resnet50(weights=None)
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        self.backbone = nn.Sequential(OrderedDict((name, getattr(net, name)) for name in names))
        self.transform = GeneralizedRCNNTransform(900, 1500, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
            RPNHead(1024, 15),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 12000, "testing": 6000},
            post_nms_top_n={"training": 2000, "testing": 300},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(net.layer4, identities, queue)

    @torch.no_grad()
    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """One image in a list -> its detections in a list."""
        batch, _ = self.transform(images)
        features = OrderedDict(feat_res4=self.backbone(batch.tensors))
        proposals, _ = self.rpn(batch, features)
        boxes, scores, embeddings = self.roi_heads(features, proposals, batch.image_sizes)
        boxes = resize_boxes(boxes, batch.image_sizes[0], images[0].shape[-2:])
        return [{"boxes": boxes, "scores": scores, "embeddings": embeddings}]
