"""From pre-training to fine-tuning: start a detector from what was pre-trained.

`save_backbone` writes a folder that `pretrainps.load("file:FOLDER")` loads as a backbone, and a file with the heads next to it.
A detector takes the backbone alone, or also those heads that it has itself: the detector's entry in the registry names them.
The detector's `load_report` says which tensors it took and which start anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pretrainps.backbones import Backbone
from pretrainps.detectors import DetectorConfig, PersonSearchDetector
from pretrainps.detectors.region import RegionConfig
from pretrainps.detectors.registry import DetectorEntry, detector_entry
from pretrainps.errors import (
    ArgumentError,
    IntegrityError,
    UnsupportedModelError,
    WeightsUnavailableError,
)
from pretrainps.files import WEIGHTS, sha256_of
from pretrainps.hub.build import build_detector
from pretrainps.hub.load import load
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.training.pretraining.save import HEADS
from pretrainps.weights import LoadReport, compare, read_metadata, read_tensors, require_complete
from pretrainps.weights.unwrap import unwrap

_HEAD_SETTINGS = ("embedding_dim", "anchor_sizes", "anchor_ratios", "region_size", "region_sampling", "pooling")
"""Fields of a config without which pre-trained heads do not fit, or do not mean what they meant in pre-training."""


@dataclass(frozen=True, slots=True)
class HybridWeights:
    """What a detector can start from."""

    backbone: Backbone
    """Whole, with a `spec`."""
    heads: dict[str, Tensor]
    """`rpn.*`, `box_head.*`, `embedding_head.*`, as far as they were learned."""
    detector: RegionConfig
    """The settings that pre-training shared with detectors."""

    @classmethod
    def of(cls, source: HybridModel | Path | str) -> HybridWeights:
        """Take them from a model, or from a folder that `save_backbone` wrote.

        Raises:
            WeightsUnavailableError: no such folder, or one that holds no heads.
            IntegrityError: the heads are not those of the backbone.
        """
        source = unwrap(source)
        if isinstance(source, HybridModel):
            backbone = source.plain_backbone()
            backbone.spec = source.backbone_spec()
            return cls(backbone, source.heads_state(), source.settings.detector)
        folder = Path(source).expanduser()
        if not (folder / HEADS).is_file():
            raise WeightsUnavailableError(
                f"{folder} has no {HEADS}. Give a folder that save_backbone wrote; of any other backbone, take "
                "pretrainps.build_detector."
            )
        loaded = load(folder)
        if not isinstance(loaded, Backbone):
            raise UnsupportedModelError(f"{folder} holds no bare backbone but a {type(loaded).__name__}.")
        notes = read_metadata(folder / HEADS)
        if notes.get("backbone") != sha256_of(folder / WEIGHTS):
            raise IntegrityError(
                f"{folder}: {HEADS} is not of the same pre-training as {WEIGHTS}; perhaps saving was cut short. Save again."
            )
        return cls(loaded, read_tensors(folder / HEADS, mapped=False), RegionConfig.from_mapping(notes["detector"]))


def start_detector(
    kind: str,
    source: HybridModel | Path | str,
    *,
    num_identities: int,
    with_heads: bool,
    config: DetectorConfig | Mapping[str, Any] | None = None,
) -> PersonSearchDetector[Any]:
    """Build a detector that starts from hybrid pre-training.

    Args:
        kind: A registered detector, a key of `pretrainps.detectors.DETECTORS`.
        source: The pre-trained model, or a folder that `save_backbone` wrote.
        num_identities: People with identities in the training set.
        with_heads: Start from the pre-trained heads too, as far as the detector has them. The settings that they depend on
            (anchors, region size, pooling, length of the embedding) are then those of the pre-training.
        config: The detector's config, or some of its fields; the papers' values by default.

    Returns:
        The detector in training mode. `str(detector.load_report)` says what was taken over, what of the heads was not used
        ("ignored"), and what starts at random ("new").

    Raises:
        UnknownModelError: no such detector.
        WeightsUnavailableError: the folder is not there, or holds no heads.
        ArgumentError: `with_heads` and a config that the heads do not fit; names the field.
        StateDictMismatchError: a head lacks a tensor or has one of another shape.

    Example:
        >>> detector = start_detector(NAME, "runs/hybrid/best", num_identities=5532, with_heads=True)  # doctest: +SKIP
        >>> print(detector.load_report)                                                                # doctest: +SKIP
    """
    entry = detector_entry(kind)
    weights = HybridWeights.of(source)
    if with_heads:
        config = _with_head_settings(entry, config, weights.detector)
    detector = build_detector(kind, backbone=weights.backbone, num_identities=num_identities, config=config)
    taken = _placed(entry, weights.heads) if with_heads else {}
    _require_fit(detector, taken)
    detector.load_state_dict({**detector.state_dict(), **taken}, strict=True)
    detector.load_report = _report(detector, taken, weights.heads)
    if taken:
        provenance = detector.spec.provenance
        # a run records these words, and compares them when it is resumed
        words = "heads from the same pre-training where it has them, others at random."
        note = provenance.note.replace("heads at random.", words)
        detector.spec = replace(detector.spec, provenance=replace(provenance, note=note))
    return detector


def _with_head_settings(
    entry: DetectorEntry, config: DetectorConfig | Mapping[str, Any] | None, hybrid: RegionConfig
) -> DetectorConfig | dict[str, Any]:
    """Fill in what the heads depend on, and refuse values that they do not fit."""
    own = {each.name for each in fields(entry.config)}
    depends = _HEAD_SETTINGS if entry.pretrained_heads else ()
    needed = [name for name in depends if name in own and name not in entry.own_settings]
    given = {name: getattr(config, name) for name in needed} if isinstance(config, DetectorConfig) else dict(config or {})
    for name in needed:
        wanted = getattr(hybrid, name)
        found = given.get(name, wanted)
        if (tuple(found) if isinstance(found, list) else found) != wanted:
            raise ArgumentError(
                f"{entry.config.__name__}.{name} is {found}, but the heads were pre-trained with {wanted}. Leave it at that, "
                "or start without heads (with_heads=False)."
            )
    if isinstance(config, DetectorConfig):
        return config
    return {**{name: getattr(hybrid, name) for name in needed}, **given}


def _placed(entry: DetectorEntry, heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those heads that the detector has, under its names and in its shapes."""
    placed = {}
    for key, value in heads.items():
        head, _, rest = key.partition(".")
        if head in entry.pretrained_heads:
            place = f"{entry.pretrained_heads[head]}.{rest}"
            placed[place] = value if entry.adapt_head is None else entry.adapt_head(place, value)
    return placed


def _require_fit(detector: PersonSearchDetector[Any], taken: Mapping[str, Tensor]) -> None:
    """Refuse heads that lack a tensor, have one too many, or have one of another shape.

    Raises:
        StateDictMismatchError: with the report.
    """
    heads = {key.partition(".")[0] for key in taken}
    # the norm of a vector meant nothing in pre-training, so there was nothing that rescales it
    excused = [key for key in detector.state_dict() if key.partition(".")[0] not in heads or ".rescaler." in key]
    report = compare(detector, taken, name=detector.spec.name, expected_missing=excused)
    if taken:
        require_complete(report, "the pre-trained heads (with_heads=False starts without them)")


def _report(detector: PersonSearchDetector[Any], taken: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> LoadReport:
    """Return what the detector took over, which heads it did not use, and what starts at random."""
    state = detector.state_dict()
    copies = tuple(f"{name}." for name, module in detector.named_modules() if isinstance(module, Backbone))
    matched = tuple(key for key in state if key.startswith(copies) or key in taken)
    used = set(detector_entry(detector.kind).pretrained_heads) if taken else set()
    learned = {key: parameter.numel() for key, parameter in detector.named_parameters()}
    return LoadReport(
        name=detector.spec.name,
        matched=matched,
        ignored=tuple(key for key in heads if key.partition(".")[0] not in used),
        new=tuple(key for key in state if key not in matched),
        parameters_loaded=sum(learned.get(key, 0) for key in matched),
        parameters=sum(learned.values()),
    )
