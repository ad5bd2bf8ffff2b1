"""The detectors by name, and building one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pretrainps.backbones import Backbone
from pretrainps.detectors.base import PersonSearchDetector
from pretrainps.detectors.config import DetectorConfig
from pretrainps.detectors.region.nae import NAE, NAEConfig
from pretrainps.detectors.region.nae_plus import NAEPlus, NAEPlusConfig
from pretrainps.detectors.region.oim import OIM, OIMConfig
from pretrainps.detectors.region.seqnet import SeqNet, SeqNetConfig
from pretrainps.errors import ArgumentError, UnknownModelError, UnsupportedModelError
from pretrainps.registry.specs import InputConvention
from pretrainps.weights.unwrap import unwrap


@dataclass(frozen=True, slots=True)
class DetectorKind:
    """A detector and its config."""

    model: type[PersonSearchDetector[Any]]
    config: type[DetectorConfig]


DETECTORS: Mapping[str, DetectorKind] = {
    "oim": DetectorKind(OIM, OIMConfig),
    "nae": DetectorKind(NAE, NAEConfig),
    "nae+": DetectorKind(NAEPlus, NAEPlusConfig),
    "seqnet": DetectorKind(SeqNet, SeqNetConfig),
}
"""What `build_detector` knows."""


def detector_kind(name: str) -> DetectorKind:
    """Return a detector by name.

    Raises:
        UnknownModelError: no such detector; names the nearest.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(name.lower(), DETECTORS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnknownModelError(f"unknown detector {name!r}. {hint}There are: {', '.join(DETECTORS)}.", suggestions=tuple(near))
    return DETECTORS[name]


def assemble(
    name: str, backbone: Backbone, config: DetectorConfig | Mapping[str, Any], convention: InputConvention
) -> PersonSearchDetector[Any]:
    """Put a detector on a backbone. Its heads start at random; the backbone's two halves are copied.

    Args:
        name: A key of `DETECTORS`.
        backbone: Any backbone that splits at stride 16.
        config: The detector's own config, or its fields as a mapping.
        convention: How the backbone's weights want their pixels.

    Raises:
        UnknownModelError: no such detector.
        ArgumentError: a config of another detector, or with a field that cannot be.
        UnsupportedModelError: a module that is no backbone, or one without a trunk or a last stage.
    """
    kind = detector_kind(name)
    if not isinstance(config, DetectorConfig):
        config = kind.config.from_mapping(config)
    if type(config) is not kind.config:
        raise ArgumentError(f"the detector {name!r} takes a {kind.config.__name__}, not a {type(config).__name__}.")
    backbone = unwrap(backbone)
    if not isinstance(backbone, Backbone):
        raise UnsupportedModelError(
            f"{type(backbone).__name__} is no backbone of pretrainps, so it cannot be split. Give a name, such as "
            "'resnet50-hybrid' or 'timm:convnext_tiny.fb_in1k', or what `pretrainps.load` returns."
        )
    absent = [name for name in ("c4", "c5") if name not in backbone.channels or name not in backbone.segments]
    if absent:
        raise UnsupportedModelError(
            f"{backbone.arch} has no {' and no '.join(absent)}: a detector needs a trunk that ends at stride 16 (c4) and a "
            "last stage behind it (c5)."
        )
    return kind.model(backbone, config, convention)
