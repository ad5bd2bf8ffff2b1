"""Decide which keys of a file may be left out: a classifier may, but a further block of the trunk may not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from pretrainps.weights.prefixes import shared_prefixes

Shape = tuple[int, ...]

_ROOTS = ("backbone.", "box_stage.stage.", "reid_stage.stage.", "")
"""Prefixes of a backbone in a detector, in a model for crops, and alone."""
_PLAIN = re.compile(r"conv1\.weight|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.\w+|downsample\.[01]\.\w+)")
"""Modules in the stem and the stages of a plain ResNet."""
_RESNETS: Mapping[tuple[bool, tuple[int, ...], int, int], str] = {
    # three convolutions in a block or not, blocks in each stage, channels of the second convolution: out, and in per group
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


def in_trunk(keys: Iterable[str], model_keys: Collection[str]) -> set[str]:
    """Return the keys that a model does not have, but that would change its computation.

    These keys belong to a module of the model (`conv1.bias`, `layer3.6.conv1.weight`, `layer1.0.se.fc1.weight`), or continue a
    numbered row of modules (`layer5.0...` after `layer4`). A classifier, a neck or a counter does not.

    Args:
        keys: Keys of a file, under native names.
        model_keys: The keys of the model.
    """
    # a detector's backbones are compared by the modules inside them, the rest by its own modules
    places = {root: _modules(each.removeprefix(root) for each in model_keys if each.startswith(root)) for root in _ROOTS}
    found = set()
    for key in keys:
        root = next((root for root in _ROOTS if key.startswith(root) and places[root]), "")
        module, dot, _ = key.removeprefix(root).partition(".")
        if dot and {module, _row(module)} & places[root]:
            found.add(key)
    return found


def _modules(keys: Iterable[str]) -> set[str | None]:
    """Return the names of the outermost modules, and of their numbered rows."""
    modules = {key.partition(".")[0] for key in keys if "." in key}
    return modules | {_row(module) for module in modules} - {None}


def _row(module: str) -> str | None:
    """Return the row of a module: `layer3` -> `layer*`; `None` for a name without a number."""
    found = re.fullmatch(r"(.*\D)\d+", module)
    return f"{found[1]}*" if found else None


def likely_architecture(shapes: Mapping[str, Shape]) -> str | None:
    """Return the ResNet of a file's keys and shapes, with torchvision's names after any prefix; `None` if there is none.

    Args:
        shapes: The file's keys and shapes.
    """
    marks = ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "layer4.0.conv2.weight")
    for prefix, count in shared_prefixes(shapes, marks):
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        second = inside.get("layer1.0.conv2.weight", ())
        # no other modules in its blocks (attention, other norms), and no bias in its convolutions
        plain = all(_PLAIN.fullmatch(key) for key in inside if key.startswith(("layer", "conv")))
        if count < len(marks) or len(second) != 4 or not plain:
            continue
        blocks = tuple(len({key.split(".")[1] for key in inside if key.startswith(f"layer{stage}.")}) for stage in range(1, 5))
        return _RESNETS.get(("layer1.0.conv3.weight" in inside, blocks, second[0], second[1]))
    return None
