"""A loss that is not finite ends the run before the step is taken. The error names the images of the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrainps.errors import TrainingError
from pretrainps.training.engine.checkpoints import write_json
from pretrainps.training.engine.processes import Processes


def refuse_non_finite(
    losses: Mapping[str, float],
    grad_norm: float,
    *,
    overflow_is_normal: bool,
    folder: Path,
    step: int,
    lr: float,
    own_losses: Mapping[str, Any],
    images: Sequence[str],
    processes: Processes,
) -> None:
    """Raise if a loss or the gradient is NaN or infinite. All processes come to the same result.

    Args:
        losses: Means of the losses over all processes.
        grad_norm: Norm of the gradient of all parameters together.
        overflow_is_normal: Whether an infinite gradient only means that float16's scale was too large. The scale then shrinks.
        folder: Folder of the run, where `nonfinite.json` is written.
        step: Steps taken before this one.
        lr: The learning rate.
        own_losses: Losses of this process, as numbers or as tensors with one element.
        images: Names of the images of this process.
        processes: All processes.

    Raises:
        TrainingError: naming the step and what is not finite.
    """
    wrong = [name for name, value in losses.items() if not math.isfinite(value)]
    if not wrong and not math.isfinite(grad_norm) and not overflow_is_normal:
        wrong = ["the gradient"]
    if not wrong:
        return
    shares = processes.gather({"losses": {name: str(float(each)) for name, each in own_losses.items()}, "images": [*images]})
    record = folder / "nonfinite.json"
    if processes.is_main:
        write_json(record, {"step": step, "lr": lr, "grad_norm": str(grad_norm), "wrong": wrong, "processes": shares})
    raise TrainingError(
        f"step {step + 1}: {', '.join(wrong)} is not finite, at a learning rate of {lr:g}. The step was not taken; the images "
        f"of its batch are named in {record}, and the checkpoints are from before. Look at these images and their boxes; "
        "if they are sound, resume with a lower optim.lr, a longer warm-up, a smaller optim.clip_norm, or in float32."
    )
