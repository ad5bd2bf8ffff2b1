"""The names that the original code bases of region detectors share, for a whole detector and for its backbone alone.

They wrote their files with torchvision 0.4, where the RPN's convolution was `rpn.head.conv`; later versions read that name and
write `rpn.head.conv.0.0`. Files are read under either name and written under the first, which both read.
"""

from __future__ import annotations

import re

from pretrainps.weights.key_layout import Tensors, rename

_NAMES = (
    ("roi_heads.box_head.layer4.", "box_stage.stage.layer4."),
    ("roi_heads.reid_head.layer4.", "reid_stage.stage.layer4."),
    ("roi_heads.faster_rcnn_predictor.", "proposal_head."),
    ("roi_heads.box_predictor.", "box_head."),
    ("roi_heads.embedding_head.projectors.feat_res4.", "embedding_head.projectors.c4."),
    ("roi_heads.embedding_head.projectors.feat_res5.", "embedding_head.projectors.c5."),
    ("roi_heads.embedding_head.", "embedding_head."),
    ("roi_heads.reid_loss.lut", "oim_loss.lookup_table"),
    ("roi_heads.reid_loss.cq", "oim_loss.queue"),
)
_CURSOR = "oim_loss.cursor"
"""The cursor of the queue. The originals keep it outside the state dict, so with their files it starts at 0."""


HEADS = ("rpn.*", "roi_heads.box_predictor.*", "roi_heads.embedding_head.*", "roi_heads.reid_loss.*")
"""Shell patterns of keys that a backbone leaves behind when it is taken out of such a detector."""


def to_native(tensors: Tensors) -> Tensors:
    """Return a detector's tensors under our own names."""
    rules = tuple((f"^{re.escape(theirs)}", ours) for theirs, ours in _NAMES)
    return rename(tensors, ((r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"), *rules))


def from_native(tensors: Tensors) -> Tensors:
    """Return a detector's tensors under the originals' names."""
    rules = tuple((f"^{re.escape(ours)}", theirs) for theirs, ours in _NAMES)
    kept = {key: value for key, value in tensors.items() if key != _CURSOR}
    return rename(kept, ((r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv."), *rules))


def backbone_to_native(tensors: Tensors) -> Tensors:
    """Read a ResNet with conv1 to layer3 under `backbone` and layer4 in the RoI head."""
    return rename(tensors, ((r"^backbone\.(?!layer4)", ""), (r"^roi_heads\.box_head\.(?=layer4)", "")))


def backbone_from_native(tensors: Tensors, *, heads: tuple[str, ...]) -> Tensors:
    """Write the same, with one copy of layer4 in each of the RoI heads."""
    result: Tensors = {}
    for key, value in tensors.items():
        if key.startswith("layer4."):
            result.update({f"roi_heads.{head}.{key}": value for head in heads})
        else:
            result[f"backbone.{key}"] = value
    return result
