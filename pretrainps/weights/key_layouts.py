"""All key layouts, by family and name."""

from __future__ import annotations

from collections.abc import Mapping

from pretrainps.errors import LayoutError
from pretrainps.registry.specs import PRETRAINING
from pretrainps.weights.backbone_key_layouts import BACKBONE_LAYOUTS
from pretrainps.weights.detector_key_layouts import DETECTOR_LAYOUTS
from pretrainps.weights.key_layout import KeyLayout as KeyLayout
from pretrainps.weights.key_layout import Tensors, rename

_NATIVE = KeyLayout(name="native")


def _from_pretraining(tensors: Tensors) -> Tensors:
    if any(".norms.0." in key for key in tensors):
        raise LayoutError(
            "this checkpoint of a pre-training has batch norms of each data set's own (domain_norm), which become one at the "
            "end of the run. Let it come to its end (--resume), and load its folder."
        )
    return rename(tensors, ((r"^backbone\.", ""), (r"^box_stage\.stage\.", "")))


_PRETRAINING = KeyLayout(
    name=PRETRAINING,
    to_native=_from_pretraining,
    heads=("detection.*", "identity.*", "alignment.*", "weights.*"),
)
"""Layout of pre-training checkpoints: the two parts of a backbone, and the heads of both sub-tasks. It is only declared,
never guessed, because a detector's native keys are similar."""


def _out_of_detector(tensors: Tensors) -> Tensors:
    return rename(tensors, ((r"^(backbone|box_stage\.stage)\.", ""),))


def _not_written(tensors: Tensors) -> Tensors:
    raise LayoutError("'detector' names a backbone inside a detector of this package; write 'native' instead.")


IN_DETECTOR = KeyLayout(
    name="detector",
    to_native=_out_of_detector,
    from_native=_not_written,
    heads=("rpn.*", "proposal_head.*", "box_head.*", "embedding_head.*", "reid_stage.*", "oim_loss.*"),
)
"""A backbone inside a detector of this package; only for reading."""

FAMILIES: Mapping[str, Mapping[str, KeyLayout]] = {
    family: {layout.name: layout for layout in (_NATIVE, *layouts)}
    for family, layouts in {**BACKBONE_LAYOUTS, **DETECTOR_LAYOUTS}.items()
}
"""The layouts of each family that has more than the native names."""


def layout_of(family: str, name: str) -> KeyLayout:
    """Return a family's layout by name.

    Raises:
        LayoutError: the family has no such layout; the message lists its layouts.
    """
    if name == PRETRAINING:
        return _PRETRAINING
    layouts = FAMILIES.get(family, {_NATIVE.name: _NATIVE})
    if name == IN_DETECTOR.name:
        return IN_DETECTOR
    if name not in layouts:
        raise LayoutError(f"{family} has no key layout {name!r}. It has: {', '.join(layouts)}.")
    return layouts[name]
