"""Loss weights that are learned: each loss has a variance of its own, which the model learns.

Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR 2018,
equations 7 to 10: a regression with variance v costs L / (2 v) + log(v) / 2, a classification L / v + log(v) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn, tensor

from pretrainps.errors import ArgumentError

LossKind = Literal["classification", "regression"]


class UncertaintyWeights(nn.Module):
    """Weighs losses by learned variances.

    The parameters are log v, one number for each loss. They have no weight decay (`parameter_groups`), which would pull every
    weight towards 1 or 1/2.

    Args:
        kinds: The kind of each loss, by its name.
        start: The weight of each loss at the start.

    Raises:
        ArgumentError: a weight of 0 or below, which is not possible with any variance.

    Example:
        >>> import torch
        >>> weights = UncertaintyWeights({"loss_cls": "classification"}, {"loss_cls": 1.0})
        >>> weights({"loss_cls": torch.tensor(2.0)})["loss_cls"].item()
        2.0
    """

    def __init__(self, kinds: Mapping[str, LossKind], start: Mapping[str, float]) -> None:
        super().__init__()
        self.factors = {name: 0.5 if kind == "regression" else 1.0 for name, kind in kinds.items()}
        self.log_variances = nn.ParameterDict()
        for name, factor in self.factors.items():
            if not start[name] > 0:
                raise ArgumentError(f"{name}: a learned weight must start above 0, not at {start[name]}. Use fixed weights.")
            self.log_variances[name] = nn.Parameter(tensor(-math.log(start[name] / factor)))

    def forward(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each loss weighted, plus its cost of a large variance. The sum may be negative."""
        return {
            name: self.factors[name] * (-self.log_variances[name]).exp() * loss + 0.5 * self.log_variances[name]
            for name, loss in losses.items()
        }

    def weights(self) -> dict[str, float]:
        """Return the current factor of each loss."""
        return {name: factor * math.exp(-float(self.log_variances[name].detach())) for name, factor in self.factors.items()}
