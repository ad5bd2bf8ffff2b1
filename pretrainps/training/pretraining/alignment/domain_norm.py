"""`domain_norm`: a batch norm for every data set while pre-training, and one plain batch norm afterwards.

Chang et al., "Domain-Specific Batch Normalization for Unsupervised Domain Adaptation", CVPR 2019 (DSBN): data sets differ in
contrast, colour and sharpness, and much of that is taken away if each is normalized by its own statistics. Each data set of
both sub-tasks has its own statistics, scale and shift; convolutions are shared.

Merging is ours. In eval mode a batch norm is a scale and a shift for each channel, and so is the mean of several. The merged
norm is that mean, exactly: on any features it gives the mean of what the data sets' norms give. Its running mean and variance
are those of a mixture of the data sets in equal parts (law of total variance), and its weight and bias are solved for. So it is
also a good start where statistics keep changing, as in fine-tuning with live batch norm.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.training.pretraining.alignment.base import Alignment, AlignmentSettings, SubTask, register_alignment


class _Rows:
    """How many rows of the current batch are of each data set; all norms share it."""

    def __init__(self) -> None:
        self.counts: list[int] | None = None


class DomainNorm(nn.Module):
    """Batch norms in place of one, one a data set.

    Args:
        norm: The batch norm that is replaced. Each new one starts as a copy of it.
        sets: How many data sets there are.
        rows: How many rows of the batch are of each.
    """

    def __init__(self, norm: nn.BatchNorm2d, sets: int, rows: _Rows) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(sets))
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each data set's rows by its own norm; in eval mode without known rows, all by the merged one.

        (N, C, H, W) -> (N, C, H, W).
        """
        if self.rows.counts is None:
            if self.training:
                raise ArgumentError(
                    "domain_norm has one batch norm for each data set, and must be told which rows are of which. It cannot be "
                    "trained with gradient checkpointing, nor outside HybridModel."
                )
            return self.merged()(x)  # type: ignore[no-any-return]
        parts = zip(self.norms, x.split(self.rows.counts), strict=True)
        return torch.cat([norm(part) for norm, part in parts if len(part)])

    @torch.no_grad()
    def merged(self) -> nn.BatchNorm2d:
        """Return one plain batch norm in place of all; see the module's text."""
        result = copy.deepcopy(self.norms[0])
        assert isinstance(result, nn.BatchNorm2d)
        means, variances = (
            torch.stack([norm.get_buffer(name) for norm in self.norms]) for name in ("running_mean", "running_var")
        )
        weights, biases = (torch.stack([norm.get_parameter(name) for norm in self.norms]) for name in ("weight", "bias"))
        mean = means.mean(dim=0)  # (sets, C) -> (C,)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        slopes = weights / (variances + result.eps).sqrt()
        slope, shift = slopes.mean(dim=0), (biases - slopes * means).mean(dim=0)
        result.get_buffer("running_mean").copy_(mean)
        result.get_buffer("running_var").copy_(variance)
        result.weight.copy_(slope * (variance + result.eps).sqrt())
        result.bias.copy_(shift + slope * mean)
        return result


@register_alignment("domain_norm")
class DomainNormAlignment(Alignment):
    """Gives every data set batch norms of its own; there is no loss.

    Args:
        sets: Number of data sets of each sub-task.
        channels: Channels of the backbone's maps, which play no part.
        settings: They play no part.
    """

    has_parameters_per_set = True

    def __init__(self, sets: Mapping[SubTask, int], channels: Mapping[str, int], settings: AlignmentSettings) -> None:
        super().__init__(sets, channels, settings)
        self._rows = _Rows()
        total = 0
        self._first: dict[SubTask, int] = {}
        for task, count in sets.items():
            self._first[task] = total
            total += count
        self._total = total

    def prepare(self, half: Backbone) -> None:
        """Put a `DomainNorm` in place of every batch norm.

        Raises:
            UnsupportedModelError: there is none.
        """
        found = [name for name, module in half.named_modules() if isinstance(module, nn.BatchNorm2d)]
        if not found:
            raise UnsupportedModelError(
                f"{half.arch} has no batch norm, so there is nothing for 'domain_norm' to align. Use 'adversarial' or 'mmd'."
            )
        for name in found:
            norm = half.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)
            half.set_submodule(name, DomainNorm(norm, self._total, self._rows))

    @contextlib.contextmanager
    def rows(self, task: SubTask, counts: list[int]) -> Iterator[None]:
        """Tell the norms how many rows of each of the sub-task's data sets come, in order."""
        first = self._first[task]
        before, self._rows.counts = self._rows.counts, [0] * first + counts + [0] * (self._total - first - len(counts))
        try:
            yield
        finally:
            self._rows.counts = before

    def plain_state(self, half: Backbone) -> dict[str, Tensor]:
        """Return the state of the half with merged norms."""
        plain = copy.deepcopy(half)
        for name, module in list(plain.named_modules()):
            if isinstance(module, DomainNorm):
                plain.set_submodule(name, module.merged())
        return plain.state_dict()
