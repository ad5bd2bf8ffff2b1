"""A check for batch norm in training, which cannot compute statistics from a single row."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretrainps.errors import ArgumentError


def require_measurable(rows: int, what: str, remedy: str, *modules: nn.Module) -> None:
    """Check that modules with a batch norm in training get more than one row.

    Args:
        rows: Number of rows.
        what: Name of one row, for the message.
        remedy: What to do about too few rows, for the message.
        modules: The modules that get the rows.

    Raises:
        ArgumentError: there is a single row or none, and a batch norm in training.
    """
    if rows > 1 or not any(_measures(each) for module in modules for each in module.modules()):
        return
    raise ArgumentError(f"batch norm in training has nothing to measure in {'a single' if rows else 'no'} {what}. {remedy}")


def _measures(module: nn.Module) -> bool:
    # a synchronized batch norm counts the rows of all processes
    return isinstance(module, _BatchNorm) and module.training and not isinstance(module, nn.SyncBatchNorm)
