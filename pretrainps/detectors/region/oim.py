"""OIM: a softmax detector and an embedding of length 1, the baseline that every paper of the family reports.

Xiao et al., "Joint Detection and Identification Feature Learning for Person Search", CVPR 2017. This is the baseline as NAE
and SeqNet describe it, their own heads without the norm branch, not the original Caffe network.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.detectors.region.parallel_heads import ParallelHeadsConfig, ParallelHeadsDetector, RegionReadings
from pretrainps.detectors.region.recognition import SIGNATURE_KEYS, TABLES, sizes_of_tables
from pretrainps.detectors.region.roi_stage import RegionMaps, Samples
from pretrainps.detectors.registry import DetectorEntry, FinetuneDefaults, register_detector
from pretrainps.heads.boxes import SoftmaxBoxHead
from pretrainps.heads.norm_aware import UnitEmbedding
from pretrainps.registry.specs import InputConvention


@dataclass(frozen=True, kw_only=True, slots=True)
class OIMConfig(ParallelHeadsConfig):
    """OIM's settings."""

    score_weighting: bool = False
    """Multiply a gallery embedding by its detection score; weighting came with NAE."""


class OIM(ParallelHeadsDetector[OIMConfig]):
    """Softmax scores, unit embeddings. Losses as `NAE`'s."""

    kind = "oim"

    def __init__(self, backbone: Backbone, config: OIMConfig, convention: InputConvention) -> None:
        super().__init__(backbone, config, convention)
        channels = backbone.channels
        self.box_head = SoftmaxBoxHead(channels["c5"])
        self.embedding_head = UnitEmbedding({"c4": channels["c4"], "c5": channels["c5"]}, config.embedding_dim)

    def _read(self, maps: RegionMaps) -> RegionReadings:
        pooled = maps.pooled(self.config.pooling)
        logits, deltas = self.box_head(pooled["c5"])
        return RegionReadings(logits, deltas, self.embedding_head(pooled))

    def _scores(self, logits: Tensor, counts: list[int]) -> Tensor:
        return logits.softmax(dim=1)[:, 1]

    def _classification_loss(self, logits: Tensor, samples: Samples, targets: list[dict[str, Tensor]]) -> Tensor:
        return F.cross_entropy(logits, samples.labels)


register_detector(
    DetectorEntry(
        name="oim",
        model=OIM,
        config=OIMConfig,
        signature_keys=SIGNATURE_KEYS,
        sizes=sizes_of_tables,
        tables=TABLES,
        pretrained_heads={"rpn": "rpn", "box_head": "box_head", "embedding_head": "embedding_head"},
        recipes={
            "oim_cuhk": FinetuneDefaults(
                summary="The OIM baseline on CUHK-SYSU, with NAE's settings, as papers report it.",
                protocol="cuhk-sysu",
                config={"queue_size": 5000},
                epochs=22,
                decay="no_biases",
            ),
            "oim_prw": FinetuneDefaults(
                summary="The OIM baseline on PRW, with NAE's settings, as papers report it.",
                protocol="prw",
                config={"queue_size": 500},
                epochs=22,
                decay="no_biases",
            ),
        },
    )
)
