"""The key layouts of every family of backbones and of detectors, as the backbones and the detectors declare them.

A family of detectors is a detector on a family of backbones, `NAME-FAMILY`: the original's names depend on both.
"""

from __future__ import annotations

from collections.abc import Mapping

from pretrainps.backbones.registry import KEY_LAYOUTS
from pretrainps.detectors.registry import DETECTORS
from pretrainps.errors import LayoutError
from pretrainps.registry.specs import PRETRAINING
from pretrainps.weights.key_layout import KeyLayout, Tensors, rename
from pretrainps.weights.key_layouts import NATIVE, OF_PRETRAINING


def _out_of_detector(tensors: Tensors) -> Tensors:
    return rename(tensors, ((r"^(backbone|box_stage\.stage)\.", ""),))


def _not_written(tensors: Tensors) -> Tensors:
    raise LayoutError("'detector' names a backbone inside one of our own detectors; write 'native' instead.")


IN_DETECTOR = KeyLayout(
    name="detector",
    to_native=_out_of_detector,
    from_native=_not_written,
    heads=("rpn.*", "proposal_head.*", "box_head.*", "embedding_head.*", "reid_stage.*", "oim_loss.*"),
)
"""A backbone inside one of our own detectors; only read."""


def families() -> dict[str, dict[str, KeyLayout]]:
    """Return the layouts, by name, of each family that has others than its own names."""
    found: dict[str, list[KeyLayout]] = {family: list(layouts) for family, layouts in KEY_LAYOUTS.items()}
    for name, entry in DETECTORS.items():
        for family, layouts in entry.backbone_key_layouts.items():
            found.setdefault(family, []).extend(layouts)
        for family, layouts in entry.key_layouts.items():
            found.setdefault(f"{name}-{family}", []).extend(layouts)
    return {family: {layout.name: layout for layout in (NATIVE, *layouts)} for family, layouts in found.items()}


def layouts_of(family: str) -> Mapping[str, KeyLayout]:
    """Return a family's layouts by name, our own names first."""
    return families().get(family, {NATIVE.name: NATIVE})


def layout_of(family: str, name: str) -> KeyLayout:
    """Return a family's layout by name.

    Raises:
        LayoutError: the family has no such layout; lists those it has.
    """
    if name == PRETRAINING:
        return OF_PRETRAINING
    if name == IN_DETECTOR.name:
        return IN_DETECTOR
    layouts = layouts_of(family)
    if name not in layouts:
        raise LayoutError(f"{family} has no key layout {name!r}. It has: {', '.join(layouts)}.")
    return layouts[name]
