"""The settings of region detectors: proposals, regions, and identities learned by OIM, with the papers' values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from pretrainps.detectors.config import DetectorConfig

_FINGERPRINT_ORDER = (
    "num_identities",
    "queue_size",
    "identity_numbering",
    "embedding_dim",
    "oim_scalar",
    "oim_momentum",
    "min_size",
    "max_size",
    "anchor_sizes",
    "anchor_ratios",
    "rpn_box_loss",
    "rpn_positive_iou",
    "rpn_negative_iou",
    "rpn_samples",
    "rpn_positive_fraction",
    "rpn_candidates_train",
    "rpn_candidates",
    "rpn_proposals_train",
    "rpn_proposals",
    "rpn_nms_iou",
    "region_size",
    "region_sampling",
    "region_samples",
    "region_positive_fraction",
    "region_positive_iou",
    "region_negative_iou",
    "pooling",
    "score_threshold",
    "nms_iou",
    "max_detections",
    "weigh_by_score",
    "freeze_stem",
    "batch_norm",
    "weight_rpn_cls",
    "weight_rpn_reg",
    "weight_box_cls",
    "weight_box_reg",
    "weight_box_reid",
)
"""The order of the settings in the fingerprints that version 0.1.0 made; a detector's own follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionConfig(DetectorConfig):
    """The settings that all region detectors have; defaults are those on which the papers' code agrees.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    in_weights: ClassVar[frozenset[str]] = DetectorConfig.in_weights | {
        "queue_size",
        "embedding_dim",
        "anchor_sizes",
        "anchor_ratios",
    }
    at_most: ClassVar[tuple[tuple[str, str], ...]] = (
        ("rpn_negative_iou", "rpn_positive_iou"),
        ("region_negative_iou", "region_positive_iou"),
        *DetectorConfig.at_most,
    )
    at_least: ClassVar[Mapping[str, tuple[int, str]]] = {"embedding_dim": (2, "for two maps share it")}

    queue_size: int = 5000
    """People without an identity that the circular queue remembers: 5000 for CUHK-SYSU, 500 for PRW."""
    identity_numbering: Literal["contiguous", "original"] = "contiguous"
    """`contiguous`: identities are 0 .. num_identities - 1. `original`: PRW's own numbers minus 1, of which two lie beyond the
    482 rows that NAE and SeqNet reserve, and stand for columns of the queue; needed to repeat their training exactly."""
    embedding_dim: int = 256
    """Length of an embedding."""
    oim_scalar: float = 30.0
    """Factor on similarities in the identity loss."""
    oim_momentum: float = 0.5
    """Share of an identity's old vector that stays when the identity is seen again."""

    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Side lengths of the anchors in pixels of the resized image,"""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """and height / width of each."""
    rpn_box_loss: Literal["l1", "smooth_l1"] = "l1"
    """`l1` is torchvision 0.4's, which NAE and SeqNet were trained with; `smooth_l1` (beta 1/9) is that of 0.8 and later."""
    rpn_positive_iou: float = 0.7
    """An anchor is positive at this overlap with a person,"""
    rpn_negative_iou: float = 0.3
    """and negative below this one; between them it is not used."""
    rpn_samples: int = 256
    """Anchors sampled per image for the loss,"""
    rpn_positive_fraction: float = 0.5
    """at most this share of them positive."""
    rpn_candidates_train: int = 12000
    """Best anchors before non-maximum suppression, in training"""
    rpn_candidates: int = 6000
    """and at test time."""
    rpn_proposals_train: int = 2000
    """Proposals after it, in training"""
    rpn_proposals: int = 300
    """and at test time."""
    rpn_nms_iou: float = 0.7
    """Overlap above which the weaker of two proposals goes."""

    region_size: int = 14
    """Height and width of a region cut from the stride-16 map."""
    region_sampling: int = 2
    """RoIAlign's sampling points along each side of a bin."""
    region_samples: int = 128
    """Proposals sampled per image for the loss,"""
    region_positive_fraction: float = 0.5
    """at most this share of them positive."""
    region_positive_iou: float = 0.5
    """A proposal is positive at this overlap with a person,"""
    region_negative_iou: float = 0.5
    """and negative below this one; between them it is not used."""
    pooling: Literal["max", "average"] = "max"
    """How a region's map becomes a vector."""

    nms_iou: float = 0.4
    """Overlap above which the weaker of two detections goes."""

    weight_rpn_cls: float = 1.0
    """Weight of the loss of objectness,"""
    weight_rpn_reg: float = 1.0
    """of the proposals' anchors,"""
    weight_box_cls: float = 1.0
    """of person or not,"""
    weight_box_reg: float = 10.0
    """of the box,"""
    weight_box_reid: float = 1.0
    """and of the identity."""

    def _fingerprint_order(self) -> list[str]:
        names = [each.name for each in fields(self)]
        place = {self.former_names.get(name, name): index for index, name in enumerate(_FINGERPRINT_ORDER)}
        return sorted(names, key=lambda name: place.get(name, len(place)))
