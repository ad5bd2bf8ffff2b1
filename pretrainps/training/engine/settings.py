"""Settings of a training: of the optimizer and of the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pretrainps.errors import ArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimSettings:
    """Settings of the optimizer. The defaults are those of Chen et al. (CVPR 2020) and of Li and Miao (AAAI 2021).

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    """The optimizer."""
    lr: float = 0.003
    """Learning rate after the warm-up."""
    reference_batch: int | None = None
    """Images in a step for which `lr` is meant. With more or fewer it is scaled in proportion. `None`: `lr` is not scaled."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's running means."""
    weight_decay: float = 5e-4
    """Weight decay of SGD and AdamW."""
    decay: Literal["all", "no_biases", "matrices"] = "all"
    """The parameters that decay. `all`: every parameter (Li and Miao, AAAI 2021). `no_biases`: all without "bias" in their
    names (Chen et al., CVPR 2020). `matrices`: only those of two or more dimensions, so neither biases nor norms (usual for
    transformers). Parameters with a single number never decay."""
    warmup_steps: int = 0
    """Steps in which the learning rate grows evenly to its full value."""
    warmup_epochs: float = 0.0
    """The same in epochs, instead of `warmup_steps`. The papers have 1."""
    warmup_factor: float = 0.001
    """Share of the learning rate at the first step of a warm-up."""
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    """`steps`: multiplied by `gamma` at each milestone. `cosine`: along half a wave until the last step."""
    milestones: tuple[float, ...] = ()
    """The milestones, in epochs from the start."""
    gamma: float = 0.1
    """Factor at each milestone."""
    final_factor: float = 0.0
    """Share of the learning rate at the end of a cosine."""
    clip_norm: float | None = 10.0
    """Largest norm of the gradient of all parameters together. Longer gradients are scaled down. `None`: no limit."""

    def __post_init__(self) -> None:
        _require(self, "kind", self.kind in ("sgd", "adamw"), "'sgd' or 'adamw'")
        _require(self, "decay", self.decay in ("all", "no_biases", "matrices"), "'all', 'no_biases' or 'matrices'")
        _require(self, "schedule", self.schedule in ("steps", "cosine", "constant"), "'steps', 'cosine' or 'constant'")
        for name in ("lr", "gamma"):
            _require(self, name, 0.0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("weight_decay", "warmup_epochs", "warmup_steps"):
            _require(self, name, 0.0 <= getattr(self, name) < math.inf, "a number of at least 0")
        for name in ("warmup_factor", "final_factor"):
            _require(self, name, 0.0 <= getattr(self, name) <= 1.0, "in 0..1")
        _require(self, "momentum", 0.0 <= self.momentum < 1.0, "at least 0 and below 1")
        _require(self, "betas", all(0.0 <= beta < 1.0 for beta in self.betas), "two numbers of at least 0 and below 1")
        _require(self, "clip_norm", self.clip_norm is None or self.clip_norm > 0.0, "a number above 0, or nothing")
        _require(self, "reference_batch", self.reference_batch is None or self.reference_batch >= 1, "at least 1, or nothing")
        rising = all(first < second for first, second in zip((0.0, *self.milestones), self.milestones, strict=False))
        _require(self, "milestones", rising, "rising numbers above 0")
        if self.warmup_steps and self.warmup_epochs:
            raise ArgumentError("OptimSettings: give warmup_steps or warmup_epochs, not both.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """Settings of the training loop.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    epochs: int = 20
    """Passes over the data."""
    max_steps: int | None = None
    """Largest number of steps. `None`: the epochs alone set the length."""
    accumulate: int = 1
    """Batches of each process whose gradients make one step."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the forward pass, where torch's autocast uses a lower one. Weights and losses stay float32."""
    channels_last: bool = False
    """Keep the channels of maps last in memory. The results are the same; convolutions in lower precision are often faster."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: the accelerator of this machine, or the one that the launcher gave this process."""
    ema_decay: float | None = None
    """Share of the weights' running mean that stays at each step (0.9998 is usual). The mean is evaluated then. `None`: no
    mean."""
    gradient_checkpointing: bool = False
    """Compute the backbone's maps twice instead of keeping them: less memory, more time."""
    find_unused_parameters: bool = False
    """Allow parameters that have no part in a step's losses, under several processes. It costs time."""
    seed: int = 0
    """Seed of everything random: new weights, order of the data, augmentation, proposals."""
    checkpoint_minutes: float = 15.0
    """Minutes between checkpoints. There is also one at the end of each epoch that is evaluated."""
    checkpoint_steps: int | None = None
    """Steps between additional checkpoints. `None`: none."""
    keep: int = 2
    """Checkpoints that are kept. The best weights are always kept."""
    evaluate_every: int | None = 1
    """Epochs between evaluations. The end is always evaluated. `None`: no evaluation."""
    log_every: int = 10
    """Steps whose means make one line of the log."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""

    def __post_init__(self) -> None:
        choices = {"precision": ("float32", "bfloat16", "float16"), "device": ("auto", "cpu")}
        for name, allowed in choices.items():
            _require(self, name, getattr(self, name) in allowed, "one of " + ", ".join(map(repr, allowed)))
        for name in ("epochs", "accumulate", "keep", "log_every"):
            _require(self, name, getattr(self, name) >= 1, "a whole number of at least 1")
        for name in ("max_steps", "checkpoint_steps", "evaluate_every"):
            value = getattr(self, name)
            _require(self, name, value is None or value >= 1, "a whole number of at least 1, or nothing")
        _require(self, "checkpoint_minutes", self.checkpoint_minutes > 0.0, "a number above 0")
        _require(self, "ema_decay", self.ema_decay is None or 0.0 < self.ema_decay < 1.0, "between 0 and 1, or nothing")
        _require(self, "seed", self.seed >= 0, "a whole number of at least 0")


def _require(settings: OptimSettings | LoopSettings, name: str, holds: bool, what: str) -> None:
    if not holds:
        raise ArgumentError(f"{type(settings).__name__}.{name} must be {what}, not {getattr(settings, name)!r}.")
