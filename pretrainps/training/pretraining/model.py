"""Hybrid learning: one backbone learns from detection data (boxes, no identities) and re-ID data (identities, no scenes).

The idea is that of Tian et al., "Divide and Conquer: Hybrid Pre-training for Person Search", AAAI 2024: sub-task data only, a
"hybrid learning paradigm that handles data with different kinds of supervisions". The paper's code was never published. How it
is done here is this package's own design.

Scenes go through the modules of the region detectors: trunk, proposal network, RoIAlign, last stage, softmax box head. Crops go
through the same trunk and the same last stage, and then into the detectors' embedding head, which reads both the input and the
output of the last stage. So a detector can start with everything that is learned: see
`pretrainps.training.finetuning.from_pretraining`.

A detector cuts a person out of a scene's map by RoIAlign, as a square of 14x14, whatever the size of the person and whatever is
next to them. So by default (`crop_features="scene"`) crops are pasted into the batch's scenes, at the size of people there, and
cut out of the scenes' maps by the same RoIAlign (`copy_paste`). With `crop_features="roi"`, and where there are no scenes, the
whole crop is cut out of its own map, which RoIAlign makes a square too. `crop_features="map"` gives a crop's map unchanged to
the last stage, as re-ID networks do.

A network learns slowly to tell people apart, above all in scenes, and quickly to detect them. So a training may begin with
batches of crops only (`PretrainRecipe.crops_only_share`). Two such steps cost less than one step with scenes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors.region.roi_stage import RegionMaps, RoIStage, box_loss
from pretrainps.detectors.transform import SceneTransform
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.hub.publish import saved_config
from pretrainps.images.pixels import require_fractions
from pretrainps.registry.specs import ASSUMED_INPUT, PRETRAINING, InputConvention, ModelSpec
from pretrainps.training.pretraining.alignment import ALIGNMENTS, Alignment, SubTask, TaskFeatures
from pretrainps.training.pretraining.copy_paste import paste
from pretrainps.training.pretraining.describe import describe_backbone
from pretrainps.training.pretraining.heads import DetectionHeads, IdentityHeads
from pretrainps.training.pretraining.map_cells import cells_of_boxes, cells_of_pictures
from pretrainps.training.pretraining.settings import HybridSettings as HybridSettings
from pretrainps.training.pretraining.subtask_batches import CropBatch, Crops, SceneBatch, Scenes, which_set
from pretrainps.training.pretraining.uncertainty import UncertaintyWeights
from pretrainps.weights.unwrap import unwrap

Surroundings = tuple[ImageList, list[Tensor]]
"""Scenes at the size at which the network gets them, and the boxes of the people in each."""
_FEWEST_CROPS = 2
"""Batch norm cannot measure a single crop."""


class HybridModel(nn.Module):
    """A backbone that learns detection and re-ID together, and the heads for both.

    In `DistributedDataParallel` it needs no `find_unused_parameters`: where a data set is absent from a batch, the parameters
    that are not used then get gradients of zero. Buffers are the same on all processes, except for the statistics of batch
    norms: those of the first process are kept.

    Attributes:
        settings: The settings that it was built with.
        convention: How pixels are normalized, which is done inside.
        origin: The spec of the backbone, if it was loaded.
        backbone: The trunk.
        box_stage: The last stage, on regions.
        detection: RPN and box head; `None` without detection data.
        identity: Embedding head and identity losses; `None` without re-ID data.
        alignment: The intra-task alignment.
        weights: The learned weights; `None` if they are fixed.

    Args:
        backbone: Any backbone that splits at stride 16; its two halves are copied.
        settings: Data sets, losses and their weights.
        convention: How pixels are normalized; by default as for the backbone's weights, or RGB with ImageNet's statistics.

    Raises:
        ArgumentError: the settings name no data set.
        UnsupportedModelError: the backbone has no trunk or no last stage; or no batch norm, for `domain_norm`.
    """

    saved_by = (
        "A pre-trained backbone and its heads are saved by pretrainps.training.pretraining.save.save_backbone(model, folder)."
    )

    def __init__(self, backbone: Backbone, settings: HybridSettings, convention: InputConvention | None = None) -> None:
        super().__init__()
        backbone = unwrap(backbone)
        if not isinstance(backbone, Backbone):
            raise UnsupportedModelError(
                f"a {type(backbone).__name__} is no backbone. Give what pretrainps.load or build_backbone returns."
            )
        if not settings.detection_sets and not settings.reid_sets:
            raise ArgumentError("HybridSettings: no data set. Name at least one in detection_sets or reid_sets.")
        config, channels = settings.detector, backbone.channels
        if absent := [name for name in ("c4", "c5") if name not in channels or name not in backbone.segments]:
            raise UnsupportedModelError(
                f"{backbone.arch} has no {' and no '.join(absent)}: pre-training needs a trunk that ends at stride 16 (c4) and "
                "a last stage behind it (c5). Take another backbone."
            )
        self.settings = settings
        self.origin: ModelSpec | None = getattr(backbone, "spec", None)
        self.convention = convention or (self.origin.input if self.origin else ASSUMED_INPUT)
        self.transform = SceneTransform(self.convention, config.min_size, config.max_size)
        self.backbone, last = backbone.split()
        self.alignment = build_alignment(settings, channels)
        for half in (self.backbone, last):
            self.alignment.prepare(half)
        self.box_stage = RoIStage(last, size=config.region_size, sampling=config.region_sampling)
        self.detection = DetectionHeads(channels, settings) if settings.detection_sets else None
        self.identity = IdentityHeads(channels, settings) if settings.reid_sets else None
        learned = settings.learned_weights() if settings.weights == "learned" else {}
        self.weights = UncertaintyWeights(learned, settings.fixed_weights()) if learned else None
        frozen = config.batch_norm == "frozen"
        for half in (self.backbone, last):
            stem = "stem" if config.freeze_stem and "stem" in half.segments else None
            half.freeze(stem, batch_norm=frozen, statistics_move=not frozen)

    def forward(
        self,
        detection: Mapping[str, Scenes] | None = None,
        reid: Mapping[str, Crops] | None = None,
        progress: float = 1.0,
    ) -> dict[str, Tensor]:
        """Return the weighted losses of a batch; their sum is to be minimized.

        Eval mode changes only the batch norms, the number of proposals, and that the tables of the identity loss stay as they
        are. Regions for the losses and places for the crops are drawn at random in both modes.

        Args:
            detection: For each detection data set that is in the batch, images and targets as detectors take them; of the
                targets, `boxes` (P, 4) and, if it is there, `ignore` (M, 4) play a part.
            reid: For each re-ID data set that is in the batch, crops (N, 3, h, w) in 0..1, ids (N,) and cameras (N,), which
                play no part. A single crop in all is left out, for batch norm cannot measure it.
            progress: Share of the training that is done, 0..1, not counting steps of crops only. Alignment grows with it, and
                crops are pasted from `settings.pasted_from` on.

        Returns:
            Of `loss_rpn_cls`, `loss_rpn_reg`, `loss_box_cls`, `loss_box_reg`, `loss_identity`, `loss_triplet`,
            `loss_align_detection_image`, `loss_align_detection_instance`, `loss_align_reid_image`, `loss_align_reid_instance`
            those that the settings ask for, the same in every step. A loss without data in the batch is 0.

        Raises:
            ArgumentError: no scene and no crop at all, an unknown data set, or data that are not valid; names the data set.
        """
        settings = self.settings
        scenes = SceneBatch.join(detection or {}, settings.detection_sets, settings.detector.max_size)
        crops = CropBatch.join(reid or {}, settings.reid_sets, next(self.parameters()).device)
        if not scenes.images and not len(crops.images):
            raise ArgumentError("a batch without any scene or crop: nothing can be learned from it. Skip it.")
        if len(crops.images) < _FEWEST_CROPS:
            crops = crops.emptied()
        losses: dict[str, Tensor] = {}
        around: Surroundings | None = None
        if self.detection is not None and scenes.images:
            batch, targets = self._resized(scenes)
            losses |= self._scene_losses(self.detection, batch, targets, scenes.counts, progress)
            if settings.crop_features == "scene" and progress >= settings.pasted_from:
                around = batch, [target["boxes"] for target in targets]
        if self.identity is not None:
            losses |= self._crop_losses(self.identity, crops, around, progress)
        weighted = self._weighted(losses)
        idle = not all((*scenes.counts, *crops.counts)) or self.alignment.has_parameters_per_set
        if idle:  # parameters may have no gradient: a data set may even have scenes, but no region that counts
            nothing = _nothing(self)
            weighted = {name: weighted.get(name, 0.0) + nothing for name in self.loss_names()}
        return weighted

    def loss_names(self) -> list[str]:
        """Return the names of what `forward` returns, the same whatever is in a batch."""
        detection = ["loss_rpn_cls", "loss_rpn_reg", "loss_box_cls", "loss_box_reg", *self.alignment.names("detection")]
        reid = ["loss_identity", *(["loss_triplet"] if self.settings.identity.triplet != "none" else [])]
        reid += self.alignment.names("reid")
        return (detection if self.detection is not None else []) + (reid if self.identity is not None else [])

    @torch.no_grad()
    def embed(self, crops: Tensor, dataset: str | None = None) -> Tensor:
        """Return embeddings of crops, in eval mode. (N, 3, h, w) in 0..1 -> (N, dim), rows of length 1.

        Args:
            crops: All of one size.
            dataset: Their re-ID data set. Only domain-specific batch norm uses it; without a name it takes the mean of all.

        Raises:
            ArgumentError: the model was built without re-ID data, or for other data sets;
                or is in training mode; or the crops are not RGB in 0..1.
        """
        sets = list(self.settings.reid_sets)
        if self.identity is None or (dataset is not None and dataset not in sets):
            raise ArgumentError(
                f"this model was not trained to embed {dataset or 'crops'}. Re-ID data sets: {', '.join(sets) or 'none'}."
            )
        if self.training:
            raise ArgumentError("embed needs the model in eval mode: call model.eval() first.")
        counts = [len(crops) if name == dataset else 0 for name in sets]
        require_fractions([crops], "the batch of crops")
        with self.alignment.rows("reid", counts) if dataset else contextlib.nullcontext():
            pooled = self._whole_crops(crops)[1].pooled(self.settings.detector.pooling)
        return self.identity.embedding_head(pooled)  # type: ignore[no-any-return]

    @torch.no_grad()
    def plain_backbone(self) -> Backbone:
        """Return a copy of the backbone alone, whole and in eval mode, with one batch norm where there were several."""
        with torch.random.fork_rng(devices=[]):  # weights that are replaced at once must not move the run's generators
            whole = build_backbone(self.backbone.arch, self.backbone.options())
        halves = (self.backbone, self.box_stage.stage)
        state = {key: value for half in halves for key, value in self.alignment.plain_state(half).items()}
        whole.load_state_dict({key: value.detach().clone() for key, value in state.items()}, strict=True)
        return whole.eval()

    def backbone_spec(self) -> ModelSpec:
        """Return what is known of the pre-trained backbone."""
        return describe_backbone(self.backbone, self.settings, self.convention, self.origin)

    def checkpoint_config(self) -> dict[str, Any]:
        """Return what a checkpoint is loaded as: the backbone."""
        return {**saved_config(self.plain_backbone(), self.backbone_spec()), "layout": PRETRAINING}

    def heads_state(self) -> dict[str, Tensor]:
        """Return all heads under the names `rpn.*`, `box_head.*`, `embedding_head.*`, as far as they were learned."""
        return {**self.detection_state(), **self.embedding_state()}

    def detection_state(self) -> dict[str, Tensor]:
        """Return the heads of detection under the names `rpn.*`, `box_head.*`; nothing without detection data."""
        return self.detection.state_dict() if self.detection is not None else {}

    def embedding_state(self) -> dict[str, Tensor]:
        """Return the embedding head under the names `embedding_head.*`; nothing without re-ID data."""
        if self.identity is None:
            return {}
        return {f"embedding_head.{key}": value for key, value in self.identity.embedding_head.state_dict().items()}

    def enable_gradient_checkpointing(self, enabled: bool = True) -> Self:
        """Recompute the backbone's segments in the backward pass: less memory, more time, the same result.

        Raises:
            ArgumentError: each data set has batch norms of its own, and a recomputation would not know which to use.
        """
        if enabled and self.alignment.has_parameters_per_set:
            raise ArgumentError(
                f"gradient checkpointing does not work with alignment.kind={self.settings.alignment.kind!r}. Leave one out."
            )
        for half in (self.backbone, self.box_stage.stage):
            half.enable_gradient_checkpointing(enabled)
        return self

    def _resized(self, scenes: SceneBatch) -> tuple[ImageList, list[dict[str, Tensor]]]:
        """Return the scenes as the network sees them, with targets to match."""
        batch, targets = self.transform(scenes.images, scenes.targets)
        for target, image, size in zip(targets, scenes.images, batch.image_sizes, strict=True):
            target["ignore"] = resize_boxes(target["ignore"], list(image.shape[-2:]), list(size))
        return batch, targets

    def _scene_losses(
        self, heads: DetectionHeads, batch: ImageList, targets: list[dict[str, Tensor]], counts: list[int], progress: float
    ) -> dict[str, Tensor]:
        with self.alignment.rows("detection", counts):
            features = self.backbone.trunk(batch.tensors)
        proposals, losses = heads.rpn.propose(batch, features, targets)
        samples = heads.sampler(proposals, targets)
        regions = [len(boxes) for boxes in samples.boxes]
        image_set = which_set(counts, features.device)
        region_set = image_set.repeat_interleave(torch.tensor(regions, device=features.device))
        with self.alignment.rows("detection", [sum(part) for part in _parted(regions, counts)]):
            maps = self.box_stage(features, samples.boxes, with_c4=False)
        pooled = maps.pooled(heads.pooling)["c5"]
        logits, deltas = heads.box_head(pooled)
        # without any region, where everything is to be ignored, a mean would be NaN, and the last stage was not run
        nothing = len(logits) == 0
        losses["loss_box_cls"] = logits.sum() + _nothing(self.box_stage) if nothing else F.cross_entropy(logits, samples.labels)
        losses["loss_box_reg"] = box_loss(deltas, samples)
        people = samples.labels > 0
        inside = cells_of_pictures(batch.image_sizes, features, self.box_stage.scale)
        aligned = TaskFeatures(features, inside, image_set, pooled[people], region_set[people])
        losses.update(self.alignment("detection", aligned, progress))
        return losses

    def _crop_losses(
        self, heads: IdentityHeads, crops: CropBatch, around: Surroundings | None, progress: float
    ) -> dict[str, Tensor]:
        if not len(crops.images):  # the loss is computed all the same: its tables wait for every process
            return heads.loss(crops.images.new_zeros(0, heads.embedding_head.dim), crops.ids, crops.counts)  # type: ignore[no-any-return]
        sets = map_sets = which_set(crops.counts, crops.images.device)
        if around is not None:
            people, most = self.transform.normalize(crops.images), self.settings.crops_per_scene
            scenes = paste(people, crops.counts, *around, per_scene=most)
            with self.alignment.rows("reid", scenes.counts):
                features = self.backbone.trunk(scenes.images.tensors)
            with self.alignment.rows("reid", crops.counts):
                maps = self.box_stage(features, scenes.boxes, with_c4=True)
            maps = maps.at(scenes.order.argsort())
            inside = cells_of_boxes(scenes.boxes, features, self.box_stage.scale)
            map_sets = which_set(scenes.counts, features.device)
        else:
            with self.alignment.rows("reid", crops.counts):
                features, maps = self._whole_crops(crops.images)
            inside = torch.ones_like(features[:, 0], dtype=torch.bool)
        pooled = maps.pooled(self.settings.detector.pooling)
        losses: dict[str, Tensor] = heads.loss(heads.embedding_head(pooled), crops.ids, crops.counts)
        losses.update(self.alignment("reid", TaskFeatures(features, inside, map_sets, pooled["c5"], sets), progress))
        return losses

    def _whole_crops(self, crops: Tensor) -> tuple[Tensor, RegionMaps]:
        """Return the trunk's maps of crops by themselves, and the last stage's input and output."""
        features = self.backbone.trunk(self.transform.normalize(crops))
        if self.settings.crop_features == "map":
            return features, RegionMaps(features, self.box_stage.stage.last_stage(features))
        return features, self.box_stage.whole(features, (crops.shape[-2], crops.shape[-1]))

    def _weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        fixed = self.settings.fixed_weights()
        weight = {name: fixed.get(name, self.settings.alignment.weight) for name in losses}
        weighted = {name: weight[name] * loss for name, loss in losses.items()}
        if self.weights is not None:
            weighted |= self.weights({name: loss for name, loss in losses.items() if name in self.weights.factors})
        return weighted


def build_alignment(settings: HybridSettings, channels: Mapping[str, int]) -> Alignment:
    """Build the alignment that the settings name; `none` if no sub-task has several data sets.

    Args:
        settings: Which alignment, and between which data sets.
        channels: Channels of the backbone's maps, by name.
    """
    sets: dict[SubTask, int] = {"detection": len(settings.detection_sets), "reid": len(settings.reid_sets)}
    kind = settings.alignment.kind if max(sets.values()) > 1 else "none"
    return ALIGNMENTS[kind](sets, channels, settings.alignment)


def _nothing(model: nn.Module) -> Tensor:
    """Return 0, of which every parameter's gradient is 0."""
    return 0.0 * torch.stack([parameter.sum() for parameter in model.parameters() if parameter.requires_grad]).sum()


def _parted(values: list[int], counts: list[int]) -> list[list[int]]:
    """Split a list into parts of given lengths."""
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    return [values[end - count : end] for end, count in zip(ends, counts, strict=True)]
