"""A running mean of the weights. It is often better than the weights themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from pretrainps.weights.unwrap import unwrap


class WeightAverage:
    """The exponential moving average of a model's parameters.

    At first the mean would consist mostly of the weights at the start. So in step n at most (1 + n) / (10 + n) of it stays,
    as in TensorFlow's `ExponentialMovingAverage`. Buffers are not averaged: statistics of batch norm are means already, and
    look-up tables must stay as they are.

    Args:
        model: Its parameters at this moment are the mean's start.
        decay: Share of the mean that stays at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = unwrap(model), decay
        self.means = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the means towards the weights.

        Args:
            step: How many steps were taken before.
        """
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self.means[name].lerp_(parameter, weight)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's state with the means in place of the weights."""
        return {**self.model.state_dict(), **self.means}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the means out of what `state_dict` returned."""
        for name, mean in self.means.items():
            mean.copy_(state[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the means into the model, and the weights back at the end."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.model.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.means[name])
            self.means[name].copy_(kept)
