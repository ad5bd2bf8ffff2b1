"""Recognize a whole detector, with native names or those of the originals, from keys and shapes alone.

A file that holds more of a detector than of any backbone is a file of that detector, complete or not: a part is never taken for
the whole. Loading reports missing and additional keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import torch

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import DETECTORS, PersonSearchDetector, assemble
from pretrainps.detectors.key_layouts import layout_of, layouts_of
from pretrainps.errors import PretrainPSError
from pretrainps.heads import CropModel
from pretrainps.registry.specs import ASSUMED_INPUT, DetectorSpec
from pretrainps.weights.recognize import (
    Expected,
    Recognition,
    Shape,
    closest_architectures,
    expected_in,
    file_format,
    fitted,
    prefixes,
    recognize,
)
from pretrainps.weights.trunk import likely_architecture

_EXAMPLE = "resnet_tiny"
"""The architecture for building detectors to get the names of their heads."""


def identify(
    shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = (), *, arch: str | None = None, prefix: str | None = None
) -> Recognition | None:
    """Return the model of a file: a detector, or a backbone, perhaps with a head for crops; `None` if it is not known.

    Args:
        shapes: The file's keys and shapes, without ignored ones.
        wrapper: Where in the file they were found.
        arch: The backbone's architecture; for a detector this means its backbone alone.
        prefix: The prefix of every key; by default it is searched for.
    """
    backbone = recognize(shapes, wrapper, arch=arch, prefix=prefix)
    detector = recognize_detector(shapes, wrapper, prefix=prefix) if arch is None else None
    if detector is None or backbone is None:
        return detector or backbone
    more_of_a_backbone = (backbone.used, not backbone.missing) > (detector.used, False)
    return backbone if more_of_a_backbone else detector


def recognize_detector(
    shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = (), *, prefix: str | None = None
) -> Recognition | None:
    """Return the detector that fits a file best; `None` if none is close.

    The sizes of the lookup table, the queue and the embedding come from the file. Settings without a trace in it (thresholds,
    image size) have their defaults. Tables that were removed start anew.

    Args:
        shapes: The file's keys and shapes.
        wrapper: Dictionary keys above them in the file.
        prefix: The prefix of every key; by default it is searched for.
    """
    candidates = [
        _compared(form, arch, layout, shapes, before, wrapper)
        for form in _forms(shapes)
        if DETECTORS[form.kind].sizes is not None
        for arch in closest_architectures(shapes)[:1]
        for layout in _layout_names(form.kind, arch)
        if (expected := _template(form, arch, layout)) is not None
        for before, count in prefixes(shapes, expected, prefix)
        if 2 * count >= len(expected.native)
    ]
    return max(candidates, key=_rank, default=None)


def detector_named(shapes: Mapping[str, Shape]) -> str | None:
    """Return the detector with at least half of its heads in a file, on any backbone; `None` if there is none."""
    shares: dict[str, tuple[float, int]] = {}  # some detectors have all heads of another, and more
    for form in _forms(shapes):
        for layout in _layout_names(form.kind, _EXAMPLE):
            expected, built = _template(form, _EXAMPLE, layout), _built(form, _EXAMPLE)
            if expected is None or built is None:
                continue
            heads = [key for key, name in expected.native.items() if not name.startswith(built.backbones)]
            votes = max((count for _, count in prefixes(shapes, _only(expected, heads), None)), default=0)
            shares[form.kind] = max(shares.get(form.kind, (0.0, 0)), (votes / max(len(heads), 1), votes))
    best = max(shares, key=lambda kind: shares[kind], default=None)
    return best if best is not None and 2 * shares[best][0] >= 1 else None


def unrecognized(shapes: Mapping[str, Shape], file: str = "FILE") -> str:
    """Return a description of a file that `identify` does not recognize, and what to do."""
    kind, relative = detector_named(shapes), likely_architecture(shapes)
    if kind is not None:
        return (
            f"its keys are those of the detector {kind!r}, on a backbone that is not recognized. Build it with "
            f"pretrainps.build_detector({kind!r}, backbone=...) and its load_state_dict, or save it with "
            "pretrainps.save_pretrained. arch='timm:NAME' (--arch timm:NAME) gives its backbone alone."
        )
    if relative is not None:
        return f"its keys are those of a {relative.removeprefix('timm:')}: give arch={relative!r} (--arch {relative})."
    return (
        f"its keys are of no architecture known here. `pretrainps inspect {file} --json` shows them; for a timm model give "
        "arch='timm:NAME' (--arch timm:NAME)."
    )


def skeleton(found: Recognition) -> Backbone | CropModel | PersonSearchDetector[Any]:
    """Return the recognized model on the meta device."""
    with torch.device("meta"):
        backbone = build_backbone(found.arch, empty=True)
        if found.detector is not None:
            return assemble(found.detector.kind, backbone, found.detector.config, ASSUMED_INPUT)
        return CropModel(backbone, found.head) if found.head is not None else backbone


def _only(expected: Expected, keys: list[str]) -> Expected:
    return Expected(layout=expected.layout, shapes={}, native={key: expected.native[key] for key in keys}, unused={})


@dataclass(frozen=True, slots=True)
class _Form:
    """A detector with one of its sets of keys."""

    kind: str
    variant: int
    """Number of the variant among the entry's `variants`."""

    @property
    def settings(self) -> Mapping[str, Any]:
        return DETECTORS[self.kind].variants[self.variant]


@dataclass(frozen=True, slots=True)
class _Built:
    """The properties of a detector on one architecture that matter for its files."""

    family: str
    shapes: Mapping[str, Shape]
    backbones: tuple[str, ...]
    """Prefixes of the keys of its parts that are backbones."""


def _forms(shapes: Mapping[str, Shape]) -> list[_Form]:
    """Return the possible detectors of a file, by parts of its keys."""
    found = []
    for kind, entry in DETECTORS.items():
        if not entry.signature_keys or any(piece in key for key in shapes for piece in entry.signature_keys):
            found += [_Form(kind, number) for number in range(len(entry.variants))]
    return found


def _rank(found: Recognition) -> tuple[bool, int, int]:
    return found.loads, found.matched - len(found.missing) - len(found.extra) - len(found.trunk), -len(found.file.prefix)


def _layout_names(kind: str, arch: str) -> list[str]:
    return list(layouts_of(f"{kind}-{_family(arch)}"))


@cache
def _family(arch: str) -> str:
    return build_backbone(arch, empty=True).family


def _compared(
    form: _Form, arch: str, layout: str, shapes: Mapping[str, Shape], prefix: str, wrapper: tuple[str, ...]
) -> Recognition:
    entry, expected = DETECTORS[form.kind], _template(form, arch, layout)
    assert expected is not None and entry.sizes is not None
    inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    found = {name: inside[key] for key, name in expected.native.items() if key in inside}
    sizes = entry.config.from_mapping(entry.sizes(found, form.settings))
    built = _built(form, arch, json.dumps(sizes.non_defaults()))
    expected = replace(expected, shapes=built.shapes if built is not None else expected.shapes)
    # the original may keep some outside its files
    elsewhere = [name for name in entry.tables if name not in set(expected.native.values())]
    new = [name for name in entry.tables if name not in found and name not in elsewhere]
    if all(expected.shapes[name] == () for name in new):  # a counter alone is missing, not stripped
        new = []
    counters = dict.fromkeys(f"{name.partition('.')[0]}.*" for name in expected.shapes)
    fit = fitted(shapes, prefix, expected, counters=tuple(counters), optional={*new, *elsewhere})
    file = file_format(fit, expected.layout, wrapper, prefix, tuple(new))
    file = replace(file, expected_missing=(*elsewhere, *file.expected_missing))
    return Recognition(
        arch=arch,
        detector=DetectorSpec(kind=form.kind, config=sizes.non_defaults()),
        file=file,
        matched=len(fit.have),
        used=fit.used,
        missing=fit.missing,
        known_extra=fit.known_extra,
        extra=fit.extra,
        trunk=fit.trunk,
    )


@lru_cache(maxsize=256)
def _template(form: _Form, arch: str, layout: str) -> Expected | None:
    """Return the expected keys of a detector's file, with tables of any size; `None` if it cannot use the architecture."""
    built = _built(form, arch)
    return None if built is None else expected_in(layout_of(built.family, layout), built.shapes)


@lru_cache(maxsize=256)
def _built(form: _Form, arch: str, config: str | None = None) -> _Built | None:
    """Build a detector on the meta device. `config` is JSON; by default it has only the required fields."""
    settings = json.loads(config) if config is not None else {"num_identities": 1, **form.settings}
    try:
        with torch.device("meta"):
            model = assemble(form.kind, build_backbone(arch, empty=True), settings, ASSUMED_INPUT)
    except (PretrainPSError, RuntimeError):  # a detector may want maps that the architecture does not have
        return None
    return _Built(
        model.family,
        {key: tuple(value.shape) for key, value in model.state_dict().items()},
        tuple(f"{path}." for path, module in model.named_modules() if isinstance(module, Backbone)),
    )
