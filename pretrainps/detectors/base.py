"""What all C4 detectors share: one map an image, proposals on it, and a last stage for each region.

The contract is torchvision's: `model(images, targets)` returns losses in training and detections otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.checkpoint import LoadReport
from pretrainps.detectors.checks import PERSON, check_images, check_query_boxes, check_targets
from pretrainps.detectors.config import DetectorConfig
from pretrainps.detectors.inference import optimized
from pretrainps.detectors.proposals import ProposalNetwork
from pretrainps.detectors.regions import Detections, RegionSampler, RegionStage
from pretrainps.detectors.scene import Group, SceneTransform, Size
from pretrainps.errors import ArgumentError
from pretrainps.heads.oim import OIMLoss
from pretrainps.registry.specs import DetectorSpec, InputConvention, ModelSpec

Config = TypeVar("Config", bound=DetectorConfig)
Result = dict[str, Tensor]


class PersonSearchDetector(nn.Module, ABC, Generic[Config]):
    """Base of the detectors.

    Attributes:
        kind: The detector's name, a key of `DETECTORS`.
        config: How it was built.
        convention: How its pixels go in; done inside.
        backbone: The trunk.
        rpn: Proposals.
        box_stage: The last stage, on proposals.
        oim_loss: The identity loss with its tables.
        optimized: Whether this is a copy that `optimize_for_inference` made.
        spec: What was loaded; set by `pretrainps.load` and `pretrainps.build_detector`.
        load_report: How the file fitted; set by `pretrainps.load`.

    Args:
        backbone: Any backbone; its two halves are copied.
        config: The detector's settings.
        convention: How the backbone's weights want their pixels.
    """

    kind: str
    optimized = False
    spec: ModelSpec
    load_report: LoadReport

    def __init__(self, backbone: Backbone, config: Config, convention: InputConvention) -> None:
        super().__init__()
        self.config: Config = config
        self.convention = convention
        self.transform = SceneTransform(convention, config.min_size, config.max_size)
        self.backbone, last = backbone.halves()
        self.rpn = ProposalNetwork(backbone.channels["c4"], config)
        self.box_stage = RegionStage(last, size=config.region_size, sampling=config.region_sampling)
        self.sampler = RegionSampler(config)
        self.oim_loss = OIMLoss(
            config.embedding_dim,
            config.num_identities,
            config.queue_size,
            scalar=config.oim_scalar,
            momentum=config.oim_momentum,
        )
        self._freeze(self.backbone, last)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor] | list[Result]:
        """Detect everyone, or in training mode return the losses.

        Args:
            images: (3, H, W) float tensors, RGB in 0..1, of any sizes.
            targets: In training, for each image `boxes` (P, 4) x1, y1, x2, y2 in pixels, `ids` (P,) from 0, -1 for a person
                without a label, and perhaps `labels` (P,), all 1.

        Returns:
            In training the weighted losses by name; their sum is to be minimised. Otherwise for each image, best first,
            `boxes` (K, 4) in its pixels, `labels` (K,) of ones, `scores` (K,) and `embeddings` (K, dim), which are multiplied
            by the scores if the config says so.

        Raises:
            ArgumentError: images or targets that cannot be; names the image and the field.
        """
        check_images(images, self.config.max_size)
        return self._losses(images, targets) if self.training else self._detect_all(images, None)

    @torch.no_grad()
    def embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Return the query embeddings of given people. No score weighs them.

        Args:
            images: As for `forward`.
            boxes: For each image (N, 4) x1, y1, x2, y2 in its pixels, of any kind of number; they may leave the image.

        Returns:
            For each image (N, dim).

        Raises:
            ArgumentError: images or boxes that cannot be; or the model is in training mode.
        """
        self._require_eval("embed")
        check_images(images, self.config.max_size)
        people = check_query_boxes(boxes, images)
        results: list[Tensor] = [images[0].new_empty(0)] * len(images) if len(images) else []
        for group in self.transform.groups(images):
            scaled = [group.to_network(member, people[index]) for member, index in enumerate(group.members)]
            vectors = self._embed(self.features(group.batch.tensors), scaled)
            for index, part in zip(group.members, vectors.split([len(each) for each in scaled]), strict=True):
                results[index] = part
        return results

    @torch.no_grad()
    def query_as_gallery(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Result]:
        """Detect everyone in query images, the person searched for first: what context matching (CBGM) needs.

        The given box is taken as a certain detection: it comes first with score 1, and what overlaps it too far is suppressed.
        No embedding is weighed by its score.

        Args:
            images: As for `forward`.
            boxes: For each image (1, 4), or (4,), x1, y1, x2, y2 in its pixels.

        Returns:
            As `forward` in eval mode.

        Raises:
            ArgumentError: images or boxes that cannot be; or the model is in training mode.
        """
        self._require_eval("query_as_gallery")
        check_images(images, self.config.max_size)
        people = check_query_boxes(boxes, images, one_each=True)
        return self._detect_all(images, people)

    def optimize_for_inference(self, *, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Self:
        """Return a copy that answers faster; it can no longer be trained or saved.

        In float32 its answers are the same but for rounding. Heads, boxes and scores are computed in float32 in any case.

        Args:
            dtype: Precision of trunk, proposals and last stages: float32, or bfloat16 or float16 where the device is fast
                at it.
            compiled: Compile trunk and proposals with `torch.compile` too; the first image then takes a minute.
        """
        fast = optimized(self, dtype, compiled=compiled)
        fast.optimized = True
        return fast

    def train(self, mode: bool = True) -> Self:
        """Set training mode.

        Raises:
            ArgumentError: the model was optimised for inference.
        """
        if mode and self.optimized:
            raise ArgumentError("this copy was optimised for inference and cannot be trained; train the original.")
        return super().train(mode)

    def features(self, pixels: Tensor) -> Tensor:
        """Return the stride-16 map. (N, 3, H, W), normalised -> (N, C, H / 16, W / 16)."""
        return self.backbone.trunk(pixels.to(next(self.backbone.parameters()).dtype))

    @property
    def family(self) -> str:
        """The detectors that share key layouts (`pretrainps.checkpoint.layouts`)."""
        return f"{self.kind}-{self.backbone.family}"

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the tensors of the backbone that the detector was built on, under the backbone's own names."""
        return {**self.backbone.state_dict(), **self.box_stage.stage.state_dict()}

    def detector_spec(self) -> DetectorSpec:
        """Return what rebuilds this detector on its backbone."""
        return DetectorSpec(kind=self.kind, config=self.config.changes())

    def enable_gradient_checkpointing(self, enabled: bool = True) -> Self:
        """Recompute the backbone's segments in the backward pass: less memory, more time, the same result."""
        for module in self.modules():
            if isinstance(module, Backbone):
                module.enable_gradient_checkpointing(enabled)
        return self

    @abstractmethod
    def _region_losses(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the unweighted losses of the region heads, by the names of the config's weights."""

    @abstractmethod
    def _detect(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], people: list[Tensor] | None
    ) -> list[Detections]:
        """Turn each image's proposals into detections.

        Args:
            features: (N, C, H / 16, W / 16).
            proposals: For each image (R_i, 4).
            sizes: Each image's height and width before padding.
            people: For each image the (1, 4) box of someone known to be there, or `None`: see `query_as_gallery`.
        """

    @abstractmethod
    def _embed(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Return query embeddings of all images' boxes. (N, C, H, W), N x (R_i, 4) -> (R, dim)."""

    @torch.no_grad()
    def _detect_all(self, images: Sequence[Tensor], people: list[Tensor] | None) -> list[Result]:
        """Detect in groups of equally large images, with the box of someone known to be there in each, or none."""
        results: list[Result] = [{}] * len(images)
        for group in self.transform.groups(images):
            known = people and [group.to_network(member, people[index]) for member, index in enumerate(group.members)]
            found = self._detect(*self._propose(group), group.batch.image_sizes, known)
            for member, detections in enumerate(found):
                results[group.members[member]] = _result(group, member, detections)
        return results

    def _propose(self, group: Group) -> tuple[Tensor, list[Tensor]]:
        features = self.features(group.batch.tensors)
        return features, self.rpn.propose(group.batch, features)[0]

    def _losses(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None) -> dict[str, Tensor]:
        config = self.config
        beyond = config.queue_size if config.identity_numbering == "original" else 0
        wanted = check_targets(targets, images, config.num_identities + beyond)
        batch, scaled = self.transform(list(images), wanted)
        features = self.features(batch.tensors)
        proposals, losses = self.rpn.propose(batch, features, scaled)
        losses |= self._region_losses(features, proposals, batch.image_sizes, scaled)
        return {name: getattr(config, name.replace("loss_", "weight_")) * value for name, value in losses.items()}

    def _known(self, people: list[Tensor], embeddings: Tensor) -> list[Detections]:
        """Return given boxes as detections of score 1."""
        parts = embeddings.split([len(each) for each in people])
        return [Detections(box, box.new_ones(len(box)), part) for box, part in zip(people, parts, strict=True)]

    def _freeze(self, *halves: Backbone) -> None:
        frozen = self.config.batch_norm == "frozen"
        for half in halves:
            stem = "stem" if self.config.freeze_stem and "stem" in half.segments else None
            half.freeze(stem, batch_norm=frozen, statistics_move=not frozen)

    def _require_eval(self, what: str) -> None:
        if self.training:
            raise ArgumentError(f"{what} needs the model in eval mode: call model.eval() first.")


def _result(group: Group, member: int, found: Detections) -> Result:
    assert found.embeddings is not None
    return {
        "boxes": group.to_image(member, found.boxes),
        "labels": torch.full((len(found.boxes),), PERSON, dtype=torch.int64, device=found.boxes.device),
        "scores": found.scores,
        "embeddings": found.embeddings,
    }
