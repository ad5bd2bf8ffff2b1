"""The package's own key layouts: the native names, and those of a pre-training's checkpoints."""

from __future__ import annotations

from pretrainps.errors import LayoutError
from pretrainps.registry.specs import PRETRAINING
from pretrainps.weights.key_layout import KeyLayout, Tensors, rename

NATIVE = KeyLayout(name="native")
"""The layout of the native names."""


def _from_pretraining(tensors: Tensors) -> Tensors:
    if any(".norms.0." in key for key in tensors):
        raise LayoutError(
            "this checkpoint of a pre-training has batch norms of each data set's own (domain_norm), which become one at the "
            "end of the run. Let it come to its end (--resume), and load its folder."
        )
    return rename(tensors, ((r"^backbone\.", ""), (r"^box_stage\.stage\.", "")))


OF_PRETRAINING = KeyLayout(
    name=PRETRAINING,
    to_native=_from_pretraining,
    heads=("detection.*", "identity.*", "alignment.*", "weights.*"),
)
"""Layout of pre-training checkpoints: the two parts of a backbone, and the heads of both sub-tasks. It is only declared,
never guessed, because a detector's native keys are similar."""
