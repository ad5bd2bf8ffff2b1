"""What all C4 detectors share: one map an image, proposals on it, and a last stage for each region.

The contract is torchvision's: `model(images, targets)` returns losses in training and detections otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from pretrainps.backbones import Backbone
from pretrainps.backbones.measuring import require_measurable
from pretrainps.detectors.config import DetectorConfig
from pretrainps.detectors.configuring import ConfigurableModel
from pretrainps.detectors.finite import require_finite
from pretrainps.detectors.region.optimize import optimized
from pretrainps.detectors.region.proposals import ProposalNetwork
from pretrainps.detectors.region.roi_stage import Detections, RegionSampler, RoIStage, Samples
from pretrainps.detectors.transform import Group, SceneTransform, Size
from pretrainps.detectors.validation import PERSON, check_images, check_query_boxes, check_targets
from pretrainps.errors import ArgumentError
from pretrainps.losses.oim import OIMLoss
from pretrainps.registry.specs import DetectorSpec, InputConvention, ModelSpec
from pretrainps.weights import LoadReport

Config = TypeVar("Config", bound=DetectorConfig)
Result = dict[str, Tensor]


class PersonSearchDetector(ConfigurableModel[Config]):
    """Base of the detectors.

    Attributes:
        kind: The detector's name, a key of `DETECTORS`.
        config: Its settings. Another config with the same weights may be set, and takes effect at once; or see `configured`.
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
        super().__init__(config)
        self.convention = convention
        self.transform = SceneTransform(convention, config.min_size, config.max_size)
        self.backbone, last = backbone.halves()
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
        self._freeze(self.backbone, last)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Mapping[str, Any]] | None = None,
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> dict[str, Tensor] | list[Result]:
        """Detect everyone, or in training mode return the losses.

        Args:
            images: (3, H, W) float tensors, RGB in 0..1, of any sizes.
            score_threshold: In eval mode, instead of the config's, for this call; so are the next three.
            max_detections: See `DetectorConfig`.
            min_size: See `DetectorConfig`.
            max_size: See `DetectorConfig`.
            targets: In training, for each image `boxes` (P, 4) x1, y1, x2, y2 in pixels, `ids` (P,) from 0, -1 for a person
                without a label, and perhaps `labels` (P,), all 1.

        Returns:
            In training the weighted losses by name; their sum is to be minimized. Otherwise for each image, best first,
            `boxes` (K, 4) in its pixels, `labels` (K,) of ones, `scores` (K,) and `embeddings` (K, dim), which are multiplied
            by the scores if the config says so.

        Raises:
            ArgumentError: images, targets or settings that cannot be; names the image and the field.
            NonFiniteError: in eval mode, what the network computed is not finite; in training mode a loss is NaN then.
        """
        model = self._with(score_threshold=score_threshold, max_detections=max_detections, min_size=min_size, max_size=max_size)
        if model is not self and self.training:
            raise ArgumentError("settings of a single call are for detecting. In training mode, set the model's config.")
        model._require_input(images)
        return self._losses(images, targets) if self.training else model._detect_all(images, None)

    @torch.no_grad()
    def embed(
        self,
        images: Sequence[Tensor],
        boxes: Sequence[Tensor],
        *,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> list[Tensor]:
        """Return the query embeddings of given people. No score weighs them.

        Args:
            images: As for `forward`.
            boxes: For each image (N, 4) x1, y1, x2, y2 in its pixels, of any kind of number; they may leave the image.
            min_size: Instead of the config's, for this call.
            max_size: Instead of the config's, for this call.

        Returns:
            For each image (N, dim).

        Raises:
            ArgumentError: images, boxes or settings that cannot be; or the model is in training mode.
            NonFiniteError: what the network computed is not finite.
        """
        self._require_eval("embed")
        model = self._with(min_size=min_size, max_size=max_size)
        model._require_input(images)
        people = check_query_boxes(boxes, images)
        results: list[Tensor] = [images[0].new_empty(0)] * len(images) if len(images) else []
        for group in model.transform.groups(images):
            scaled = [group.to_network(member, people[index]) for member, index in enumerate(group.members)]
            vectors = self._embed(self.features(group.batch.tensors), scaled)
            require_finite("embeddings", vectors)
            for index, part in zip(group.members, vectors.split([len(each) for each in scaled]), strict=True):
                results[index] = part
        return results

    @torch.no_grad()
    def query_as_gallery(
        self,
        images: Sequence[Tensor],
        boxes: Sequence[Tensor],
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
    ) -> list[Result]:
        """Detect everyone in query images, the person searched for first: what context matching (CBGM) needs.

        The given box is taken as a certain detection: it comes first with score 1, and what overlaps it too far is suppressed.
        No embedding is weighed by its score.

        Args:
            images: As for `forward`.
            boxes: For each image (1, 4), or (4,), x1, y1, x2, y2 in its pixels.
            score_threshold: Instead of the config's, for this call; so are the next three.
            max_detections: See `DetectorConfig`.
            min_size: See `DetectorConfig`.
            max_size: See `DetectorConfig`.

        Returns:
            As `forward` in eval mode.

        Raises:
            ArgumentError: images, boxes or settings that cannot be; or the model is in training mode.
            NonFiniteError: what the network computed is not finite.
        """
        self._require_eval("query_as_gallery")
        model = self._with(score_threshold=score_threshold, max_detections=max_detections, min_size=min_size, max_size=max_size)
        model._require_input(images)
        people = check_query_boxes(boxes, images, one_each=True)
        return model._detect_all(images, people)

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
            ArgumentError: the model was optimized for inference.
        """
        if mode and self.optimized:
            raise ArgumentError("this copy was optimized for inference and cannot be trained; train the original.")
        return super().train(mode)

    def features(self, pixels: Tensor) -> Tensor:
        """Return the stride-16 map. (N, 3, H, W), normalized -> (N, C, H / 16, W / 16)."""
        return self.backbone.trunk(pixels)

    @property
    def family(self) -> str:
        """The detectors that share key layouts (`pretrainps.weights.key_layouts`)."""
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

    def _follow(self, old: Config) -> None:
        """Hand settings on to the modules that hold some. A detector with more such modules extends this."""
        config = self.config
        self.transform.configure(config.min_size, config.max_size)
        self.rpn.configure(config)
        for stage in self._stages():
            stage.size, stage.sampling = config.region_size, config.region_sampling
        self.sampler = RegionSampler(config)
        self.oim_loss.scalar, self.oim_loss.momentum = config.oim_scalar, config.oim_momentum
        if not self.optimized and (old.freeze_stem, old.batch_norm) != (config.freeze_stem, config.batch_norm):
            self._freeze(self.backbone, *(stage.stage for stage in self._stages()))
        if isinstance(getattr(self, "spec", None), ModelSpec):
            self.spec = replace(self.spec, detector=self.detector_spec())

    def _stages(self) -> list[RoIStage]:
        return [module for module in self.children() if isinstance(module, RoIStage)]

    def _known(self, people: list[Tensor], embeddings: Tensor) -> list[Detections]:
        """Return given boxes as detections of score 1."""
        parts = embeddings.split([len(each) for each in people])
        return [Detections(box, box.new_ones(len(box)), part) for box, part in zip(people, parts, strict=True)]

    def _freeze(self, *halves: Backbone) -> None:
        frozen = self.config.batch_norm == "frozen"
        for half in halves:
            stem = "stem" if self.config.freeze_stem and "stem" in half.segments else None
            half.freeze(stem, batch_norm=frozen, statistics_move=not frozen)

    def _require_input(self, images: Sequence[Tensor]) -> None:
        """See that images can be computed with, and that the weights' kind of number goes with what is done."""
        weight = next(self.backbone.parameters())
        check_images(images, self.config.max_size, weight.device)
        if weight.dtype not in (torch.float16, torch.bfloat16):
            return
        if self.training:
            raise ArgumentError(
                f"this model's weights are {weight.dtype}, in which steps of training are lost. Train in float32 "
                "(model.float()), and compute in half precision under torch.autocast, or by loop.precision in a recipe."
            )
        if torch.is_autocast_enabled(weight.device.type):
            raise ArgumentError(f"this model's weights are {weight.dtype} already: leave torch.autocast off.")

    def _require_measurable(self, samples: Samples) -> None:
        """See that the heads' batch norms have something to measure."""
        heads = [module for module in self.children() if not isinstance(module, RoIStage | Backbone)]
        remedy = (
            f"Raise region_samples, which is {self.config.region_samples} an image, or put more images into the batch "
            f"(there are {len(samples.boxes)})."
        )
        require_measurable(len(samples.labels), "region", remedy, *heads)

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
