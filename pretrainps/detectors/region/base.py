"""What all region detectors share: one map an image, proposals on it, and a backbone's last stage on each region (C4)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from pretrainps.backbones import Backbone
from pretrainps.backbones.measuring import require_measurable
from pretrainps.detectors.base import PersonSearchDetector
from pretrainps.detectors.found import Detections
from pretrainps.detectors.region.config import RegionConfig
from pretrainps.detectors.region.optimize import optimized
from pretrainps.detectors.region.proposals import ProposalNetwork
from pretrainps.detectors.region.roi_stage import RegionSampler, RoIStage, Samples
from pretrainps.detectors.transform import Size
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.losses.oim import OIMLoss
from pretrainps.registry.specs import InputConvention

Config = TypeVar("Config", bound=RegionConfig)


class RegionDetector(PersonSearchDetector[Config]):
    """Base of the region detectors.

    Attributes:
        backbone: The trunk.
        rpn: Proposals.
        box_stage: The last stage, on proposals.
        oim_loss: The identity loss with its tables.

    Args:
        backbone: Any backbone with a trunk and a last stage; both are copied.
        config: The detector's settings.
        convention: How the backbone's weights want their pixels.

    Raises:
        UnsupportedModelError: the backbone has no trunk that ends at stride 16, or no last stage.
    """

    training_only = ("oim_loss",)
    unused_by_embed: ClassVar[tuple[str, ...]] = ("rpn",)
    backbone_places = ("backbone.", "box_stage.stage.")

    def __init__(self, backbone: Backbone, config: Config, convention: InputConvention) -> None:
        super().__init__(config, convention)
        _require_halves(backbone)
        self.backbone, last = backbone.split()
        self.rpn = ProposalNetwork(backbone.channels["c4"], config)
        self.box_stage = RoIStage(last, size=config.region_size, sampling=config.region_sampling)
        self.sampler = RegionSampler(config)
        self.oim_loss = OIMLoss(
            config.embedding_dim,
            config.num_identities,
            config.queue_size,
            scalar=config.oim_scalar,
            momentum=config.oim_momentum,
        )
        self._freeze()

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self.config.embedding_dim

    def features(self, pixels: Tensor) -> Tensor:
        """Return the stride-16 map. (N, 3, H, W), normalized -> (N, C, H / 16, W / 16)."""
        return self.backbone.trunk(pixels)

    def require_batch_size(self, images: int) -> None:
        """See that batch norm has more than one region to measure; see `PersonSearchDetector.require_batch_size`."""
        if images * self.config.region_samples < 2:
            raise ArgumentError(
                "scenes.batch_size and detector.region_samples are both 1: batch norm has nothing to measure in a single "
                "region. Raise one of them."
            )

    @abstractmethod
    def _region_losses(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the unweighted losses of the region heads, by the names of the config's weights."""

    @abstractmethod
    def _detect(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], query_boxes: list[Tensor] | None
    ) -> list[Detections]:
        """Turn each image's proposals into detections.

        Args:
            features: (N, C, H / 16, W / 16).
            proposals: For each image (R_i, 4).
            sizes: Each image's height and width before padding.
            query_boxes: For each image the (1, 4) box of a person known to be there, or `None`: see `query_as_gallery`.
        """

    @abstractmethod
    def _embed(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return query embeddings of all images' boxes. (N, C, H, W), N x (R_i, 4) -> (R, dim)."""

    def _batch_losses(self, batch: ImageList, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        features = self.features(batch.tensors)
        proposals, losses = self.rpn.propose(batch, features, targets)
        return losses | self._region_losses(features, proposals, batch.image_sizes, targets)

    def _detect_batch(self, batch: ImageList, query_boxes: list[Tensor] | None) -> list[Detections]:
        features = self.features(batch.tensors)
        proposals, _ = self.rpn.propose(batch, features)
        if torch.compiler.is_exporting():
            # a graph cannot ask whether there are proposals. All of them pass here, but their number is now one of which an
            # exporter can be told that it is at least 1
            (boxes,) = proposals
            boxes = boxes[torch.where(boxes[:, 2] > boxes[:, 0])[0]]
            torch._check(boxes.shape[0] >= 1)
            proposals = [boxes]
        return self._detect(features, proposals, batch.image_sizes, query_boxes)

    def _embed_batch(self, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        return self._embed(self.features(batch.tensors), boxes)

    def _optimized(self, dtype: torch.dtype, *, compiled: bool) -> Self:
        return optimized(self, dtype, compiled=compiled)

    @property
    def _identities_end(self) -> int:
        config = self.config
        return config.num_identities + (config.queue_size if config.identity_numbering == "original" else 0)

    def _follow(self, old: Config) -> None:
        config = self.config
        self.rpn.configure(config)
        for stage in self._stages():
            stage.size, stage.sampling = config.region_size, config.region_sampling
        self.sampler = RegionSampler(config)
        self.oim_loss.scalar, self.oim_loss.momentum = config.oim_scalar, config.oim_momentum
        super()._follow(old)

    def _stages(self) -> list[RoIStage]:
        return [module for module in self.children() if isinstance(module, RoIStage)]

    def _query_detections(
        self, features: Tensor, query_boxes: list[Tensor] | None, images: int
    ) -> list[Detections] | list[None]:
        """Return given boxes as detections of score 1; without any, `None` for each image."""
        if query_boxes is None:
            return [None] * images
        parts = self._embed(features, query_boxes).split([len(each) for each in query_boxes])
        return [Detections(box, box.new_ones(len(box)), part) for box, part in zip(query_boxes, parts, strict=True)]

    def _require_measurable(self, samples: Samples) -> None:
        """See that the heads' batch norms have something to measure."""
        heads = [module for module in self.children() if not isinstance(module, RoIStage | Backbone)]
        remedy = (
            f"Raise region_samples, which is {self.config.region_samples} an image, or put more images into the batch "
            f"(there are {len(samples.boxes)})."
        )
        require_measurable(len(samples.labels), "region", remedy, *heads)


def _require_halves(backbone: Backbone) -> None:
    absent = [name for name in ("c4", "c5") if name not in backbone.channels or name not in backbone.segments]
    if absent:
        raise UnsupportedModelError(
            f"{backbone.arch} has no {' and no '.join(absent)}: a detector needs a trunk that ends at stride 16 (c4) and a "
            "last stage behind it (c5)."
        )
