"""Running the line that a written graph is used by."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from pretrainps.export.graph.export import ExportResult


def used(written: ExportResult, outputs: tuple[str, ...], **inputs: Tensor) -> tuple[Tensor, ...]:
    """Execute a line of use as it was printed, on inputs of its names, and return what it assigns."""
    arrays = "onnxruntime" in written.use
    names: dict[str, Any] = {name: each.numpy() if arrays else each for name, each in inputs.items()}
    with warnings.catch_warnings(action="ignore", category=FutureWarning), torch.no_grad():  # torch.jit's end
        exec(written.use, names)
    return tuple(torch.as_tensor(names[name]) for name in outputs)
