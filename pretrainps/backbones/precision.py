"""What kind of number a module is given: a model may be `half()`, its input or the maps before it another kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrainps.errors import ArgumentError


def matching(x: Tensor, module: nn.Module) -> Tensor:
    """Return a module's input in the kind of number of its weights; as it is under autocast, which chooses itself.

    Raises:
        ArgumentError: whole numbers, which are pixels that nobody has preprocessed.
    """
    if not x.is_floating_point():
        raise ArgumentError(f"expected float numbers, not {x.dtype}: preprocess pictures first (pretrainps.preprocess(model)).")
    weight = next(module.parameters(), None)
    if weight is None or torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(weight.dtype)
