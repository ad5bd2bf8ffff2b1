"""The settings that all detectors share, and how settings are checked, read and compared."""

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
    """The settings that every detector has. A family of detectors, and then a detector, adds its own.

    What a value may be is checked by a field's type and name: a `Literal` allows what it lists; names with `_iou`, `_fraction`,
    `_momentum` or `score_threshold` are shares in 0..1; names with `weight_` or `_scalar` are numbers of at least 0; names with
    `_identities`, `_dim`, `_size`, `_samples`, `_sampling`, `_candidates`, `_proposals` or `max_` are whole numbers of at least
    1; a tuple holds positive numbers, at least one.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    in_weights: ClassVar[frozenset[str]] = frozenset(("num_identities",))
    """Fields that a built model's weights depend on, by their shapes or by what they mean."""
    at_most: ClassVar[tuple[tuple[str, str], ...]] = (("min_size", "max_size"),)
    """Pairs of fields; the first must not be larger than the second."""
    at_least: ClassVar[Mapping[str, tuple[int, str]]] = {}
    """From a field to the smallest value that it may have, and the reason in words."""
    former_names: ClassVar[Mapping[str, str]] = {"weigh_by_score": "score_weighting"}
    """From what a field was once called to its name. Files are read under both; fingerprints are made of the former ones, so
    that galleries and caches of earlier versions stay valid."""

    num_identities: int
    """People with identities in the training set."""

    min_size: int = 900
    """The length in pixels that an image's shorter side is resized to."""
    max_size: int = 1500
    """The length in pixels that an image's longer side must not exceed; then the shorter side becomes shorter."""

    score_threshold: float = 0.5
    """A detection must score higher."""
    max_detections: int = 300
    """Detections kept per image."""
    score_weighting: bool = True
    """Multiply a gallery embedding by its detection score ("confidence weighted similarity"); queries never are."""

    freeze_stem: bool = True
    """Do not learn the backbone's stem, where the backbone has one of its own. Its batch norm goes on measuring."""
    batch_norm: Literal["live", "frozen"] = "live"
    """`frozen` keeps statistics, scale and shift of every batch norm in the backbone: for batches too small to measure."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if choices := literal_choices(str(each.type)):
                self._require(each.name, choices.__contains__, f"one of {', '.join(map(repr, choices))}")
            elif each.type == "bool":
                self._require(each.name, lambda value: isinstance(value, bool), "True or False")
            elif str(each.type).startswith("tuple["):
                what = "positive numbers, at least one"
                self._require(each.name, lambda value: len(value) > 0 and min(value) > 0, what)
        for name in self._numbers("_iou", "_fraction", "score_threshold", "_momentum"):
            self._require(name, lambda value: 0.0 <= value <= 1.0, "in 0..1")
        for name in self._numbers("weight_", "_scalar"):
            self._require(name, lambda value: 0.0 <= value < math.inf, "a number of at least 0")
        for name in self._numbers("_identities", "_dim", "_size", "_samples", "_sampling", "_candidates", "_proposals", "max_"):
            self._require(name, lambda value: type(value) is int and value >= 1, "a whole number of at least 1")
        for name, (least, reason) in self.at_least.items():
            self._require(name, least.__le__, f"at least {least}, {reason}")
        for lower, upper in self.at_most:
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
        """Build a config from plain values, as a registry entry or `config.json` holds them, under former names too.

        Raises:
            ArgumentError: a field is missing, unknown (names the nearest), there twice, of the wrong type or has an impossible
                value.
        """
        values = cls._under_present_names(values)
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
        found = self.from_mapping({**values, **self._under_present_names(changes)})
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

    def non_defaults(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, as plain values: what `from_mapping` needs."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.default is MISSING or value != each.default:
                found[each.name] = list(value) if isinstance(value, tuple) else value
        return found

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return `non_defaults` as a gallery's fingerprint is made of them."""
        former = {new: old for old, new in self.former_names.items()}
        return {former.get(name, name): value for name, value in self.non_defaults().items()}

    def fingerprint_text(self) -> str:
        """Return all settings in one line, as the fingerprint of kept features is made of them."""
        former = {new: old for old, new in self.former_names.items()}
        parts = (f"{former.get(name, name)}={getattr(self, name)!r}" for name in self._fingerprint_order())
        return f"{type(self).__qualname__}({', '.join(parts)})"

    def _fingerprint_order(self) -> list[str]:
        return [each.name for each in fields(self)]

    @classmethod
    def _under_present_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(values)
        for old, new in cls.former_names.items():
            if old in found:
                if new in found:
                    raise ArgumentError(f"{cls.__name__}: {old!r} is what {new!r} was once called; give {new!r} alone.")
                found[new] = found.pop(old)
        return found
