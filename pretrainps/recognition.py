"""Recognise a backbone and its key layout from keys and shapes alone."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.checkpoint.layouts import FAMILIES, Layout
from pretrainps.errors import LayoutError
from pretrainps.registry.specs import DetectorSpec, FileFormat

Shape = tuple[int, ...]

PREFIXES = ("", "module.", "backbone.", "module.backbone.", "encoder.", "encoder_q.", "module.encoder_q.", "model.", "base.")
"""What wrappers and training frameworks put before every key."""
_BATCH_COUNT = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """An architecture whose tensors a file holds, and under which names."""

    arch: str
    file: FileFormat
    matched: int
    """How many of the model's tensors are there, with their shapes."""
    detector: DetectorSpec | None = None
    """The detector, if the file holds a whole one; then everything here is about it rather than its backbone alone."""
    missing: tuple[str, ...] = ()
    """The model's keys that are not, batch counters excepted."""
    foreign: tuple[str, ...] = ()
    """Keys of the file that the layout knows and nothing is taken from."""
    extra: tuple[str, ...] = ()
    """Keys of the file that belong to nothing known."""


def recognise(shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = ()) -> Recognition | None:
    """Find the architecture and key layout that the shapes come closest to.

    Args:
        shapes: The file's keys and shapes.
        wrapper: Where in the file they were found.

    Returns:
        The best candidate: one without missing keys before one with, then the one with the most tensors, then the one that
        leaves the fewest keys over. `None` if the best has less than half of its tensors. Whether `missing` is empty says
        whether the file is complete. (Batch counters do not count: old files lack them.)
    """
    candidates = list(_candidates(shapes, wrapper))
    best = max(candidates, key=_rank, default=None)
    if best is None or 2 * len(best.missing) > best.matched:
        return None
    return best


def _rank(found: Recognition) -> tuple[bool, int, int, int]:
    size = -len(found.foreign) - len(found.file.prefix)
    return not found.missing, found.matched - len(found.missing), -len(found.extra), size


def _candidates(shapes: Mapping[str, Shape], wrapper: tuple[str, ...]) -> Iterator[Recognition]:
    for prefix in PREFIXES:
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        if not inside:
            continue
        tensors = {key: torch.empty(shape, device="meta") for key, shape in inside.items()}
        outside = tuple(key for key in shapes if not key.startswith(prefix))
        for arch, architecture in ARCHITECTURES.items():
            if any(architecture.telltale in key for key in inside):
                # the first layout, native, repeats one of the others
                for layout in list(FAMILIES[architecture.family].values())[1:]:
                    yield _compared(arch, layout, tensors, prefix, outside, wrapper)


def _compared(
    arch: str, layout: Layout, tensors: dict[str, Tensor], prefix: str, outside: tuple[str, ...], wrapper: tuple[str, ...]
) -> Recognition:
    wanted = _wanted(arch)
    foreign = {key for key in tensors if any(fnmatch.fnmatchcase(key, pattern) for pattern in layout.foreign)}
    own = {key: value for key, value in tensors.items() if key not in foreign}
    native = _mapped(layout, own)
    have = {key for key, shape in wanted.items() if key in native and tuple(native[key].shape) == shape}
    used = {key for key in own if set(_mapped(layout, {key: own[key]})) & have}
    file = FileFormat(
        layout=layout.name,
        wrapper=wrapper,
        prefix=prefix,
        expected_missing=(f"*{_BATCH_COUNT}",) if len(have) < len(wanted) else (),
        tensors=len(have),
    )
    return Recognition(
        arch=arch,
        file=file,
        matched=len(have),
        missing=tuple(key for key in wanted if key not in have and not key.endswith(_BATCH_COUNT)),
        foreign=tuple(prefix + key for key in tensors if key in foreign),
        extra=(*(prefix + key for key in own if key not in used), *outside),
    )


def _mapped(layout: Layout, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return layout.to_native(tensors)
    except (RuntimeError, LayoutError):  # a tensor of another shape, or two keys that become one: not this layout
        return {}


@cache
def _wanted(arch: str) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in build_backbone(arch, empty=True).state_dict().items()}
