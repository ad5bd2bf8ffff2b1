"""Batch norm in training measures the rows of a batch; of one row there is nothing to measure."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretrainps.errors import ArgumentError


def require_measurable(rows: int, what: str, remedy: str, *modules: nn.Module) -> None:
    """See that modules with a batch norm in training are given more than one row.

    Args:
        rows: How many there are.
        what: What one is called.
        remedy: What to do about too few.
        modules: What they go through.

    Raises:
        ArgumentError: a single row or none, and a batch norm that measures it.
    """
    if rows > 1 or not any(_measures(each) for module in modules for each in module.modules()):
        return
    raise ArgumentError(f"batch norm in training has nothing to measure in {'a single' if rows else 'no'} {what}. {remedy}")


def _measures(module: nn.Module) -> bool:
    # one that is synchronized counts the rows of all processes
    return isinstance(module, _BatchNorm) and module.training and not isinstance(module, nn.SyncBatchNorm)
