"""Settings of hybrid pre-training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pretrainps.detectors.region import RegionConfig
from pretrainps.errors import ArgumentError
from pretrainps.losses.identity import IdentitySettings
from pretrainps.training.pretraining.alignment import AlignmentSettings
from pretrainps.training.pretraining.uncertainty import LossKind

_KINDS: Mapping[str, LossKind] = {
    "loss_rpn_cls": "classification",
    "loss_rpn_reg": "regression",
    "loss_box_cls": "classification",
    "loss_box_reg": "regression",
    "loss_identity": "classification",
}
"""The losses with weights that can be learned. They are likelihoods; a triplet loss and alignment losses are not."""


def _plain_detector() -> RegionConfig:
    return RegionConfig(num_identities=1, freeze_stem=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridSettings:
    """Data sets, losses and their weights.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    detection_sets: tuple[str, ...] = ()
    """Names of the detection data sets. Empty: pre-training on re-ID only."""
    reid_sets: Mapping[str, int] = field(default_factory=dict)
    """From the names of the re-ID data sets to their numbers of people. Empty: pre-training on detection only."""
    detector: RegionConfig = field(default_factory=_plain_detector)
    """The settings that pre-training shares with the detectors: sizes of scenes, proposals, regions, pooling, embedding, and
    the weights among the losses of detection. Its number of identities, its queue and its settings for test time play no part.
    The defaults are the papers' values, except that the stem is trained too."""
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    """Settings of the identity losses."""
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    """Settings of the intra-task alignment."""
    crop_features: Literal["scene", "roi", "map"] = "scene"
    """How crops are given to the last stage. `pretrainps.training.pretraining.model` explains it."""
    crops_per_scene: int = 12
    """`scene`: largest number of crops that are pasted into one scene."""
    pasted_from: float = 0.0
    """`scene`: share of the training, not counting steps of crops only, after which crops are pasted. Before it, crops are used
    as with `roi`."""
    ignored_from: float = 0.5
    """Anchors and proposals that a region to ignore covers by this share or more are no background."""

    weights: Literal["fixed", "learned"] = "fixed"
    """`learned`: by uncertainty, starting from the fixed weights (see `pretrainps.training.pretraining.uncertainty`)."""
    weight_detection: float = 1.0
    """Weight of all losses of detection, multiplied with those in `detector`."""
    weight_identity: float = 1.0
    """Weight of the identity loss."""
    weight_triplet: float = 1.0
    """Weight of the triplet loss."""

    def __post_init__(self) -> None:
        if len(set(self.detection_sets)) < len(self.detection_sets):
            raise ArgumentError(f"HybridSettings.detection_sets names one twice: {', '.join(self.detection_sets)}.")
        for name, people in self.reid_sets.items():
            if people < 2:
                raise ArgumentError(
                    f"HybridSettings.reid_sets: {name!r} has {people} identities, but a person can only be told from "
                    "another one: at least 2 are needed. Check the root that it was read from, or leave the data set out."
                )
        for field_name, choices in (("crop_features", ("scene", "roi", "map")), ("weights", ("fixed", "learned"))):
            if getattr(self, field_name) not in choices:
                raise ArgumentError(
                    f"HybridSettings.{field_name} must be one of {', '.join(choices)}, not {getattr(self, field_name)!r}."
                )
        if self.crops_per_scene < 1:
            raise ArgumentError(f"HybridSettings.crops_per_scene must be at least 1, not {self.crops_per_scene}.")
        if not 0.0 <= self.pasted_from <= 1.0:
            raise ArgumentError(f"HybridSettings.pasted_from must be in 0..1, not {self.pasted_from}.")
        if not 0.0 < self.ignored_from <= 1.0:
            raise ArgumentError(f"HybridSettings.ignored_from must be above 0 and at most 1, not {self.ignored_from}.")
        for field_name in ("weight_detection", "weight_identity", "weight_triplet"):
            if not 0.0 <= getattr(self, field_name) < math.inf:
                raise ArgumentError(
                    f"HybridSettings.{field_name} must be a number of at least 0, not {getattr(self, field_name)}."
                )

    def fixed_weights(self) -> dict[str, float]:
        """Return each loss's weight by name, without alignment losses."""
        detector = self.detector
        return {
            "loss_rpn_cls": self.weight_detection * detector.weight_rpn_cls,
            "loss_rpn_reg": self.weight_detection * detector.weight_rpn_reg,
            "loss_box_cls": self.weight_detection * detector.weight_box_cls,
            "loss_box_reg": self.weight_detection * detector.weight_box_reg,
            "loss_identity": self.weight_identity,
            "loss_triplet": self.weight_triplet,
        }

    def learned_weights(self) -> dict[str, LossKind]:
        """Return the losses of this pre-training with weights that can be learned, and the kind of each."""
        wanted = {name: self.reid_sets if name == "loss_identity" else self.detection_sets for name in _KINDS}
        return {name: kind for name, kind in _KINDS.items() if wanted[name]}
