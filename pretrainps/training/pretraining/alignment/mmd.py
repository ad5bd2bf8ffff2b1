"""`mmd`: the maximum mean discrepancy between the features of the data sets is made small.

It has several Gaussian kernels: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012; Long et al., "Learning Transferable
Features with Deep Adaptation Networks", ICML 2015 (DAN). It looks at the pooled maps and at the pooled features of people.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from pretrainps.ops.precision import to_float32
from pretrainps.training.pretraining.alignment.base import Alignment, SubTask, TaskFeatures, register_alignment

_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths of the kernels, as multiples of the mean squared distance (DAN)."""


@register_alignment("mmd")
class MMDAlignment(Alignment):
    """Makes the distributions of pooled features alike, for every two data sets of a sub-task that are in the batch."""

    levels = ("image", "instance")

    def _losses(self, task: SubTask, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
        with torch.autocast(features.maps.device.type, enabled=False):
            inside = features.inside[:, None]
            pooled = (to_float32(features.maps) * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))  # (N, C4)
            return {
                "image": _pairwise_mmd(pooled, features.map_sets),
                "instance": _pairwise_mmd(to_float32(features.instances), features.instance_sets),
            }


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
