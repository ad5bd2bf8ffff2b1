"""Match the dtype of an input to that of a module: a model may be `half()` while its input is float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrainps.errors import ArgumentError


def matching(x: Tensor, module: nn.Module) -> Tensor:
    """Return a module's input in the dtype of its weights; unchanged under autocast, which chooses the dtype.

    Raises:
        ArgumentError: the input has whole numbers: pixels that were not preprocessed.
    """
    if not x.is_floating_point():
        raise ArgumentError(f"expected float numbers, not {x.dtype}: preprocess images first (pretrainps.preprocess(model)).")
    weight = next(module.parameters(), None)
    if weight is None or torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(weight.dtype)
