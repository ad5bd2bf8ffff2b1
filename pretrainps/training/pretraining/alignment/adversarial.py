"""`adversarial`: discriminators learn to tell data sets apart, and the backbone learns to make that impossible.

The gradient reversal is that of Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015 (DANN). One
discriminator judges the map and one the regions, as in Chen et al., "Domain Adaptive Faster R-CNN for Object Detection in the
Wild", CVPR 2018. Their discriminators tell a source from a target. Ours tell the data sets of a sub-task apart, however many
there are, and each sub-task has a pair of its own. There is no consistency term between the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.ops.precision import to_float32
from pretrainps.training.pretraining.alignment.base import (
    Alignment,
    AlignmentSettings,
    SubTask,
    TaskFeatures,
    register_alignment,
)


@register_alignment("adversarial")
class AdversarialAlignment(Alignment):
    """Discriminators learn to tell data sets apart; the backbone, behind a gradient reversal, to make that impossible.

    The image-level discriminator judges each place of the map, the instance-level one each person.

    Args:
        sets: Number of data sets of each sub-task.
        channels: Channels of the backbone's maps, by name.
        settings: Their `width`.
    """

    levels = ("image", "instance")

    def __init__(self, sets: Mapping[SubTask, int], channels: Mapping[str, int], settings: AlignmentSettings) -> None:
        super().__init__(sets, channels, settings)
        several = {task: count for task, count in sets.items() if count > 1}
        width = settings.width
        self.image = nn.ModuleDict({task: _image_discriminator(channels["c4"], width, n) for task, n in several.items()})
        self.instance = nn.ModuleDict({task: _instance_discriminator(channels["c5"], width, n) for task, n in several.items()})

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        strength = reversal(progress)
        places = to_float32(self.image[task](reverse_gradient(features.maps, strength)))  # (N, sets, h, w)
        wanted = features.map_sets[:, None, None].expand_as(features.inside)
        each = F.cross_entropy(places, wanted, reduction="none") * features.inside
        people = to_float32(self.instance[task](reverse_gradient(features.instances, strength)))  # (R, sets)
        total = F.cross_entropy(people, features.instance_sets, reduction="sum")
        return {
            # a mean over images of means over places: a large image counts as much as a small one
            "image": (each.sum(dim=(1, 2)) / features.inside.sum(dim=(1, 2))).mean(),
            "instance": total / max(len(people), 1),
        }


class _Reversal(torch.autograd.Function):
    """The identity forwards; backwards a factor of -strength."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reversal(progress: float) -> float:
    """Return how strong the reversal is after a share p of the training: 2 / (1 + exp(-10 p)) - 1 (DANN).

    Example:
        >>> reversal(0.0), round(reversal(1.0), 3)
        (0.0, 1.0)
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return `x`; its gradient will be turned round and multiplied by `strength`."""
    return _Reversal.apply(x, strength)  # type: ignore[no-any-return]


def _image_discriminator(channels: int, width: int, sets: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, sets, 1))


def _instance_discriminator(channels: int, width: int, sets: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, sets),
    )
