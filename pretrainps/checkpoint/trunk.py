"""Tell what may be left out of a file from what may not: a classifier is beside the trunk, another block is in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pretrainps.checkpoint.prefixes import shared_prefixes

Shape = tuple[int, ...]

_ROOTS = ("backbone.", "box_stage.stage.", "reid_stage.stage.")
"""Where a backbone lies in a detector or in a model for crops."""
_PLAIN = re.compile(r"conv1\.weight|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.\w+|downsample\.[01]\.\w+)")
"""What a plain ResNet has in its stem and stages."""
_RESNETS: Mapping[tuple[bool, tuple[int, ...], int, int], str] = {
    # whether a block has three convolutions, blocks in each stage, the second convolution's channels out and in (a group)
    (False, (3, 4, 6, 3), 64, 64): "timm:resnet34",
    (False, (2, 2, 2, 2), 64, 64): "resnet18",
    (True, (3, 4, 6, 3), 64, 64): "resnet50",
    (True, (2, 2, 2, 2), 64, 64): "timm:resnet26",
    (True, (3, 4, 23, 3), 64, 64): "timm:resnet101",
    (True, (3, 8, 36, 3), 64, 64): "timm:resnet152",
    (True, (3, 4, 6, 3), 128, 4): "timm:resnext50_32x4d",
    (True, (3, 4, 23, 3), 128, 4): "timm:resnext101_32x4d",
    (True, (3, 4, 23, 3), 256, 8): "timm:resnext101_32x8d",
    (True, (3, 4, 6, 3), 128, 128): "timm:wide_resnet50_2",
    (True, (3, 4, 23, 3), 128, 128): "timm:wide_resnet101_2",
}


def is_in_trunk(key: str, model_keys: Collection[str]) -> bool:
    """Whether a key that a model does not have would change what the model computes, if the model had it.

    It does if it belongs to a module that the model has (`conv1.bias`, `layer3.6.conv1.weight`, `layer1.0.se.fc1.weight`), or
    continues a row of them (`layer5.0...` after `layer4`). A classifier, a neck or a counter does not.

    Args:
        key: A key of a file, under our own names.
        model_keys: The keys of the model.
    """
    for root in _ROOTS:
        inside = {each.removeprefix(root) for each in model_keys if each.startswith(root)}
        if inside and key.startswith(root):
            return is_in_trunk(key.removeprefix(root), inside)
    modules = {each.partition(".")[0] for each in model_keys if "." in each}
    module, dot, _ = key.partition(".")
    return bool(dot) and (module in modules or _row(module) in {_row(each) for each in modules} - {None})


def _row(module: str) -> str | None:
    """`layer3` -> `layer`; `None` for a name without a number."""
    found = re.fullmatch(r"(.*\D)\d+", module)
    return found[1] if found else None


def likely_architecture(shapes: Mapping[str, Shape]) -> str | None:
    """Return the ResNet that a file's keys and shapes are of, in torchvision's names after any prefix; `None` if of none.

    Args:
        shapes: The file's keys and shapes.
    """
    marks = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "layer4.0.conv2.weight")
    for prefix, count in shared_prefixes(shapes, marks):
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        second = inside.get("layer1.0.conv2.weight", ())
        # nothing more in its blocks (attention, other norms) and no bias in its convolutions
        plain = all(_PLAIN.fullmatch(key) for key in inside if key.startswith(("layer", "conv")))
        if count < len(marks) or len(second) != 4 or not plain:
            continue
        blocks = tuple(len({key.split(".")[1] for key in inside if key.startswith(f"layer{stage}.")}) for stage in range(1, 5))
        return _RESNETS.get(("layer1.0.conv3.weight" in inside, blocks, second[0], second[1]))
    return None
