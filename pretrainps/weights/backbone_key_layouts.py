"""Key layouts of the backbones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pretrainps.errors import LayoutError
from pretrainps.weights.key_layout import KeyLayout, Tensors, rename


def _stage(prefix: str, shift: int) -> Callable[[re.Match[str]], str]:
    """Return a substitution that renumbers the stage in a pattern's first group."""
    return lambda match: f"{prefix}{int(match[1]) + shift}"


# ResNet: the package's own names are torchvision's, which timm and mmdetection share.


def _to_detectron2(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            (r"^layer(\d)", _stage("res", +1)),
            (r"^(conv|bn)1\.", r"stem.\g<1>1."),
            (r"\bbn(\d)\.", r"conv\1.norm."),
            (r"downsample\.0\.", "shortcut."),
            (r"downsample\.1\.", "shortcut.norm."),
        ),
    )
    # detectron2's FrozenBatchNorm2d does not count batches
    return {key: value for key, value in renamed.items() if not key.endswith("num_batches_tracked")}


def _from_detectron2(tensors: Tensors) -> Tensors:
    return rename(
        tensors,
        (
            (r"^res(\d)", _stage("layer", -1)),
            (r"^stem\.", ""),
            (r"\bconv(\d)\.norm\.", r"bn\1."),
            (r"shortcut\.norm\.", "downsample.1."),
            (r"shortcut\.", "downsample.0."),
        ),
    )


def _from_c4(tensors: Tensors) -> Tensors:
    """Convert names of NAE and SeqNet: conv1 to layer3 under `backbone`, layer4 in the RoI head."""
    return rename(tensors, ((r"^backbone\.(?!layer4)", ""), (r"^roi_heads\.box_head\.(?=layer4)", "")))


def _to_c4(tensors: Tensors, *, heads: tuple[str, ...]) -> Tensors:
    """Convert to names of NAE and SeqNet, with one copy of layer4 in each of the RoI heads."""
    result: Tensors = {}
    for key, value in tensors.items():
        if key.startswith("layer4."):
            result.update({f"roi_heads.{head}.{key}": value for head in heads})
        else:
            result[f"backbone.{key}"] = value
    return result


def _from_copied_c4(tensors: Tensors) -> Tensors:
    """Convert a backbone with two copies of layer4. If the two differ, it is a part of a trained SeqNet."""
    heads = ("roi_heads.box_head.", "roi_heads.reid_head.")
    first, second = ({key.removeprefix(head): tensors[key] for key in tensors if key.startswith(head)} for head in heads)
    if not (first and second):
        return _from_c4(tensors)
    if first.keys() != second.keys() or not all(torch.equal(value, second[key]) for key, value in first.items()):
        raise LayoutError(
            "its two copies of layer4 (box_head, reid_head) differ: it is part of a trained SeqNet. To take the box head's, "
            "give arch= (--arch), the backbone's architecture."
        )
    return _from_c4({key: value for key, value in tensors.items() if not key.startswith(heads[1])})


_NAE_HEADS = ("rpn.*", "roi_heads.box_predictor.*", "roi_heads.embedding_head.*", "roi_heads.reid_loss.*")

_RESNET = (
    KeyLayout(name="torchvision", use="model.load_state_dict({state}, strict=False)  # only fc.* is missing"),
    KeyLayout(name="timm", use="timm.create_model({arch!r}, num_classes=0, checkpoint_path={file!r})"),
    KeyLayout(
        name="mmdet",
        wrapper=("state_dict",),
        use="backbone=dict(type='ResNet', depth={depth}, init_cfg=dict(type='Pretrained', checkpoint={file!r}))",
    ),
    KeyLayout(
        name="detectron2",
        to_native=_from_detectron2,
        from_native=_to_detectron2,
        wrapper=("model",),
        suffix=".pkl",
        use="MODEL.WEIGHTS {file}, MODEL.RESNETS.STRIDE_IN_1X1 False, INPUT.FORMAT RGB, with the model's mean and std * 255",
    ),
    KeyLayout(
        name="nae",
        to_native=_from_c4,
        from_native=lambda tensors: _to_c4(tensors, heads=("box_head",)),
        wrapper=("model",),
        heads=_NAE_HEADS,
        use="model.load_state_dict({state}, strict=False)  # heads are missing, the backbone is whole",
    ),
    KeyLayout(
        name="seqnet",
        to_native=_from_copied_c4,
        from_native=lambda tensors: _to_c4(tensors, heads=("box_head", "reid_head")),
        wrapper=("model",),
        heads=(*_NAE_HEADS, "roi_heads.faster_rcnn_predictor.*", "roi_heads.reid_head.*"),
        use="model.load_state_dict({state}, strict=False)  # heads are missing, the backbone is whole",
    ),
)

# ShuffleNetV1: the package's own names are those of mmpretrain's, which psvis and its checkpoints use too.

_SHUFFLENET_V1 = (
    KeyLayout(
        name="mmdet",
        wrapper=("state_dict",),
        use="backbone=dict(type='ShuffleNetV1', groups=3, init_cfg=dict(type='Pretrained', checkpoint={file!r}))",
    ),
)

# SOLIDER's Swin: mmdetection's Swin names, with patch merging as an nn.Unfold, against timm's here.

_SWIN_NAMES = (
    ("patch_embed.projection.", "patch_embed.proj."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
)


def _from_solider(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            *((re.escape(theirs), ours) for theirs, ours in _SWIN_NAMES),
            # the original has a patch merging in the stage before it, timm in the stage after it
            (r"^stages\.(\d)(?=\.downsample)", _stage("layers.", +1)),
            (r"^stages\.", "layers."),
        ),
    )
    # the file's name decides: under native names the same tensors are in timm's order already
    theirs = {new for old, new in zip(tensors, renamed, strict=True) if old.startswith("stages.") and ".downsample." in old}
    return {key: _unfold_to_timm(value) if key in theirs else value for key, value in renamed.items()}


def _to_solider(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            (r"^layers\.(\d)(?=\.downsample)", _stage("stages.", -1)),
            (r"^layers\.", "stages."),
            *((re.escape(ours), theirs) for theirs, ours in _SWIN_NAMES),
        ),
    )
    ours = {new for old, new in zip(tensors, renamed, strict=True) if old.startswith("layers.") and ".downsample." in old}
    return {key: _timm_to_unfold(value) if key in ours else value for key, value in renamed.items()}


def _unfold_to_timm(value: Tensor) -> Tensor:
    """Reorder the last axis of 4C merged channels from nn.Unfold's (C, row, column) to timm's (column, row, C)."""
    lead = value.shape[:-1]
    return torch.movedim(value.reshape(*lead, -1, 2, 2), (-3, -2, -1), (-1, -2, -3)).reshape(value.shape).contiguous()


def _timm_to_unfold(value: Tensor) -> Tensor:
    lead = value.shape[:-1]
    return torch.movedim(value.reshape(*lead, 2, 2, -1), (-3, -2, -1), (-1, -2, -3)).reshape(value.shape).contiguous()


_SOLIDER_SWIN = (
    KeyLayout(
        name="solider",
        to_native=_from_solider,
        from_native=_to_solider,
        wrapper=("teacher",),
        reorders=True,
        unused=("*.relative_position_index",),
        use="the names inside SOLIDER's checkpoints after 'backbone.'",
    ),
)

_TIMM = (KeyLayout(name="timm", use="timm.create_model({arch!r}, num_classes=0, checkpoint_path={file!r})"),)

BACKBONE_LAYOUTS: Mapping[str, tuple[KeyLayout, ...]] = {
    "resnet": _RESNET,
    "shufflenet_v1": _SHUFFLENET_V1,
    "solider_swin": _SOLIDER_SWIN,
    "timm": _TIMM,
}
"""The layouts of each family of backbones besides the native names."""
