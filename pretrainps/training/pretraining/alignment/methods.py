"""Intra-task alignment: features of the data sets of one sub-task are made alike, so that what is learned fits none alone.

The paper (Tian et al., "Divide and Conquer: Hybrid Pre-training for Person Search", AAAI 2024) has an intra-task alignment
module "that alleviates domain discrepancy under limited resources". How it works we could not find, and its code was never
published. **What is here is this package's own design, not the paper's.** Where each idea is from:

- `adversarial`: discriminators behind a gradient reversal (Ganin & Lempitsky, "Unsupervised Domain Adaptation by
  Backpropagation", ICML 2015: DANN), one on the map and one on the regions (Chen et al., "Domain Adaptive Faster R-CNN for
  Object Detection in the Wild", CVPR 2018). Theirs tell a source from a target; ours tell the data sets of a sub-task apart,
  however many there are, and each sub-task has a pair of its own. No consistency term binds the two.
- `mmd`: the maximum mean discrepancy with several Gaussian kernels (Gretton et al., JMLR 2012; Long et al., "Learning
  Transferable Features with Deep Adaptation Networks", ICML 2015: DAN), on the same two kinds of features.
- `domain_norm`: a batch norm a data set (Chang et al., "Domain-Specific Batch Normalization", CVPR 2019: DSBN), made one again
  at the end; see `pretrainps.training.pretraining.alignment.domain_norm`.

Whichever it is, a sub-task with a single data set is left as it is. Scenes and crops are never aligned with each other: a
detector is to tell people from background, an embedding people from people.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.errors import ArgumentError
from pretrainps.ops.precision import widened

SubTask = Literal["detection", "reid"]
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels of MMD, as multiples of the mean squared distance (DAN)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentSettings:
    """Which alignment, and how strong.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    kind: Literal["adversarial", "mmd", "domain_norm", "none"] = "adversarial"
    """See the module's text."""
    weight: float = 0.1
    """Weight of each loss that aligns; 0.1 is Domain Adaptive Faster R-CNN's."""
    width: int = 128
    """`adversarial`: hidden channels of the discriminators."""

    def __post_init__(self) -> None:
        if self.kind not in ("adversarial", "mmd", "domain_norm", "none"):
            raise ArgumentError(
                f"AlignmentSettings.kind must be 'adversarial', 'mmd', 'domain_norm' or 'none', not {self.kind!r}."
            )
        if not 0.0 <= self.weight < math.inf:
            raise ArgumentError(f"AlignmentSettings.weight must be a number of at least 0, not {self.weight}.")
        if self.width < 1:
            raise ArgumentError(f"AlignmentSettings.width must be at least 1, not {self.width}.")


@dataclass(frozen=True, slots=True)
class TaskFeatures:
    """What one batch of a sub-task looks like inside the network."""

    maps: Tensor
    """(N, C4, h, w) trunk maps of scenes or crops."""
    inside: Tensor
    """(N, h, w) True where there is picture, False where padding."""
    map_sets: Tensor
    """(N,) which data set each is of."""
    instances: Tensor
    """(R, C5) pooled features of people: of the positive regions, or of the crops."""
    instance_sets: Tensor
    """(R,) which data set each is of."""


class Alignment(nn.Module):
    """The ways to align; this one leaves everything as it is.

    Attributes:
        levels: What it has losses on: "image", "instance".

    Args:
        sets: Number of data sets of each sub-task.
    """

    levels: tuple[str, ...] = ()

    def __init__(self, sets: Mapping[SubTask, int]) -> None:
        super().__init__()
        self.sets = dict(sets)

    def forward(self, task: SubTask, features: TaskFeatures, progress: float = 1.0) -> dict[str, Tensor]:
        """Return the unweighted losses that align a sub-task, by `names`.

        Args:
            task: Which.
            features: What its data sets look like.
            progress: Share of the training that is done.
        """
        if not self.names(task):
            return {}
        losses = self._losses(task, features, progress)
        return {name: losses[level] for name, level in zip(self.names(task), self.levels, strict=True)}

    def names(self, task: SubTask) -> list[str]:
        """Return `loss_align_TASK_LEVEL` for each level; none for a sub-task with a single data set."""
        return [f"loss_align_{task}_{level}" for level in self.levels] if self.sets[task] > 1 else []

    def prepare(self, half: Backbone) -> None:
        """Change the trunk or the last stage, which is about to be trained."""

    def rows(self, task: SubTask, counts: list[int]) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which the backbone gets rows of a sub-task's data sets, so many of each, in order."""
        return contextlib.nullcontext()

    def plain_state(self, half: Backbone) -> dict[str, Tensor]:
        """Return the state of a half that was prepared, as a plain backbone has it."""
        return half.state_dict()

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        """Return the loss on each level, of a sub-task with two or more data sets."""
        return {}


class AdversarialAlignment(Alignment):
    """Discriminators learn to tell data sets apart; the backbone, behind a gradient reversal, to make that impossible.

    The image-level discriminator judges each place of the map, the instance-level one each person.

    Args:
        sets: Number of data sets of each sub-task.
        channels: Channels of the backbone's maps, by name.
        settings: Width.
    """

    levels = ("image", "instance")

    def __init__(self, sets: Mapping[SubTask, int], channels: Mapping[str, int], settings: AlignmentSettings) -> None:
        super().__init__(sets)
        several = {task: count for task, count in sets.items() if count > 1}
        width = settings.width
        self.image = nn.ModuleDict({task: _image_discriminator(channels["c4"], width, n) for task, n in several.items()})
        self.instance = nn.ModuleDict({task: _instance_discriminator(channels["c5"], width, n) for task, n in several.items()})

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        strength = reversal(progress)
        places = widened(self.image[task](reverse_gradient(features.maps, strength)))  # (N, sets, h, w)
        wanted = features.map_sets[:, None, None].expand_as(features.inside)
        each = F.cross_entropy(places, wanted, reduction="none") * features.inside
        people = widened(self.instance[task](reverse_gradient(features.instances, strength)))  # (R, sets)
        total = F.cross_entropy(people, features.instance_sets, reduction="sum")
        return {
            # a mean over images of means over places: a large image counts as much as a small one
            "image": (each.sum(dim=(1, 2)) / features.inside.sum(dim=(1, 2))).mean(),
            "instance": total / max(len(people), 1),
        }


class MMDAlignment(Alignment):
    """Makes the distributions of pooled features alike, for every two data sets of a sub-task that are in the batch."""

    levels = ("image", "instance")

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        with torch.autocast(features.maps.device.type, enabled=False):
            inside = features.inside[:, None]
            pooled = (widened(features.maps) * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))  # (N, C4)
            return {
                "image": _pairwise_mmd(pooled, features.map_sets),
                "instance": _pairwise_mmd(widened(features.instances), features.instance_sets),
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


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy between two samples; 0 if they are the same, never below.

    With k the mean of Gaussian kernels exp(-|a - b|^2 / (m s)) for m in 1/4, 1/2, 1, 2, 4, and s the mean squared distance
    between two different rows of both samples, taken as a constant: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), means
    over all pairs (Gretton et al. 2012, equation 5).

    Args:
        x: (N, C), N at least 1.
        y: (M, C), M at least 1.
    """
    both = torch.cat([x, y])
    both = both - both.mean(dim=0).detach()  # distances do not change, and lose less to rounding
    squares = both.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2.0 * both @ both.T).clamp(min=0.0)  # (N + M, N + M)
    distances = distances.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), 0.0)
    scale = (distances.detach().sum() / (len(both) * (len(both) - 1))).clamp(min=1e-12)
    kernel = torch.stack([(-distances / (factor * scale)).exp() for factor in _BANDWIDTHS]).mean(dim=0)
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2.0 * kernel[:n, n:].mean()


def _pairwise_mmd(features: Tensor, sets: Tensor) -> Tensor:
    """Return the mean over pairs of data sets; 0, with a gradient of 0, if there is none.

    A data set with a single row is left out: it would say nothing of how its features are spread.
    """
    samples = [features[sets == each] for each in sets.unique().tolist()]
    pairs = [mmd(x, y) for x, y in combinations([rows for rows in samples if len(rows) > 1], 2)]
    return torch.stack(pairs).mean() if pairs else 0.0 * features.sum()


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
