"""NAE: the norm of a person's vector is the detection score, its direction the identity.

Chen et al., "Norm-Aware Embedding for Efficient Person Search", CVPR 2020; formulas of github.com/dichen-cd/NAE4PS
(lib/model/faster_rcnn_norm_aware.py) at ec43d1e.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.detectors.region.parallel_heads import OneStageConfig, ParallelHeadsDetector, RegionReadings
from pretrainps.detectors.region.roi_stage import RegionMaps, Samples
from pretrainps.heads.boxes import BatchNormBoxHead
from pretrainps.heads.norm_aware import NormAwareEmbedding
from pretrainps.registry.specs import InputConvention


@dataclass(frozen=True, kw_only=True, slots=True)
class NAEConfig(OneStageConfig):
    """NAE's settings."""


class NAE(ParallelHeadsDetector[NAEConfig]):
    """Norm-aware embeddings of proposals; no other classifier.

    Losses: `loss_rpn_cls`, `loss_rpn_reg` (the original's loss_objectness and loss_rpn_box_reg), `loss_box_cls`
    (loss_detection), `loss_box_reg`, `loss_box_reid` (loss_reid).
    """

    kind = "nae"

    def __init__(self, backbone: Backbone, config: NAEConfig, convention: InputConvention) -> None:
        super().__init__(backbone, config, convention)
        channels = backbone.channels
        self.box_head = BatchNormBoxHead(channels["c5"])
        self.embedding_head = NormAwareEmbedding({"c4": channels["c4"], "c5": channels["c5"]}, config.embedding_dim)

    def _read(self, maps: RegionMaps) -> RegionReadings:
        pooled = maps.pooled(self.config.pooling)
        embeddings, logits = self.embedding_head(pooled)
        return RegionReadings(logits, self.box_head(pooled["c5"]), embeddings)

    def _scores(self, logits: Tensor, counts: list[int]) -> Tensor:
        return logits.sigmoid()

    def _classification_loss(self, logits: Tensor, samples: Samples, targets: list[dict[str, Tensor]]) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, samples.labels.float())
