"""All key layouts, by family and name."""

from __future__ import annotations

from collections.abc import Mapping

from pretrainps.checkpoint.backbone_layouts import BACKBONE_LAYOUTS
from pretrainps.checkpoint.detector_layouts import DETECTOR_LAYOUTS
from pretrainps.checkpoint.layout import Layout as Layout
from pretrainps.checkpoint.layout import Tensors, rename
from pretrainps.errors import LayoutError

_NATIVE = Layout(name="native")


def _out_of_detector(tensors: Tensors) -> Tensors:
    return rename(tensors, ((r"^(backbone|box_stage\.stage)\.", ""),))


def _not_written(tensors: Tensors) -> Tensors:
    raise LayoutError("'detector' names a backbone inside one of our own detectors; write 'native' instead.")


IN_DETECTOR = Layout(
    name="detector",
    to_native=_out_of_detector,
    from_native=_not_written,
    heads=("rpn.*", "proposal_head.*", "box_head.*", "embedding_head.*", "reid_stage.*", "oim_loss.*"),
)
"""A backbone inside one of our own detectors; only read."""

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
    if name == IN_DETECTOR.name:
        return IN_DETECTOR
    if name not in layouts:
        raise LayoutError(f"{family} has no key layout {name!r}. It has: {', '.join(layouts)}.")
    return layouts[name]
