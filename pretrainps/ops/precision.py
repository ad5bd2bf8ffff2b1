"""Conversion from half precision, for computations that need float32."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float32(x: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32, and wider types unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
