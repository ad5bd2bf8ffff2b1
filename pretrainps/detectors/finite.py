"""What a network computed is looked at before it is handed on.

Operators that take boxes may read memory that is not theirs where a box is no number. In training, NaN goes into a loss, so
that the training ends with its report, in all processes at the same step, and nothing waits for the device. Outside of it, an
error says so, for a network of NaN would otherwise seem to see nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pretrainps.errors import NonFiniteError


def require_finite(what: str, *computed: Tensor) -> None:
    """See that all numbers are finite. The device is waited for once.

    Args:
        what: What they are, for the message.
        computed: Float tensors on one device.

    Raises:
        NonFiniteError: they are not.
    """
    if torch.compiler.is_exporting():  # a graph cannot raise
        return
    if not math.isfinite(float(_total(computed))):
        raise NonFiniteError(
            f"the {what} that the network computed are not finite. Its weights are not (a training that diverged?), or "
            "half precision overflowed: load the weights again, or compute in float32."
        )


def spoiled_by(loss: Tensor, *computed: Tensor) -> Tensor:
    """Return a loss, or NaN if anything computed is not finite. Gradients are the loss's alone."""
    return loss + 0.0 * _total(computed)


def made_finite(x: Tensor) -> Tensor:
    """Return numbers with 0 for what is not finite; `spoiled_by` remembers that there was such a thing."""
    return x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _total(computed: Sequence[Tensor]) -> Tensor:
    """Return a number that is finite if all are: one infinity or NaN makes every sum such, and so do numbers near them."""
    return torch.stack([each.detach().sum(dtype=torch.float32) for each in computed]).sum()
