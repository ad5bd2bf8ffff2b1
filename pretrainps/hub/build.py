"""Build an untrained person-search detector on a pre-trained backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrainps.backbones import Backbone
from pretrainps.detectors import DetectorConfig, PersonSearchDetector, assemble
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.hub.load import load
from pretrainps.registry.specs import (
    ASSUMED_INPUT,
    FileFormat,
    InputConvention,
    Licence,
    LocalSource,
    ModelSpec,
    Provenance,
)
from pretrainps.weights.unwrap import unwrap


def build_detector(
    name: str,
    *,
    backbone: str | Path | ModelSpec | Backbone,
    num_identities: int | None = None,
    config: DetectorConfig | Mapping[str, Any] | None = None,
    convention: InputConvention | None = None,
    offline: bool | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> PersonSearchDetector[Any]:
    """Build a detector on a pre-trained backbone. Its heads have random weights, for training.

    Args:
        name: A registered detector, a key of `pretrainps.detectors.DETECTORS`.
        backbone: A name for `pretrainps.load`; or a backbone, which is copied.
        num_identities: Number of people with identities in the training set; it may be in `config` instead.
        config: The detector's config, or some of its fields as a mapping; the papers' values by default.
        convention: Input convention; by default that of the backbone's weights, or RGB with ImageNet's statistics.
        offline: See `pretrainps.load`.
        cache_dir: See `pretrainps.load`.
        progress: See `pretrainps.load`.

    Returns:
        The detector, in training mode; `.spec` says what it is.

    Raises:
        UnknownModelError: there is no such detector or backbone; the message names the nearest.
        UnsupportedModelError: the backbone cannot be split into a trunk and a last stage.
        ArgumentError: the config is of another detector, or a field is impossible.

    Example:
        >>> import pretrainps
        >>> model = pretrainps.build_detector(NAME, backbone="resnet50-hybrid", num_identities=5532)  # doctest: +SKIP
        >>> losses = model(images, targets)                                                         # doctest: +SKIP
    """
    settings = _settings(name, num_identities, config)
    origin, backbone = None, unwrap(backbone)
    if not isinstance(backbone, Backbone) and isinstance(backbone, str | Path | ModelSpec):
        loaded = load(backbone, offline=offline, cache_dir=cache_dir, progress=progress)
        if not isinstance(loaded, Backbone):
            raise UnsupportedModelError(f"{backbone} is no bare backbone but a {type(loaded).__name__}.")
        backbone = loaded
    if isinstance(backbone, Backbone):
        origin = getattr(backbone, "spec", None)
    convention = convention or (origin.input if origin else ASSUMED_INPUT)
    model = assemble(name, backbone, settings, convention)
    model.spec = _spec(model, origin)
    return model.train()


def _settings(
    name: str, num_identities: int | None, config: DetectorConfig | Mapping[str, Any] | None
) -> DetectorConfig | Mapping[str, Any]:
    """Merge the two arguments that may have the number of identities."""
    if isinstance(config, DetectorConfig):
        if num_identities not in (None, config.num_identities):
            raise ArgumentError(f"num_identities is {num_identities}, but config.num_identities {config.num_identities}.")
        return config
    settings = dict(config or {})
    if num_identities is not None and settings.setdefault("num_identities", num_identities) != num_identities:
        raise ArgumentError(f"num_identities is {num_identities}, but in config {settings['num_identities']}.")
    if "num_identities" not in settings:
        raise ArgumentError(f"{name}: num_identities is missing: the number of people with identities in the training set.")
    return settings


def _spec(model: PersonSearchDetector[Any], origin: ModelSpec | None) -> ModelSpec:
    """Return the spec of a new detector, from the spec of its backbone."""
    backbone = model.backbone
    arch = origin.name if origin and not origin.name.startswith("file:") else backbone.arch
    provenance = origin.provenance if origin else Provenance(authors="unknown", paper="unknown", url="unknown")
    started = f"Backbone started from {origin.title}, heads at random." if origin else "Started at random."
    return ModelSpec(
        name=f"{model.kind}-{arch}",
        title=f"{type(model).__name__} on {arch}",
        task="detector",
        arch=backbone.arch,
        arch_options=backbone.options(),
        summary="A person-search detector.",
        detector=model.detector_spec(),
        input=model.convention,
        licence=origin.licence if origin else Licence(id="other", stated_in="nowhere: its weights were never published"),
        provenance=replace(provenance, note=" ".join(part for part in (provenance.note, started) if part)),
        sources=origin.sources if origin else (LocalSource(path="(in memory)"),),
        file=FileFormat(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
