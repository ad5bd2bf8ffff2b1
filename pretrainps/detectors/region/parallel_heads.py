"""Region detectors with parallel heads: score, box and embedding are computed from one pass over the proposals."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from pretrainps.detectors.finite import require_finite
from pretrainps.detectors.found import Detections, filter_detections
from pretrainps.detectors.region.base import RegionDetector
from pretrainps.detectors.region.config import RegionConfig
from pretrainps.detectors.region.roi_stage import RegionMaps, Samples, box_loss, decode_boxes
from pretrainps.detectors.transform import Size


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelHeadsConfig(RegionConfig):
    """The settings of detectors with parallel heads; defaults are those of NAE's code."""

    region_negative_iou: float = 0.1
    """A proposal is negative below this overlap with every person; up to `region_positive_iou` it is not used."""


Config = TypeVar("Config", bound=ParallelHeadsConfig)


@dataclass(frozen=True, slots=True)
class RegionReadings:
    """What the heads say of R regions."""

    logits: Tensor
    """Of being a person: (R,), (R, 2) for a softmax, or (R, h, w) for every pixel."""
    deltas: Tensor
    """(R, 4)"""
    embeddings: Tensor
    """(R, dim) as the identity loss and queries take them."""


class ParallelHeadsDetector(RegionDetector[Config]):
    """Base of the detectors whose heads look at the same pooled region at the same time."""

    @abstractmethod
    def _read(self, maps: RegionMaps) -> RegionReadings:
        """Run the heads."""

    @abstractmethod
    def _scores(self, logits: Tensor, counts: list[int]) -> Tensor:
        """Return each region's score. (R, ...), each image's number of regions -> (R,)."""

    @abstractmethod
    def _classification_loss(self, logits: Tensor, samples: Samples, targets: list[dict[str, Tensor]]) -> Tensor:
        """Return the loss of person or not."""

    def _gallery_embeddings(self, embeddings: Tensor) -> Tensor:
        """Turn embeddings into those of a gallery, before any weighting."""
        return embeddings

    def _region_losses(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        samples = self.sampler(proposals, targets)
        self._require_measurable(samples)
        read = self._read(self.box_stage(features, samples.boxes, with_c4=True))
        people = samples.labels > 0
        return {
            "loss_box_cls": self._classification_loss(read.logits, samples, targets),
            "loss_box_reg": box_loss(read.deltas, samples),
            "loss_box_reid": self.oim_loss(read.embeddings[people], samples.ids[people]),
        }

    def _detect(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], query_boxes: list[Tensor] | None
    ) -> list[Detections]:
        config = self.config
        counts = [each.shape[0] for each in proposals]
        read = self._read(self.box_stage(features, proposals, with_c4=True))
        require_finite("scores, boxes and embeddings", read.logits, read.deltas, read.embeddings)
        scores = self._scores(read.logits, counts)
        embeddings = self._gallery_embeddings(read.embeddings)
        if config.score_weighting and query_boxes is None:
            embeddings = embeddings * scores[:, None]
        candidates = zip(
            decode_boxes(proposals, read.deltas, sizes), scores.split(counts), embeddings.split(counts), strict=True
        )
        query_detections = self._query_detections(features, query_boxes, len(proposals))
        return [
            filter_detections(
                Detections(*each),
                threshold=config.score_threshold,
                nms_iou=config.nms_iou,
                most=config.max_detections,
                first=first,
            )
            for each, first in zip(candidates, query_detections, strict=True)
        ]

    def _embed(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        return self._read(self.box_stage(features, boxes, with_c4=True)).embeddings
