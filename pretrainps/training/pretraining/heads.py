"""What hybrid pre-training learns beside the backbone: the detectors' own heads, which they can start from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pretrainps.heads.boxes import SoftmaxBoxHead
from pretrainps.heads.norm_aware import UnitEmbedding
from pretrainps.losses.identity import IdentityLoss
from pretrainps.training.pretraining.ignore_regions import SparingProposals, SparingSampler
from pretrainps.training.pretraining.settings import HybridSettings


class DetectionHeads(nn.Module):
    """What detection needs beside the backbone, under the detectors' names.

    Attributes:
        rpn: Proposals.
        sampler: Which regions the losses see.
        box_head: Class and box of a region.

    Args:
        channels: Channels of the backbone's maps, by name.
        settings: The whole pre-training's.
    """

    def __init__(self, channels: Mapping[str, int], settings: HybridSettings) -> None:
        super().__init__()
        config = settings.detector
        self.pooling = config.pooling
        self.rpn = SparingProposals(channels["c4"], config, settings.ignored_from)
        self.sampler = SparingSampler(config, settings.ignored_from)
        self.box_head = SoftmaxBoxHead(channels["c5"])


class IdentityHeads(nn.Module):
    """What re-ID needs beside the backbone, the embedding under the detectors' name.

    Attributes:
        embedding_head: What a person's vector is read by.
        loss: The identity losses.

    Args:
        channels: Channels of the backbone's maps, by name.
        settings: The whole pre-training's.
    """

    def __init__(self, channels: Mapping[str, int], settings: HybridSettings) -> None:
        super().__init__()
        config = settings.detector
        self.embedding_head = UnitEmbedding({name: channels[name] for name in ("c4", "c5")}, config.embedding_dim)
        self.loss = IdentityLoss(
            config.embedding_dim,
            settings.reid_sets,
            settings.identity,
            scalar=config.oim_scalar,
            momentum=config.oim_momentum,
        )
