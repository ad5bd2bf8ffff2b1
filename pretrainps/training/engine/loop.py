"""The training loop: steps, a log, evaluations and checkpoints. A stopped or killed run is resumed exactly.

Under `torchrun` or `accelerate launch` each process trains on its share of the batches. Gradients are means over processes
and over the batches of a step, and so are the losses that are logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pretrainps.errors import ArgumentError, TrainingError
from pretrainps.training.engine.checkpoints import BEST, Snapshot, checkpoint_notes, load_snapshot, weights_file
from pretrainps.training.engine.log import Meter, RunLog
from pretrainps.training.engine.optimization import LearningRate
from pretrainps.training.engine.processes import Processes
from pretrainps.training.engine.random_state import random_states, set_random_states, untouched_randomness
from pretrainps.training.engine.run_folder import HARMLESS, RunFolder, environment_of
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.engine.signals import StopSignal
from pretrainps.training.engine.step import Stepper, StepRecord, start_accelerate
from pretrainps.training.engine.step_batches import Feed
from pretrainps.training.engine.task import DescribedTask, Task
from pretrainps.weights.unwrap import unwrap

log = logging.getLogger("pretrainps")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """How a training ended."""

    folder: Path
    """Folder of the run."""
    step: int
    """Steps taken, including those before a resumption."""
    epoch: int
    """Complete epochs."""
    stopped: str | None
    """"SIGINT" or "SIGTERM" if it was stopped before its end. The usual exit status is then 130 or 143."""
    metrics: dict[str, float]
    """Results of the last evaluation."""
    best_metric: float | None
    """Highest value of the task's metric so far."""
    best: Path | None
    """File with the weights of the highest metric (safetensors)."""
    last: Path
    """File with the weights of the last checkpoint (safetensors): their running mean, if there is one."""


@dataclass(slots=True)
class Position:
    """The position of a training."""

    step: int = 0
    """Steps taken."""
    epoch: int = 0
    """Complete epochs."""
    done: int = 0
    """Batches of the current epoch that this process has used."""
    evaluated: int | None = None
    """Step of the last evaluation."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Results of the last evaluation."""
    best: float | None = None
    """Highest value of the task's metric so far."""


def train(
    task: Task,
    optim: OptimSettings,
    loop: LoopSettings,
    folder: Path | str,
    *,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    may_differ: Collection[str] = (),
    progress: bool = True,
) -> RunResult:
    """Train a model, or resume its training.

    On a CPU, a resumed run repeats an uninterrupted one exactly; on other devices, up to their own rounding. Ctrl-C and SIGTERM
    end the run after the current step, with a checkpoint: see `RunResult.stopped`. A second one raises `KeyboardInterrupt` at
    once.

    Args:
        task: The training. To resume, it is built again in the same way.
        optim: Settings of the optimizer.
        loop: Settings of the loop.
        folder: Folder of the run, for config, log, checkpoints and card.
        resume: Continue from the last undamaged checkpoint in the folder; from the start, if the run has none yet.
        config: Other choices (recipe, model), nested and ready for JSON. They are recorded, and compared when a run is resumed.
            So is the task's description of itself (`DescribedTask`), as `task`.
        may_differ: Patterns of dotted names in `config`, such as "data.workers", that may differ when a run is resumed.
        progress: Whether to show a progress bar.

    Raises:
        TrainingError: the folder holds a run already, or none or another one when resuming; a loss that is not finite;
            parameters without a gradient under several processes.
        CacheError: the folder cannot be written to, or the disk is full.
        ArgumentError: settings that do not fit the task or the machine.
        MissingPackageError: accelerate is not installed.
    """
    accelerator = start_accelerate(loop)
    processes = Processes()
    run = RunFolder(Path(folder))
    described = {"task": task.describe()} if isinstance(task, DescribedTask) else {}
    everything = {**(config or {}), **described, "optim": asdict(optim), "loop": asdict(loop), "processes": processes.count}
    everything = json.loads(json.dumps(everything, default=str))
    harmless = [*HARMLESS, *may_differ]
    if optim.schedule == "cosine":  # the whole schedule depends on the length
        harmless = [name for name in harmless if name not in ("loop.epochs", "loop.max_steps")]
    differences = processes.on_main(lambda: run.claim(everything, resume=resume, may_differ=harmless))
    training = _Training(task, optim, loop, run, accelerator, processes)
    return training.run(resume=resume, differences=differences, config=everything, progress=progress)


class _Training:
    """A training and its position."""

    def __init__(
        self, task: Task, optim: OptimSettings, loop: LoopSettings, run: RunFolder, accelerator: Any, processes: Processes
    ) -> None:
        self.task, self.optim, self.loop, self.folder, self.processes = task, optim, loop, run, processes
        self.model = unwrap(task.model)  # it is saved under its own keys, even if it is compiled
        self.notes = checkpoint_notes(self.model)
        self.stopping = StopSignal()
        self.stream = task.stream(processes.rank, processes.count)
        self.feed = Feed(self.stream, loop.accumulate, processes, self.stopping)
        steps_per_epoch = self.feed.left(0)
        if not steps_per_epoch:
            raise ArgumentError(
                f"an epoch has {len(self.stream)} batches, and a step takes {loop.accumulate}: lower loop.accumulate or the "
                "batch size, or take more data."
            )
        self.steps = min(loop.epochs * steps_per_epoch, loop.max_steps or loop.epochs * steps_per_epoch)
        batch = task.batch_size * processes.count * loop.accumulate
        rate = LearningRate(optim, batch=batch, steps_per_epoch=steps_per_epoch, steps=self.steps)
        if rate.warmup >= self.steps and loop.max_steps is None:
            log.warning(
                "the learning rate warms up over %d steps, but the training has %d: it never reaches its full value. Give "
                "optim.warmup_steps a tenth of them or less.",
                rate.warmup,
                self.steps,
            )
        self.stepper = Stepper(task, optim, loop, rate, accelerator, processes)
        self.device: torch.device = accelerator.device
        self.checkpoints = run.checkpoints(loop.keep)
        self.position, self.meter = Position(), Meter()
        self.stopped: str | None = None
        self.saved: tuple[int, int | None] | None = None
        self.save_at = time.monotonic() + 60.0 * loop.checkpoint_minutes

    def run(self, *, resume: bool, differences: list[str], config: Mapping[str, Any], progress: bool) -> RunResult:
        """Train to the end, or until the run is stopped."""
        lines = self._start(resume=resume)
        position, is_main = self.position, self.processes.is_main
        board = self.folder.path / "tensorboard" if self.loop.tensorboard else None
        self.config = config
        self._write_card()
        with (
            RunLog(self.folder.log if is_main else None, lines=lines, tensorboard=board, step=position.step) as self.log,
            self.stopping,
            tqdm(total=self.steps, initial=position.step, unit="step", disable=not (progress and is_main)) as self.bar,
        ):
            self.log.write("start", position.step, resumed=resume, changed=differences)
            self._train()
        if self.stopped:
            log.warning("stopped by %s at step %d: resume the run in %s.", self.stopped, position.step, self.folder.path)
        best, newest = self.processes.on_main(self._weights)
        return RunResult(
            folder=self.folder.path,
            step=position.step,
            epoch=position.epoch,
            stopped=self.stopped,
            metrics=dict(position.metrics),
            best_metric=position.best,
            best=best,
            last=newest,
        )

    def _weights(self) -> tuple[Path | None, Path]:
        """Return the files of the best and the last weights."""
        best, newest = self.checkpoints.folder / BEST, self.checkpoints.newest()
        assert newest is not None  # every end of a run is saved
        return best if best.exists() else None, weights_file(newest)

    def _start(self, *, resume: bool) -> int:
        """Load the last checkpoint, or seed what is random; return how many lines of the log count."""
        from accelerate.utils import set_seed  # type: ignore[import-untyped]

        whole = self.processes.on_main(lambda: self.checkpoints.newest_whole() if resume else None)
        if whole is None:
            copies = 2 + (self.optim.kind == "adamw") + (self.stepper.average is not None)  # model, optimizer, mean
            copies = copies * (self.loop.keep + 1) + 1
            self.processes.on_main(lambda: self.folder.require_space(self.task.model, copies=copies))
            set_seed(self.loop.seed + self.processes.rank)
        lines = self._restore(whole) if whole else 0
        environment = environment_of(
            device=str(self.device), processes=self.processes.count, seed=self.loop.seed, step=self.position.step
        )
        self.processes.on_main(lambda: self.folder.write_environment(environment))
        return lines

    def _train(self) -> None:
        while not self.stopped:
            if self._evaluation_is_due():
                self._save()  # an evaluation may take long, and may fail
                self._evaluate()
                self._save()
            if self._is_finished():
                break
            self._train_epoch()
        self._save()
        self._write_card()

    def _train_epoch(self) -> None:
        """Train on the rest of the epoch, until the last step, or until the run is stopped."""
        position, every = self.position, self.loop.checkpoint_steps
        ended = time.perf_counter()
        for window in self.feed.windows(position.epoch, position.done):
            if window is not None and window.batches:
                record = self.stepper.step(window.batches, position.step, self.folder.path)
                position.step += 1
                self._log_step(record, seconds=time.perf_counter() - ended, waiting=window.waiting)
            if window is not None:
                position.done += self.loop.accumulate
                if not self.feed.left(position.done):
                    position.epoch, position.done = position.epoch + 1, 0
            due = self._agree(due=time.monotonic() >= self.save_at)
            if self.stopped or self._is_finished():
                return
            if due or (every is not None and position.step % every == 0):
                self._save()
            ended = time.perf_counter()

    def _log_step(self, record: StepRecord, *, seconds: float, waiting: float) -> None:
        """Count a step, show it in the progress bar, and write a line of the log if one is due."""
        self.meter.add(record.losses, grad_norm=record.grad_norm, images=record.images, seconds=seconds, waiting=waiting)
        position, means = self.position, self.meter.means()
        on_gpu = self.device.type == "cuda"
        memory = {"gpu_gb": round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)} if on_gpu else {}
        speed, share = means["images_per_second"], means["waiting"]
        shown = {"loss": f"{means['loss']:.3f}", "img/s": f"{speed:.1f}", "waiting": f"{share:.0%}"}
        self.bar.set_postfix({**shown, **memory}, refresh=False)
        self.bar.update()
        if position.step % self.loop.log_every == 0 or self._is_finished():
            self.log.write("train", position.step, epoch=position.epoch, lr=record.lr, **means, **memory)
            self.meter = Meter()

    def _agree(self, *, due: bool) -> bool:
        """Find out whether any process was asked to stop. Return whether a checkpoint is due in any process."""
        names = [each.name for each in StopSignal.SIGNALS]
        *asked, due = self.processes.any([*(self.stopping.name == name for name in names), due])
        self.stopped = next((name for name, is_it in zip(names, asked, strict=True) if is_it), None)
        return due

    def _is_finished(self) -> bool:
        return self.position.step >= self.steps or self.position.epoch >= self.loop.epochs

    def _evaluation_is_due(self) -> bool:
        position, every = self.position, self.loop.evaluate_every
        if every is None or position.evaluated == position.step or position.step == 0:
            return False
        return self._is_finished() or (position.done == 0 and position.epoch % every == 0)

    def _evaluate(self) -> None:
        """Measure the model, with averaged weights if there are any, and keep the best."""
        position = self.position
        position.metrics, position.best = self.processes.on_main(self._measure)
        position.evaluated = position.step
        if position.metrics:
            self.log.write("evaluation", position.step, epoch=position.epoch, metrics=position.metrics, best=position.best)
        self._write_card()

    def _measure(self) -> tuple[dict[str, float], float | None]:
        """Return the measures, and the highest value so far of the task's metric."""
        model, average, metric, best = self.model, self.stepper.average, self.task.metric, self.position.best
        with untouched_randomness(), torch.no_grad(), average.in_place() if average else contextlib.nullcontext():
            model.eval()
            metrics = {name: float(value) for name, value in self.task.evaluate(model).items()}
            model.train()
            if metric is None:
                return metrics, None
            if metric not in metrics:
                found = ", ".join(metrics) or "nothing"
                raise TrainingError(f"the task's metric is {metric!r}, but its evaluation returned {found}.")
            value = metrics[metric]
            if math.isnan(value) or (best is not None and value <= best):
                return metrics, best
            notes = {**self.notes, "step": self.position.step, "metrics": metrics}
            self.checkpoints.save_best(model.state_dict(), notes)
            return metrics, value

    def _save(self) -> None:
        """Write a checkpoint, unless there is one of this step already."""
        here = (self.position.step, self.position.evaluated)
        if here == self.saved:
            return
        randomness = self.processes.gather(random_states())
        self.processes.on_main(lambda: self._write_checkpoint(randomness))
        self.saved = here
        self.save_at = time.monotonic() + 60.0 * self.loop.checkpoint_minutes

    def _write_checkpoint(self, randomness: list[dict[str, Any]]) -> None:
        self.log.to_disk()
        position, average = self.position, self.stepper.average
        snapshot = Snapshot(
            model=self.model.state_dict(),
            averaged=average.state_dict() if average else None,
            training={**self.stepper.state(), "randomness": randomness},
            state={
                "position": asdict(position),
                "meter": self.meter.state(),
                "log_lines": self.log.lines,
                "batches_per_epoch": len(self.stream),
            },
            notes=self.notes,
        )
        self.checkpoints.save(position.step, snapshot, evaluated=position.evaluated == position.step)

    def _restore(self, path: Path) -> int:
        """Go to where a checkpoint was made; return how many lines the log had."""
        snapshot = load_snapshot(path)
        batches = snapshot.state["batches_per_epoch"]
        if batches != len(self.stream):
            raise TrainingError(
                f"{path}: an epoch had {batches} batches and has {len(self.stream)} now. Resume with the data that the run "
                "began with, or start a new run."
            )
        try:
            self.model.load_state_dict(snapshot.model)
        except RuntimeError as error:
            raise TrainingError(f"{path}: its model is another one than the task's: {error}") from error
        if self.stepper.average is not None and snapshot.averaged is not None:
            self.stepper.average.load_state_dict(snapshot.averaged)
        self.stepper.load_state(snapshot.training)
        self.position = Position(**snapshot.state["position"])
        self.meter = Meter(**snapshot.state["meter"])
        self.saved = (self.position.step, self.position.evaluated)
        set_random_states(snapshot.training["randomness"][self.processes.rank])
        log.info("resumed from %s", path)
        return int(snapshot.state["log_lines"])

    def _write_card(self) -> None:
        position = self.position
        if self.processes.is_main:
            self.folder.write_card(self.config, step=position.step, epoch=position.epoch, metrics=position.metrics)
