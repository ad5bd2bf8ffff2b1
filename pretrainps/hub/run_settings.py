"""Describe the weights of a run by the run's settings, for checkpoints of versions that did not store a configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrainps.backbones import ARCHITECTURES, Backbone, build_backbone
from pretrainps.detectors import assemble
from pretrainps.errors import PretrainPSError
from pretrainps.files import CONFIG, FORMAT, WEIGHTS
from pretrainps.registry import ModelSpec, find_spec, parse_spec, spec_to_mapping
from pretrainps.registry.specs import (
    ASSUMED_INPUT,
    PRETRAINING,
    DetectorSpec,
    InputConvention,
    Licence,
    LocalSource,
    Provenance,
)

_OF_ONE_FILE = ("sha256", "sha256_prefix", "published_size")
Shapes = Mapping[str, tuple[int, ...]]


def config_of_run(settings: Mapping[str, Any], saved: Mapping[str, Any] | None, shapes: Shapes) -> dict[str, Any] | None:
    """Return the configuration of a weight file, in the form that `save_pretrained` writes.

    Args:
        settings: The run's `config.json`.
        saved: The configuration of the model that the run saved at its end, if it reached it.
        shapes: The file's keys and shapes.

    Returns:
        The configuration; `None` if the settings do not determine it, or do not fit the file.
    """
    recipe = settings.get("recipe")
    if not isinstance(recipe, Mapping):
        return None
    pretraining = "hybrid" in recipe
    model = saved.get("model") if saved is not None else None
    if saved is not None and isinstance(model, Mapping):
        of_any_file = {key: value for key, value in model.items() if key not in _OF_ONE_FILE}
        return {**saved, "model": of_any_file, **({"layout": PRETRAINING} if pretraining else {})}
    for arch, options, convention in _candidates(str(recipe.get("backbone", "")), shapes):
        try:
            backbone = build_backbone(arch, options, empty=True)
            if pretraining:
                if _halves(shapes) == _shapes_of(backbone):
                    return {**_config(backbone, convention, None), "layout": PRETRAINING}
                continue
            kind, config = recipe["kind"], recipe["detector"]
            with torch.device("meta"):
                detector = assemble(kind, backbone, config, convention)
            if _shapes_of(detector) == dict(shapes):
                return _config(backbone, convention, detector.detector_spec())
        except (PretrainPSError, RuntimeError, TypeError, KeyError, ArithmeticError, MemoryError):
            continue  # impossible settings, or those of an unknown version
    return None


def _candidates(start: str, shapes: Shapes) -> Iterator[tuple[str, dict[str, Any], InputConvention]]:
    """Yield the possible architectures of the run, first that of its initial weights."""
    known = _start(start)
    if isinstance(known, ModelSpec):
        yield known.arch, dict(known.arch_options), known.input
    elif known is not None:
        yield known, {}, ASSUMED_INPUT
    convention = known.input if isinstance(known, ModelSpec) else ASSUMED_INPUT
    for arch, architecture in ARCHITECTURES.items():
        if any(architecture.signature_key in key for key in shapes):  # avoids building the large ones
            yield arch, {}, convention


def _start(name: str) -> ModelSpec | str | None:
    """Return the spec, or the architecture, of a run's initial weights."""
    kind, _, rest = name.partition(":")
    if kind == "random":
        return rest
    try:
        if kind == "timm":
            from pretrainps.backbones.timm_adapter import timm_spec

            return timm_spec(rest)
        path = Path(name.removeprefix("file:")).expanduser()
        for config in (path / CONFIG, path / "backbone" / CONFIG, path / "model" / CONFIG):
            if config.is_file():
                found = json.loads(config.read_text(encoding="utf-8")).get("pretrainps")
                if found:
                    return parse_spec(str(found.get("name", "unnamed")), found.get("model"), str(config))
        return find_spec(name)
    except (PretrainPSError, OSError, ValueError, AttributeError, RecursionError):
        return None


def _halves(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return a pre-training's backbone under the backbone's own keys."""
    places = ("backbone.", "box_stage.stage.")
    # of several batch norms, one for each data set, one is enough
    plain = {re.sub(r"\.norms\.\d+\.", ".", key): shape for key, shape in shapes.items()}
    return {key.removeprefix(place): shape for place in places for key, shape in plain.items() if key.startswith(place)}


def _shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _config(backbone: Backbone, convention: InputConvention, detector: DetectorSpec | None) -> dict[str, Any]:
    what = f"{detector.kind} on {backbone.arch}" if detector else backbone.arch
    spec = ModelSpec(
        name=f"{detector.kind}-{backbone.arch}" if detector else f"{backbone.arch}-pretrained",
        title=f"{what}, from a run's checkpoint",
        task="detector" if detector else "backbone",
        arch=backbone.arch,
        arch_options=backbone.options(),
        detector=detector,
        summary="Weights of a run, which its settings describe.",
        input=convention,
        licence=Licence(id="other", stated_in="nowhere: its weights were never published"),
        provenance=Provenance(authors="unknown", paper="unknown", url="unknown"),
        sources=(LocalSource(path=WEIGHTS),),
    )
    return {"format": FORMAT, "name": spec.name, "model": spec_to_mapping(spec)}
