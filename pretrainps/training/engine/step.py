"""One training step: forward, backward, clipping, check, update. Accelerate sets devices and precision."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pretrainps.data.loading import fractions
from pretrainps.errors import ArgumentError, MissingPackageError, TrainingError
from pretrainps.training.engine.ema import WeightAverage
from pretrainps.training.engine.finite_check import refuse_non_finite
from pretrainps.training.engine.optimization import LearningRate, build_optimizer
from pretrainps.training.engine.processes import PATIENCE, Processes
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.engine.task import Batch, Task


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Results of a step."""

    losses: dict[str, float]
    """Means of each loss over the step's batches and over all processes."""
    grad_norm: float
    """Norm of the gradient of all parameters together, before clipping."""
    lr: float
    """Learning rate of the step."""
    images: int
    """Number of images in all processes."""


class Stepper:
    """Takes training steps.

    Args:
        task: The training, with its model.
        optim: Settings of the optimizer.
        loop: Settings of the loop, with precision and batches a step.
        rate: The learning rate of each step.
        accelerator: The result of `start_accelerate`.
        processes: The processes that train together.

    Attributes:
        average: The running mean of the weights, if the settings ask for one.
    """

    def __init__(
        self,
        task: Task,
        optim: OptimSettings,
        loop: LoopSettings,
        rate: LearningRate,
        accelerator: Any,
        processes: Processes,
    ) -> None:
        self.task, self.optim, self.loop, self.rate = task, optim, loop, rate
        self.accelerator, self.processes = accelerator, processes
        if loop.gradient_checkpointing:
            enable = getattr(task.model, "enable_gradient_checkpointing", None)
            if enable is None:
                raise ArgumentError(f"{type(task.model).__name__} has no gradient checkpointing: leave it off.")
            enable()
        task.model.train()
        if loop.channels_last:
            task.model.to(memory_format=torch.channels_last)
        half = [name for name, each in task.model.named_parameters() if each.dtype in (torch.float16, torch.bfloat16)]
        if half:
            raise ArgumentError(
                f"weights of the model are in half precision ({half[0]}, ...), in which steps of training are lost. Give "
                "model.float(), and set loop.precision to compute in half precision."
            )
        optimizer = build_optimizer(task.model, optim)
        self.model, self.optimizer = accelerator.prepare(_Objective(task.model), optimizer)
        self.parameters = [(name, each) for name, each in task.model.named_parameters() if each.requires_grad]
        self.average = WeightAverage(task.model, loop.ema_decay) if loop.ema_decay is not None else None

    def step(self, batches: Sequence[Batch], number: int, folder: Path) -> StepRecord:
        """Take a step.

        A parameter whose gradient is zero everywhere played no part in the step, and stays as it is. Neither momentum nor decay
        moves it, and AdamW's running means do not learn that its gradients are small. (DDP needs a gradient of each parameter,
        so a model must give zeros.)

        Args:
            batches: At least one; as many in each process.
            number: Steps taken before.
            folder: Folder in which a batch without a finite loss is recorded.

        Raises:
            TrainingError: a loss or a gradient is not finite; parameters without a gradient under several processes.
        """
        lr = self.rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums = self._backward(batches)
        if number == 0 and self.processes.count > 1:
            self._require_gradients()
        limit = math.inf if self.optim.clip_norm is None else self.optim.clip_norm
        norm = self.accelerator.clip_grad_norm_([each for _, each in self.parameters], limit)
        learning = [each for _, each in self.parameters if each.grad is not None]
        slopes = [each.grad.any().float() for each in learning if each.grad is not None]
        numbers = torch.stack([*(each.float() for each in sums.values()), norm.float(), *slopes])
        if self.processes.count > 1:
            numbers = self.accelerator.reduce(numbers, "mean")
        values = numbers.tolist()  # waits for the GPU
        losses, grad_norm = dict(zip(sums, values, strict=False)), values[len(sums)]
        names = [name for batch in batches for name in self.task.names(batch)]
        refuse_non_finite(
            losses,
            grad_norm,
            overflow_is_normal=self.accelerator.scaler is not None,
            folder=folder,
            step=number,
            lr=lr,
            own_losses=sums,
            images=names,
            processes=self.processes,
        )
        for parameter, slope in zip(learning, values[len(sums) + 1 :], strict=True):
            if not slope:
                parameter.grad = None
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(number)
        return StepRecord(losses, grad_norm, lr, len(names) * self.processes.count)

    def state(self) -> dict[str, Any]:
        """Return what `load_state` needs, apart from weights and means."""
        scaler = self.accelerator.scaler
        return {"optimizer": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _backward(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Compute gradients, and return the mean of each loss."""
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            # processes add up their gradients at the last batch only
            with contextlib.nullcontext() if number == len(batches) else self.accelerator.no_sync(self.model):
                losses = self.model(*on_device(batch, self.accelerator.device))
                self.accelerator.backward(torch.stack(list(losses.values())).sum() / len(batches))
            for name, loss in losses.items():
                share = loss.detach() / len(batches)
                sums[name] = sums[name] + share if name in sums else share
        return sums

    def _require_gradients(self) -> None:
        """Name parameters without a gradient. DDP waits for them, and its own error in the next step names none."""
        unused = [name for name, parameter in self.parameters if parameter.grad is None]
        if unused and not self.loop.find_unused_parameters:
            raise TrainingError(
                f"{len(unused)} parameters have no part in the losses of the first step: {', '.join(unused[:5])}. Freeze them "
                "(requires_grad_(False)), or, if they have one in other steps, set loop.find_unused_parameters=true."
            )


class _Objective(nn.Module):
    """Wraps the task's model, so that autocast and DDP are applied in training but not in evaluation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Any) -> dict[str, Tensor]:
        losses = self.model(*batch)
        if not isinstance(losses, dict) or not losses:
            raise TrainingError(f"{type(self.model).__name__} returned {type(losses).__name__}, not its losses by name.")
        return losses


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch for the model: on the device, with pixels as fractions."""
    from accelerate.utils import recursively_apply, send_to_device  # type: ignore[import-untyped]

    moved: Batch = recursively_apply(fractions, send_to_device(batch, device, non_blocking=True))
    return moved


def start_accelerate(loop: LoopSettings) -> Any:
    """Return an `Accelerator`, which finds the device and the other processes.

    Raises:
        MissingPackageError: it is not installed.
        ArgumentError: a precision that the device cannot compute in.
    """
    try:
        import accelerate  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingPackageError("accelerate is not installed: pip install 'pretrainps[train]'") from error
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # accelerate remembers the first settings for the whole process, and a second training may have others
    AcceleratorState._reset_state(reset_partial_state=not (dist.is_available() and dist.is_initialized()))
    accelerator = accelerate.Accelerator(
        mixed_precision={"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[loop.precision],
        # without this, processes on machines that have no accelerator would not see each other
        cpu=loop.device == "cpu" or not torch.accelerator.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=loop.find_unused_parameters),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    if loop.precision == "float16" and accelerator.device.type == "cpu":
        raise ArgumentError("loop.precision=float16 needs a GPU; on a CPU take float32, or bfloat16.")
    return accelerator
