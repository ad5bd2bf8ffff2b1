"""What every person-search detector promises, whatever it is made of: images in, detections with embeddings out.

The contract is torchvision's: `model(images, targets)` returns losses in training and detections otherwise. How they come about
is the business of a family of detectors, such as `pretrainps.detectors.region`, and of each detector in it.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from pretrainps.backbones import Backbone
from pretrainps.detectors.by_overlap import embeddings_by_overlap, query_first
from pretrainps.detectors.config import DetectorConfig
from pretrainps.detectors.configuring import ConfigurableModel
from pretrainps.detectors.finite import require_finite
from pretrainps.detectors.found import Detections
from pretrainps.detectors.transform import Group, SceneTransform
from pretrainps.detectors.validation import PERSON, check_images, check_precision, check_query_boxes, check_targets
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.registry.specs import DetectorSpec, InputConvention, ModelSpec
from pretrainps.weights import LoadReport

Config = TypeVar("Config", bound=DetectorConfig)
Result = dict[str, Tensor]


class PersonSearchDetector(ConfigurableModel[Config]):
    """Base of the detectors.

    A subclass sets `kind` and `backbone`, says `embedding_dim`, and computes on batches of equally large images:
    `_batch_losses`, `_detect_batch` and, unless it declares `embeds_boxes = False`, `_embed_batch`. Checks, resizing, grouping
    by size, settings of one call, and scaling boxes back are done here.

    Attributes:
        kind: The detector's name, a key of `DETECTORS`.
        config: Its settings. Another config with the same weights may be set, and takes effect at once; or see `configured`.
        convention: How its pixels go in; done inside.
        backbone: What it was built on, as far as it runs on whole images.
        optimized: Whether this is a copy that `optimize_for_inference` made.
        spec: What was loaded; set by `pretrainps.load` and `pretrainps.build_detector`.
        load_report: How the file fitted; set by `pretrainps.load`.

    Args:
        config: The detector's settings.
        convention: How the backbone's weights want their pixels.
    """

    kind: str
    backbone: Backbone
    embeds_boxes: ClassVar[bool] = True
    """Whether it can embed any given box. One that embeds only what it detects answers `embed` and `query_as_gallery` with the
    detection that overlaps the given box best."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Modules that only losses need; a written graph goes without them."""
    unused_by_embed: ClassVar[tuple[str, ...]] = ()
    """Modules that detecting needs and embedding does not; a graph that only embeds goes without them."""
    backbone_places: ClassVar[tuple[str, ...]] = ("backbone.",)
    """What stands before the backbone's own keys in the detector's state dict."""
    optimized = False
    spec: ModelSpec
    load_report: LoadReport

    def __init__(self, config: Config, convention: InputConvention) -> None:
        super().__init__(config)
        self.convention = convention
        self.transform = SceneTransform(convention, config.min_size, config.max_size)

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Length of an embedding, as `forward` and `embed` return it."""

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

        A detector that cannot embed a given box (`embeds_boxes` is False) returns the embedding of the detection, of any score,
        that overlaps the box best; where none overlaps it, a row of zeros, which is similar to nobody.

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
        query_boxes = check_query_boxes(boxes, images)
        if not self.embeds_boxes:
            return embeddings_by_overlap(model._everyone(images), query_boxes)
        results: list[Tensor] = [images[0].new_empty(0)] * len(images) if len(images) else []
        for group in model.transform.groups(images):
            scaled = [group.to_network(member, query_boxes[index]) for member, index in enumerate(group.members)]
            vectors = model._embed_batch(group.batch, scaled)
            self._require_length(vectors, sum(map(len, scaled)))
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

        The given box is taken as a certain detection: it comes first with score 1, and what overlaps it too far is left out.
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
        query_boxes = check_query_boxes(boxes, images, one_each=True)
        if self.embeds_boxes:
            return model._detect_all(images, query_boxes)
        found = model._with(score_weighting=False)._detect_all(images, None)
        vectors = embeddings_by_overlap(model._everyone(images), query_boxes)
        return [query_first(*each) for each in zip(found, query_boxes, vectors, strict=True)]

    def optimize_for_inference(self, *, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Self:
        """Return a copy that answers faster; it can no longer be trained or saved.

        In float32 its answers are the same but for rounding. Heads, boxes and scores are computed in float32 in any case.

        Args:
            dtype: Precision of the large parts: float32, or bfloat16 or float16 where the device is fast at it.
            compiled: Compile what can be compiled with `torch.compile` too; the first image then takes a minute.

        Raises:
            UnsupportedModelError: this detector has no such copy.
        """
        fast = self._optimized(dtype, compiled=compiled)
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

    @property
    def family(self) -> str:
        """The detectors that share key layouts (`pretrainps.detectors.key_layouts`)."""
        return f"{self.kind}-{self.backbone.family}"

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the tensors of the backbone that the detector was built on, under the backbone's own names."""
        return self.backbone_part(self.state_dict())

    def backbone_part(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the backbone's tensors out of a state dict of the detector, under the backbone's own names."""
        places = self.backbone_places
        return {key.removeprefix(place): value for place in places for key, value in state.items() if key.startswith(place)}

    def detector_spec(self) -> DetectorSpec:
        """Return what rebuilds this detector on its backbone."""
        return DetectorSpec(kind=self.kind, config=self.config.non_defaults())

    def enable_gradient_checkpointing(self, enabled: bool = True) -> Self:
        """Recompute the backbone's segments in the backward pass: less memory, more time, the same result."""
        for module in self.modules():
            if isinstance(module, Backbone):
                module.enable_gradient_checkpointing(enabled)
        return self

    def require_batch_size(self, images: int) -> None:
        """See that the detector can be trained with batches of so many images.

        Raises:
            ArgumentError: it cannot; says what to raise.
        """

    @abstractmethod
    def _batch_losses(self, batch: ImageList, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the losses of a batch before they are weighted; the config's `weight_x` is the weight of `loss_x`.

        Args:
            batch: (N, 3, H, W), normalized and padded, with each image's size before padding.
            targets: For each image `boxes` (P, 4) in pixels of the batch and `ids` (P,).
        """

    @abstractmethod
    def _detect_batch(self, batch: ImageList, query_boxes: list[Tensor] | None) -> list[Detections]:
        """Detect in images of one padded size.

        Args:
            batch: (N, 3, H, W), normalized and padded, with each image's size before padding.
            query_boxes: For each image the (1, 4) box of a person who is known to be there, or `None`: see `query_as_gallery`.
                A detector that does not embed boxes always gets `None`.
        """

    def _embed_batch(self, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        """Return query embeddings of all images' boxes. N x (R_i, 4) -> (R, dim)."""
        raise NotImplementedError(f"{type(self).__name__} has no _embed_batch, and does not declare embeds_boxes = False")

    def _optimized(self, dtype: torch.dtype, *, compiled: bool) -> Self:
        """Return a copy rebuilt for inference. Here: one that computes what the detector does, in float32."""
        if dtype is not torch.float32 or compiled:
            raise UnsupportedModelError(
                f"{type(self).__name__} is computed in float32 and not compiled. Leave precision, dtype and compiled out."
            )
        return copy.deepcopy(self).float().eval().requires_grad_(False)

    @property
    def _identities_end(self) -> int:
        """The first identity that a target cannot have."""
        return self.config.num_identities

    @torch.no_grad()
    def _detect_all(self, images: Sequence[Tensor], query_boxes: list[Tensor] | None) -> list[Result]:
        """Detect in groups of equally large images, with the box of a person known to be there in each, or none."""
        results: list[Result] = [{}] * len(images)
        for group in self.transform.groups(images):
            scaled = query_boxes and [
                group.to_network(member, query_boxes[index]) for member, index in enumerate(group.members)
            ]
            for member, detections in enumerate(self._detect_batch(group.batch, scaled)):
                results[group.members[member]] = self._result(group, member, detections)
        return results

    def _everyone(self, images: Sequence[Tensor]) -> list[Result]:
        """Detect at any score, without weighting embeddings: whom a given box can be compared with."""
        return self._with(score_threshold=0.0, score_weighting=False)._detect_all(images, None)

    def _losses(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None) -> dict[str, Tensor]:
        batch, scaled = self.transform(list(images), check_targets(targets, images, self._identities_end))
        losses = self._batch_losses(batch, scaled)
        return {name: getattr(self.config, name.replace("loss_", "weight_")) * value for name, value in losses.items()}

    def _follow(self, old: Config) -> None:
        """Hand settings on to the modules that hold some. A detector with more such modules extends this."""
        config = self.config
        self.transform.configure(config.min_size, config.max_size)
        if not self.optimized and (old.freeze_stem, old.batch_norm) != (config.freeze_stem, config.batch_norm):
            self._freeze()
        if isinstance(getattr(self, "spec", None), ModelSpec):
            self.spec = replace(self.spec, detector=self.detector_spec())

    def _freeze(self) -> None:
        """Freeze in all backbones what the config says. A subclass calls it once all of them are there."""
        frozen = self.config.batch_norm == "frozen"
        for part in self.modules():
            if isinstance(part, Backbone):
                stem = "stem" if self.config.freeze_stem and "stem" in part.segments else None
                part.freeze(stem, batch_norm=frozen, statistics_move=not frozen)

    def _require_input(self, images: Sequence[Tensor]) -> None:
        """See that images can be computed with, and that the weights' kind of number goes with what is done."""
        weight = next(self.backbone.parameters())
        check_images(images, self.config.max_size, weight.device)
        check_precision(weight, training=self.training)

    def _require_eval(self, what: str) -> None:
        if self.training:
            raise ArgumentError(f"{what} needs the model in eval mode: call model.eval() first.")

    def _require_length(self, vectors: Tensor, rows: int) -> None:
        """See that embeddings are as many and as long as the detector says: what keeps them relies on it."""
        if torch.compiler.is_exporting() or tuple(vectors.shape) == (rows, self.embedding_dim):
            return
        raise UnsupportedModelError(
            f"{type(self).__name__} returned embeddings {tuple(vectors.shape)} for {rows} people, but its embedding_dim is "
            f"{self.embedding_dim}. This is a mistake in the detector {self.kind!r}: tell its authors."
        )

    def _result(self, group: Group, member: int, found: Detections) -> Result:
        embeddings = found.embeddings
        if embeddings is None:
            embeddings = found.boxes.new_zeros(len(found.boxes), 0)
        self._require_length(embeddings, len(found.boxes))
        return {
            "boxes": group.to_image(member, found.boxes),
            "labels": torch.full((len(found.boxes),), PERSON, dtype=torch.int64, device=found.boxes.device),
            "scores": found.scores,
            "embeddings": embeddings,
        }
