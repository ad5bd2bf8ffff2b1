"""Recognize a whole detector, with native names or those of the originals, from keys and shapes alone.

A file that holds more of a detector than of any backbone is a file of that detector, complete or not: a part is never taken for
the whole. Loading reports missing and additional keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import torch

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import DETECTORS, PersonSearchDetector, assemble
from pretrainps.heads import CropModel
from pretrainps.registry.specs import ASSUMED_INPUT, LARGEST_HEAD, DetectorSpec
from pretrainps.weights.key_layouts import FAMILIES, layout_of
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

_PIECES = ("rpn.", "oim_loss.", "roi_heads.", "box_stage.", "reid_stage.", "proposal_head.", "embedding_head.", "box_head.")
"""Part of a key in every detector's file; files without it need no comparison with detectors."""
_TABLE, _QUEUE, _CURSOR = "oim_loss.lookup_table", "oim_loss.queue", "oim_loss.cursor"
_COUNTED_APART = ("backbone.*", "box_stage.*", "reid_stage.*", "box_head.*", "embedding_head.*")
"""Groups with batch counters: a backbone may be older than batch counters, or frozen without them, while heads have them."""
_DIM = 256
_EMBEDDED = "embedding_head.projectors.{}.0.weight"


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
        wrapper: Where in the file they were found.
        prefix: The prefix of every key; by default it is searched for.
    """
    if not any(piece in key for key in shapes for piece in _PIECES):
        return None
    candidates = [
        _compared(kind, fuse_c4, arch, layout, shapes, before, wrapper)
        for arch in closest_architectures(shapes)[:1]
        for kind, fuse_c4 in _KINDS
        for layout in _layout_names(kind, arch)
        for before, count in prefixes(shapes, _template(kind, fuse_c4, arch, layout), prefix)
        if 2 * count >= len(_template(kind, fuse_c4, arch, layout).native)
    ]
    return max(candidates, key=_rank, default=None)


def detector_named(shapes: Mapping[str, Shape]) -> str | None:
    """Return the detector with at least half of its heads in a file, on any backbone; `None` if there is none."""
    if not any(piece in key for key in shapes for piece in _PIECES):
        return None
    shares: dict[str, float] = {}
    for kind, fuse_c4 in _KINDS:
        for layout in _layout_names(kind, "resnet_tiny"):
            expected = _template(kind, fuse_c4, "resnet_tiny", layout)
            heads = [key for key, name in expected.native.items() if not name.startswith(("backbone.", "box_stage."))]
            heads = [key for key in heads if not expected.native[key].startswith("reid_stage.")]
            votes = max((count for _, count in prefixes(shapes, _only(expected, heads), None)), default=0)
            shares[kind] = max(shares.get(kind, 0.0), votes / len(heads))
    best = max(shares, key=lambda kind: shares[kind])
    return best if 2 * shares[best] >= 1 else None


def unrecognized(shapes: Mapping[str, Shape]) -> str:
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
        "its keys are of no architecture known here. `pretrainps inspect FILE --json` shows them; for a timm model give "
        "arch='timm:NAME' (--arch timm:NAME)."
    )


def skeleton(found: Recognition) -> Backbone | CropModel | PersonSearchDetector[Any]:
    """Return the model that was recognized, without memory for its tensors."""
    with torch.device("meta"):
        backbone = build_backbone(found.arch, empty=True)
        if found.detector is not None:
            return assemble(found.detector.kind, backbone, found.detector.config, ASSUMED_INPUT)
        return CropModel(backbone, found.head) if found.head is not None else backbone


def _only(expected: Expected, keys: list[str]) -> Expected:
    return Expected(layout=expected.layout, shapes={}, native={key: expected.native[key] for key in keys}, unused={})


_KINDS = [(kind, fuse_c4) for kind in DETECTORS for fuse_c4 in ((True, False) if kind == "nae+" else (True,))]
"""Detectors with different keys: NAE+ has two forms."""


def _rank(found: Recognition) -> tuple[bool, int, int]:
    return found.loads, found.matched - len(found.missing) - len(found.extra) - len(found.trunk), -len(found.file.prefix)


def _layout_names(kind: str, arch: str) -> list[str]:
    return list(FAMILIES.get(f"{kind}-{_family(arch)}", {"native": None}))


@cache
def _family(arch: str) -> str:
    return build_backbone(arch, empty=True).family


def _compared(
    kind: str, fuse_c4: bool, arch: str, layout: str, shapes: Mapping[str, Shape], prefix: str, wrapper: tuple[str, ...]
) -> Recognition:
    inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    expected = _template(kind, fuse_c4, arch, layout)
    found = {name: inside[key] for key, name in expected.native.items() if key in inside}
    config = _config(kind, fuse_c4, found)
    sizes = DETECTORS[kind].config.from_mapping(config)
    if sizes.embedding_dim != _DIM:
        expected = _template(kind, fuse_c4, arch, layout, sizes.embedding_dim)
    tables = {_TABLE: (sizes.num_identities, sizes.embedding_dim), _QUEUE: (sizes.queue_size, sizes.embedding_dim)}
    expected = replace(expected, shapes={**expected.shapes, **tables})
    original = layout != "native"  # the originals keep the queue's cursor outside their files
    new = [name for name in tables if name not in found]
    if _QUEUE in new and _CURSOR not in found and not original:
        new.append(_CURSOR)
    optional = {*new, _CURSOR} if original else set(new)
    fit = fitted(shapes, prefix, expected, counters=_COUNTED_APART, optional=optional)
    file = file_format(fit, expected.layout, wrapper, prefix, tuple(new))
    if original:
        file = replace(file, expected_missing=(_CURSOR, *file.expected_missing))
    return Recognition(
        arch=arch,
        detector=DetectorSpec(kind=kind, config=sizes.changes()),
        file=file,
        matched=len(fit.have),
        used=fit.used,
        missing=fit.missing,
        foreign=fit.foreign,
        extra=fit.extra,
        trunk=fit.trunk,
    )


def _config(kind: str, fuse_c4: bool, found: Mapping[str, Shape]) -> dict[str, Any]:
    """Return the config with the sizes from a file; missing tensors and impossible shapes give valid default sizes."""
    table, queue = (shape if len(shape := found.get(name, ())) == 2 else () for name in (_TABLE, _QUEUE))
    parts = [found.get(_EMBEDDED.format(part), ()) for part in (("c4", "c5") if fuse_c4 else ("c5",))]
    dims = [sum(shape[0] for shape in parts)] if all(parts) else []
    dims = [dim for dim in (*dims, *table[1:], *queue[1:]) if 2 <= dim <= LARGEST_HEAD] or [_DIM]
    config: dict[str, Any] = {
        # the size of a removed table is not known
        "num_identities": table[0] if table and 1 <= table[0] <= LARGEST_HEAD else 1,
        "embedding_dim": max(dims, key=dims.count),
    }
    if queue and 1 <= queue[0] <= LARGEST_HEAD:
        config["queue_size"] = queue[0]
    return config if fuse_c4 else {**config, "fuse_c4": False}


@lru_cache(maxsize=256)
def _template(kind: str, fuse_c4: bool, arch: str, layout: str, embedding_dim: int = _DIM) -> Expected:
    """Return the expected keys of a detector's file, with tables of any size."""
    config = {"num_identities": 1, "embedding_dim": embedding_dim, **({} if fuse_c4 else {"fuse_c4": False})}
    with torch.device("meta"):
        model = assemble(kind, build_backbone(arch, empty=True), config, ASSUMED_INPUT)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return expected_in(layout_of(model.family, layout), shapes)
