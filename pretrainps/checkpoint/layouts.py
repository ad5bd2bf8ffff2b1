"""All key layouts, by family and name."""

from __future__ import annotations

from collections.abc import Mapping

from pretrainps.checkpoint.backbone_layouts import BACKBONE_LAYOUTS
from pretrainps.checkpoint.detector_layouts import DETECTOR_LAYOUTS
from pretrainps.checkpoint.layout import Layout as Layout
from pretrainps.errors import LayoutError

_NATIVE = Layout(name="native")

FAMILIES: Mapping[str, Mapping[str, Layout]] = {
    family: {layout.name: layout for layout in (_NATIVE, *layouts)}
    for family, layouts in {**BACKBONE_LAYOUTS, **DETECTOR_LAYOUTS}.items()
}
"""The layouts of each family that has others than its own names."""


def layout_of(family: str, name: str) -> Layout:
    """Return a family's layout by name.

    Raises:
        LayoutError: the family has no such layout; lists those it has.
    """
    layouts = FAMILIES.get(family, {_NATIVE.name: _NATIVE})
    if name not in layouts:
        raise LayoutError(f"{family} has no key layout {name!r}. It has: {', '.join(layouts)}.")
    return layouts[name]
