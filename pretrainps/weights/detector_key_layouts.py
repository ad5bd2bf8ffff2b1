"""Key layouts of whole detectors: the names of NAE4PS and SeqNet.

Both wrote their files with torchvision 0.4, which names the RPN's convolution `rpn.head.conv`. Later versions read that name
and write `rpn.head.conv.0.0`. Files are read with either name, and written with the first, which all versions read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pretrainps.weights.key_layout import KeyLayout, Tensors, rename

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
_UNUSED = "roi_heads.box_predictor.cls_score"
"""A classifier in NAE's files that is not used."""


def _to_native(tensors: Tensors) -> Tensors:
    rules = tuple((f"^{re.escape(theirs)}", ours) for theirs, ours in _NAMES)
    return rename(tensors, ((r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"), *rules))


def _from_native(tensors: Tensors) -> Tensors:
    rules = tuple((f"^{re.escape(ours)}", theirs) for theirs, ours in _NAMES)
    kept = {key: value for key, value in tensors.items() if key != _CURSOR}
    return rename(kept, ((r"^rpn\.head\.conv\.0\.0\.", "rpn.head.conv."), *rules))


def _nae_from_native(tensors: Tensors) -> Tensors:
    """Add the unused classifier, as zeros: NAE4PS loads strictly."""
    renamed = _from_native(tensors)
    regressor = renamed.get("roi_heads.box_predictor.bbox_pred.0.weight")
    if regressor is None:
        return renamed
    return {
        **renamed,
        f"{_UNUSED}.weight": regressor.new_zeros(2, regressor.shape[1]),
        f"{_UNUSED}.bias": regressor.new_zeros(2),
    }


_NAE = KeyLayout(
    name="nae",
    to_native=_to_native,
    from_native=_nae_from_native,
    wrapper=("model",),
    unused=(f"{_UNUSED}.weight", f"{_UNUSED}.bias"),
    use="model.load_state_dict({state})  # the whole detector, strictly",
)
_SEQNET = KeyLayout(
    name="seqnet",
    to_native=_to_native,
    from_native=_from_native,
    wrapper=("model",),
    use="model.load_state_dict({state})  # the whole detector, strictly",
)

DETECTOR_LAYOUTS: Mapping[str, tuple[KeyLayout, ...]] = {
    "nae-resnet": (_NAE,),
    "nae+-resnet": (_NAE,),
    "seqnet-resnet": (_SEQNET,),
}
"""The layouts of each detector besides the native names, by detector and family of backbone."""
