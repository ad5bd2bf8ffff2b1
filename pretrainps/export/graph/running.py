"""Run a written graph from Python, at any score threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

THRESHOLD = "score_threshold"
"""What the threshold is called in a file."""

Run = Callable[[Mapping[str, Tensor], float | None], tuple[Tensor, ...]]
"""Runs a file on inputs by name, perhaps with a score threshold in place of its own."""


def running(module: nn.Module) -> Run:
    """Return how to run a module loaded by PyTorch."""
    buffer = dict(module.named_buffers()).get(THRESHOLD)
    own = 0.0 if buffer is None else float(buffer)

    def run(inputs: Mapping[str, Tensor], threshold: float | None) -> tuple[Tensor, ...]:
        if buffer is not None:
            buffer.fill_(own if threshold is None else threshold)
        found = module(**inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    return run
