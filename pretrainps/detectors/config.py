"""What all C4 detectors can be told, with the papers' values as defaults."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, Self

from pretrainps.errors import ArgumentError, RegistryError
from pretrainps.registry.parse import build_record, literal_choices


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Fields that every detector has; defaults are those on which NAE and SeqNet agree.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    in_weights: ClassVar[frozenset[str]] = frozenset(
        ("num_identities", "queue_size", "embedding_dim", "anchor_sizes", "anchor_ratios")
    )
    """Fields that a built model's weights depend on, by their shapes or by what they mean."""

    num_identities: int
    """People with identities in the training set: rows of the lookup table."""
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

    min_size: int = 900
    """Length in pixels that an image's shorter side is resized to,"""
    max_size: int = 1500
    """unless its longer side would then be longer than this."""

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

    score_threshold: float = 0.5
    """A detection must score higher."""
    nms_iou: float = 0.4
    """Overlap above which the weaker of two detections goes."""
    max_detections: int = 300
    """Detections kept per image."""
    weigh_by_score: bool = True
    """Multiply a gallery embedding by its detection score ("confidence weighted similarity"); queries never are."""

    freeze_stem: bool = True
    """Do not learn the backbone's stem (its batch norm goes on measuring), where the backbone has one of its own."""
    batch_norm: Literal["live", "frozen"] = "live"
    """`frozen` keeps statistics, scale and shift of every batch norm in the backbone: for batches too small to measure."""

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

    def __post_init__(self) -> None:
        for each in fields(self):
            if choices := literal_choices(str(each.type)):
                self._require(each.name, choices.__contains__, f"one of {', '.join(map(repr, choices))}")
            elif each.type == "bool":
                self._require(each.name, lambda value: isinstance(value, bool), "True or False")
        for name in self._numbers("_iou", "_fraction", "score_threshold", "_momentum"):
            self._require(name, lambda value: 0.0 <= value <= 1.0, "in 0..1")
        for name in self._numbers("weight_", "oim_scalar"):
            self._require(name, lambda value: 0.0 <= value < math.inf, "a number of at least 0")
        for name in self._numbers("_identities", "_dim", "_size", "_samples", "_sampling", "_candidates", "_proposals", "max_"):
            self._require(name, lambda value: type(value) is int and value >= 1, "a whole number of at least 1")
        self._require("embedding_dim", lambda value: value >= 2, "at least 2, for two maps share it")
        for name in ("anchor_sizes", "anchor_ratios"):
            self._require(name, lambda value: len(value) > 0 and min(value) > 0, "positive numbers, at least one")
        limits = (
            ("rpn_negative_iou", "rpn_positive_iou"),
            ("region_negative_iou", "region_positive_iou"),
            ("min_size", "max_size"),
        )
        for lower, upper in limits:
            self._require(lower, getattr(self, upper).__ge__, f"at most {upper} ({getattr(self, upper)})")

    def _require(self, name: str, holds: Callable[[Any], bool], what: str) -> None:
        try:
            fine = holds(getattr(self, name))
        except TypeError:  # not even comparable
            fine = False
        if not fine:
            raise ArgumentError(f"{type(self).__name__}.{name} must be {what}, not {getattr(self, name)!r}.")

    def _numbers(self, *pieces: str) -> list[str]:
        """Return the fields, subclasses' included, whose names have one of the pieces and whose values are single."""
        names = [each.name for each in fields(self) if any(piece in each.name for piece in pieces)]
        return [name for name in names if not isinstance(getattr(self, name), tuple)]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from plain values, as a registry entry or `config.json` holds them.

        Raises:
            ArgumentError: a field is missing, unknown (names the nearest), of the wrong type or has an impossible value.
        """
        known = [each.name for each in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ArgumentError(f"{cls.__name__} has no field {name!r}.{hint} There are: {', '.join(known)}.")
        try:
            return build_record(cls, values, cls.__name__)
        except RegistryError as error:
            raise ArgumentError(str(error)) from error

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return the settings of a built model with some changed.

        Args:
            changes: Fields and their values, all taken over at once.

        Raises:
            ArgumentError: a field is unknown (names the nearest), belongs to the weights, or cannot have the value.
        """
        if not isinstance(changes, Mapping):
            raise ArgumentError(f"settings: expected a mapping of fields to values, not {type(changes).__name__}.")
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        found = self.from_mapping({**values, **changes})
        self.require_same_weights(found)
        return found

    def require_same_weights(self, other: DetectorConfig) -> None:
        """See that weights built with these settings can go by others.

        Raises:
            ArgumentError: the others are of another detector, or have a field that belongs to the weights; names it.
        """
        if type(other) is not type(self):
            raise ArgumentError(f"config must be a {type(self).__name__}, as the model was built, not {type(other).__name__}.")
        for name in sorted(self.in_weights):
            now, then = getattr(self, name), getattr(other, name)
            if now != then:
                raise ArgumentError(
                    f"{name} belongs to the weights, which were made with {now!r}: {then!r} needs a new detector "
                    f"(pretrainps.build_detector(..., config={{{name!r}: ...}})) and training."
                )

    def changes(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, as plain values: what `from_mapping` needs."""
        changed: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.default is MISSING or value != each.default:
                changed[each.name] = list(value) if isinstance(value, tuple) else value
        return changed
