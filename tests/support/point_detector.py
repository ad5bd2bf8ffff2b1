"""Two detectors of another package: anchor-free, one of which cannot embed a given box. `test_plugin.py` installs a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from pretrainps.backbones import Backbone
from pretrainps.detectors import DetectorConfig, DetectorEntry, PersonSearchDetector, register_detector
from pretrainps.detectors.found import Detections, filter_detections
from pretrainps.registry.specs import InputConvention


@dataclass(frozen=True, kw_only=True, slots=True)
class PointConfig(DetectorConfig):
    """Settings of both."""

    in_weights: ClassVar[frozenset[str]] = DetectorConfig.in_weights | {"width"}

    width: int = 12
    """Length of an embedding."""
    nms_iou: float = 0.5
    """Overlap above which the weaker of two detections goes."""
    weight_point_cls: float = 1.0
    """Weight of the loss of person or not."""
    weight_point_box: float = 0.1
    """Weight of the loss of the box."""
    weight_point_id: float = 1.0
    """Weight of the loss of the identity."""


class PointDetector(PersonSearchDetector[PointConfig]):
    """Every cell of the map says whether it is the middle of a person, how far the sides are, and who it is."""

    kind = "points"
    training_only = ("classifier",)
    unused_by_embed = ("cells",)

    def __init__(self, backbone: Backbone, config: PointConfig, convention: InputConvention) -> None:
        super().__init__(config, convention)
        self.backbone = backbone
        channels = backbone.channels["c4"] + backbone.channels["c5"]
        self.cells = nn.Conv2d(channels, 5, 1)
        self.looks = nn.Conv2d(channels, config.width, 1)
        self.classifier = nn.Linear(config.width, config.num_identities)
        self._freeze()

    @property
    def embedding_dim(self) -> int:
        return self.config.width

    def _map(self, pixels: Tensor) -> Tensor:
        maps = self.backbone(pixels)
        return torch.cat([maps["c4"], F.interpolate(maps["c5"], size=maps["c4"].shape[-2:])], dim=1)

    def _places(self, like: Tensor) -> Tensor:
        rows, columns = (torch.arange(length, device=like.device) * 16.0 + 8 for length in like.shape[-2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()], dim=1)  # (H W, 2)

    def _batch_losses(self, batch: ImageList, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        features = self._map(batch.tensors)
        read, looks = self.cells(features).flatten(2), self.looks(features).flatten(2)  # (N, 5, H W), (N, dim, H W)
        places = self._places(features)
        cls, box, ident = [], [], []
        for index, target in enumerate(targets):
            centres = (target["boxes"][:, :2] + target["boxes"][:, 2:]) / 2
            nearest = torch.cdist(centres, places).argmin(dim=1)  # (P,)
            wanted = torch.zeros(len(places)).index_fill(0, nearest, 1.0)
            cls.append(F.binary_cross_entropy_with_logits(read[index, 0], wanted))
            sides = torch.cat([places[nearest] - target["boxes"][:, :2], target["boxes"][:, 2:] - places[nearest]], dim=1)
            box.append(F.l1_loss(read[index, 1:, nearest].T, sides / 16))
            ident.append(F.cross_entropy(self.classifier(looks[index, :, nearest].T), target["ids"], ignore_index=-1))
        means = (torch.stack(each).mean() for each in (cls, box, ident))
        return dict(zip(("loss_point_cls", "loss_point_box", "loss_point_id"), means, strict=True))

    def _detect_batch(self, batch: ImageList, query_boxes: list[Tensor] | None) -> list[Detections]:
        features, config = self._map(batch.tensors), self.config
        read, looks = self.cells(features).flatten(2), self.looks(features).flatten(2)
        places = self._places(features)
        found = []
        for index, (height, width) in enumerate(batch.image_sizes):
            sides = read[index, 1:].T.sigmoid() * 48 + 4
            boxes = torch.cat([places - sides[:, :2], places + sides[:, 2:]], dim=1)
            boxes = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)
            scores, vectors = read[index, 0].sigmoid(), F.normalize(looks[index].T, dim=1)
            if config.score_weighting and query_boxes is None:
                vectors = vectors * scores[:, None]
            known = None
            if query_boxes is not None:
                known = Detections(
                    query_boxes[index], scores.new_ones(1), self._at(features[index : index + 1], [query_boxes[index]])
                )
            found.append(
                filter_detections(
                    Detections(boxes, scores, vectors),
                    threshold=config.score_threshold,
                    nms_iou=config.nms_iou,
                    most=config.max_detections,
                    first=known,
                )
            )
        return found

    def _embed_batch(self, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        return self._at(self._map(batch.tensors), boxes)

    def _at(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        regions = roi_align(self.looks(features), boxes, 1, 1 / 16)  # (R, dim, 1, 1)
        return F.normalize(regions.flatten(1), dim=1)


class FixedPointDetector(PointDetector):
    """The same, but it embeds only what it detects."""

    kind = "fixed points"
    embeds_boxes = False

    def _embed_batch(self, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        raise AssertionError("it cannot")


def _sizes(found: Any, variant: Any) -> dict[str, Any]:
    shape = found.get("classifier.weight", ())
    return {"num_identities": shape[0], "width": shape[1]} if len(shape) == 2 else {"num_identities": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPointConfig(PointConfig):
    """Its own class, for a config belongs to one detector."""


register_detector(
    DetectorEntry(name="points", model=PointDetector, config=PointConfig, signature_keys=("cells.",), sizes=_sizes)
)
FIXED = DetectorEntry(name="fixed points", model=FixedPointDetector, config=FixedPointConfig, signature_keys=("looks.",))
