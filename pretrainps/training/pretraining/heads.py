"""The heads that hybrid pre-training trains with the backbone. They are the detectors' own, which can start from them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pretrainps.heads.boxes import SoftmaxBoxHead
from pretrainps.heads.norm_aware import UnitEmbedding
from pretrainps.losses.identity import IdentityLoss
from pretrainps.training.pretraining.ignore_regions import SparingProposals, SparingSampler
from pretrainps.training.pretraining.settings import HybridSettings


class DetectionHeads(nn.Module):
    """The heads of detection, under the detectors' names.

    Attributes:
        rpn: The proposal network.
        sampler: Draws the regions for the losses.
        box_head: Gives the class and the box of a region.

    Args:
        channels: Channels of the backbone's maps, by name.
        settings: Settings of the pre-training.
    """

    def __init__(self, channels: Mapping[str, int], settings: HybridSettings) -> None:
        super().__init__()
        config = settings.detector
        self.pooling = config.pooling
        self.rpn = SparingProposals(channels["c4"], config, settings.ignored_from)
        self.sampler = SparingSampler(config, settings.ignored_from)
        self.box_head = SoftmaxBoxHead(channels["c5"])


class IdentityHeads(nn.Module):
    """The heads of re-ID, the embedding under the detectors' name.

    Attributes:
        embedding_head: Gives the embedding of a person.
        loss: The identity losses.

    Args:
        channels: Channels of the backbone's maps, by name.
        settings: Settings of the pre-training.
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
