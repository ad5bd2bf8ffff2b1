"""The optimizer and the learning rate of each step."""

from __future__ import annotations

import bisect
import math
from typing import Any

import torch
from torch import nn

from pretrainps.errors import TrainingError
from pretrainps.training.engine.settings import OptimSettings


def build_optimizer(model: nn.Module, optim: OptimSettings) -> torch.optim.Optimizer:
    """Return the optimizer of all trainable parameters.

    Raises:
        TrainingError: all parameters are frozen.
    """
    groups = parameter_groups(model, optim)
    if not groups:
        raise TrainingError("no parameter of the model is trainable: all are frozen. Unfreeze some.")
    if optim.kind == "adamw":
        return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)


def parameter_groups(model: nn.Module, optim: OptimSettings) -> list[dict[str, Any]]:
    """Return the trainable parameters: the group with weight decay first, each in the model's order, without empty groups.

    Parameters with a single number never decay. They are logarithms of loss weights or of a temperature, and small values are
    no better than large ones.
    """
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decaying if _decays(name, parameter, optim) else others).append(parameter)
    groups = [{"params": decaying, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: nn.Parameter, optim: OptimSettings) -> bool:
    if parameter.ndim == 0:
        return False
    if optim.decay == "no_biases":
        return "bias" not in name
    return optim.decay == "all" or parameter.ndim >= 2


class LearningRate:
    """The learning rate as a function of the step only, so that a resumed run needs no other state.

    Args:
        optim: The settings.
        batch: Images in a step, counted over all processes.
        steps_per_epoch: Steps in an epoch.
        steps: Steps of the whole training.

    Attributes:
        full: The learning rate after the warm-up, scaled to the batch.

    Example:
        >>> from pretrainps.training.engine.settings import OptimSettings
        >>> optim = OptimSettings(lr=0.1, reference_batch=4, milestones=(2,))
        >>> rate = LearningRate(optim, batch=8, steps_per_epoch=10, steps=30)
        >>> rate(0), round(rate(20), 6)
        (0.2, 0.02)
    """

    def __init__(self, optim: OptimSettings, *, batch: int, steps_per_epoch: int, steps: int) -> None:
        self.optim = optim
        self.full = optim.lr * (batch / optim.reference_batch if optim.reference_batch else 1.0)
        self.warmup = optim.warmup_steps or round(optim.warmup_epochs * steps_per_epoch)
        self.milestones = [round(epoch * steps_per_epoch) for epoch in optim.milestones]
        self.steps = steps

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, from 0."""
        return self.full * self._scheduled(step) * self._warmed(step)

    def _warmed(self, step: int) -> float:
        start = self.optim.warmup_factor
        return 1.0 if step >= self.warmup else start + (1.0 - start) * step / self.warmup

    def _scheduled(self, step: int) -> float:
        optim = self.optim
        if optim.schedule == "steps":
            return float(optim.gamma ** bisect.bisect_right(self.milestones, step))
        if optim.schedule == "cosine":
            done = min(1.0, max(0, step - self.warmup) / max(1, self.steps - self.warmup))
            return optim.final_factor + (1.0 - optim.final_factor) * (1.0 + math.cos(math.pi * done)) / 2
        return 1.0
