"""A run that is killed, stopped or damaged goes on as if nothing had been."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pretrainps.training import Batch
from pretrainps.training.engine.log import read_log
from pretrainps.training.engine.random_state import random_states, set_random_states
from tests.training.tasks import DetectorTask, LineTask, course, fit


class Doomed(DetectorTask):
    """Has its own process killed a moment after a step began; the process counts its steps from 0."""

    def __init__(self, last: int, seconds: float) -> None:
        super().__init__()
        self.last, self.seconds, self.steps = last, seconds, 0

    def names(self, batch: Batch) -> list[str]:
        if self.steps == self.last:
            threading.Timer(self.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        self.steps += 1
        return super().names(batch)


def doomed(folder: Path, last: int, seconds: float, settings: dict[str, Any]) -> None:
    """Train until killed; what a process of its own does."""
    fit(folder, Doomed(last, seconds), resume=(folder / "config.json").exists(), **settings)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_killed_three_times_it_repeats_the_uninterrupted_run(tmp_path: Path) -> None:
    """A detector, with augmentation, samplers, look-up table, queue, batch norm, momentum and a mean of the weights."""
    settings: dict[str, Any] = {"epochs": 5, "checkpoint_steps": 3, "log_every": 2, "ema_decay": 0.9, "keep": 2}
    folder, moments = tmp_path / "killed", random.Random(0)
    processes = multiprocessing.get_context("forkserver")  # this one has threads, which a fork would leave in mid-air
    processes.set_forkserver_preload(
        ["accelerate", "pretrainps.training", "pretrainps.evaluation"]
    )  # imported once for all three
    for last in (0, 4, 4):  # the first is killed before, or about when, anything is saved
        child = processes.Process(target=doomed, args=(folder, last, moments.uniform(0.0, 0.1), settings))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    fit(folder, DetectorTask(), resume=True, **settings)
    fit(tmp_path / "whole", DetectorTask(), **settings)
    found, whole = course(folder), course(tmp_path / "whole")
    assert [line["step"] for line in found] == list(range(2, 21, 2)), "no step twice"
    assert found == whole
    starts = [line for line in read_log(folder / "log.jsonl") if line["kind"] == "start"]
    assert starts[-1]["resumed"] and starts[-1]["step"] > 0
    assert same_weights(folder, tmp_path / "whole")


def same_weights(one: Path, other: Path) -> bool:
    """Byte for byte: parameters, statistics, look-up table, queue and cursor, and the mean."""
    first, second = (sorted((folder / "checkpoints").iterdir())[-1] for folder in (one, other))
    files = [path.name for path in first.glob("*.safetensors")]
    return first.name == second.name and all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("step", [2, 5])
def test_a_signal_ends_the_run_after_the_step(tmp_path: Path, name: str, step: int, caplog: pytest.LogCaptureFixture) -> None:
    number = signal.Signals[name]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    task = LineTask(during=lambda now: os.kill(os.getpid(), number) if now == step else None)
    with caplog.at_level(logging.WARNING, logger="pretrainps"):
        result = fit(tmp_path / "run", task, ema_decay=0.5, log_every=2)
    assert (result.stopped, result.step, task.steps) == (name, step + 1, step + 1)
    assert "resume the run in" in caplog.text and name in caplog.text
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    again = fit(tmp_path / "run", resume=True, ema_decay=0.5, log_every=2)
    whole = fit(tmp_path / "whole", ema_decay=0.5, log_every=2)
    assert course(tmp_path / "run") == course(tmp_path / "whole")
    assert again.metrics == whole.metrics and same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def impatient(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", LineTask(during=impatient), checkpoint_steps=3)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_000000003"]
    fit(tmp_path / "run", resume=True, checkpoint_steps=3)
    fit(tmp_path / "whole", checkpoint_steps=3)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


class Reading(LineTask):
    """Workers that read are gone, as after a Ctrl-C which reached them too."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__()
        self.asked = asked

    def stream(self, rank: int, world_size: int) -> Any:
        stream = super().stream(rank, world_size)
        read = type(stream).__iter__

        def broken(this: Any) -> Any:
            for number, batch in enumerate(read(this)):
                if number == 2:
                    if self.asked:
                        os.kill(os.getpid(), signal.SIGINT)
                    raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")
                yield batch

        return type("Broken", (type(stream),), {"__iter__": broken})(6, rank, world_size, frozenset())


def test_ctrl_c_that_reaches_the_readers_too(tmp_path: Path) -> None:
    result = fit(tmp_path / "run", Reading(asked=True))
    assert (result.stopped, result.step) == ("SIGINT", 2)
    fit(tmp_path / "run", resume=True)
    fit(tmp_path / "whole")
    assert course(tmp_path / "run") == course(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        fit(tmp_path / "other", Reading(asked=False))


def test_killed_in_an_evaluation_it_evaluates_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", LineTask(before=lambda number: 1 // (1 - number)), epochs=3, log_every=4)
    fit(tmp_path / "run", resume=True, epochs=3, log_every=4)
    fit(tmp_path / "whole", epochs=3, log_every=4)
    starts = [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "start"]
    assert starts == [0, 12], "no step was lost"
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_damaged_batches_stay_damaged(tmp_path: Path) -> None:
    damaged = frozenset({(0, 1), (1, 2), (1, 3)})
    stopper = LineTask(damaged=damaged, during=lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == 5 else None)
    fit(tmp_path / "run", stopper, accumulate=2)
    fit(tmp_path / "run", LineTask(damaged=damaged), resume=True, accumulate=2)
    fit(tmp_path / "whole", LineTask(damaged=damaged), accumulate=2)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_a_truncated_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = LineTask(during=lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == 9 else None)
    fit(tmp_path / "run", stop, checkpoint_steps=4)
    newest = tmp_path / "run" / "checkpoints" / "step_000000010"
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    fit(tmp_path / "run", resume=True, checkpoint_steps=4)
    assert "step_000000010 is damaged (model.safetensors has" in caplog.text
    starts = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "start"]
    assert [line["step"] for line in starts] == [0, 8]
    fit(tmp_path / "whole", checkpoint_steps=4)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_workers_that_read_ahead_change_nothing(tmp_path: Path) -> None:
    """In the middle of an epoch they have read more than was trained on."""
    fit(tmp_path / "run", DetectorTask(workers=1), epochs=2, max_steps=2)
    fit(tmp_path / "run", DetectorTask(workers=1), epochs=2, max_steps=5, resume=True)
    fit(tmp_path / "whole", DetectorTask(workers=0), epochs=2, max_steps=5)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_killed_before_the_first_checkpoint_it_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", LineTask(during=lambda now: 1 // (4 - now)), evaluate_every=None)
    assert len(course(tmp_path / "run")) == 4
    fit(tmp_path / "run", resume=True, evaluate_every=None)
    fit(tmp_path / "whole", evaluate_every=None)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_the_minutes_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes 50 seconds of a clock that nobody waits for."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pass_time(step: int) -> None:
        now[0] += 50.0

    task = LineTask(length=12, during=pass_time)
    fit(tmp_path / "run", task, epochs=1, checkpoint_minutes=3.0, keep=9, evaluate_every=None)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step_000000004", "step_000000008", "step_000000012"]


def test_all_generators_are_remembered() -> None:
    import numpy as np
    import torch

    def draw() -> tuple[float, float, float]:
        return random.gauss(0, 1), np.random.normal(), torch.randn(1).item()

    draw()  # leaves a second gauss behind in two of them
    states = json.loads(json.dumps({k: v for k, v in random_states().items() if k != "torch"}))
    states["torch"] = random_states()["torch"]
    first = [draw() for _ in range(3)]
    set_random_states(states)
    assert [draw() for _ in range(3)] == first


def test_best_weights_survive_a_stop(tmp_path: Path) -> None:
    stop = LineTask(during=lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == 13 else None)
    first = fit(tmp_path / "run", stop)
    assert first.best is not None and first.best_metric is not None
    kept = load_file(first.best)["weight"].item()
    worse = LineTask(before=lambda number: None)
    worse.evaluate = lambda model: {"closeness": -100.0}  # type: ignore[method-assign]
    result = fit(tmp_path / "run", worse, resume=True)
    assert result.best_metric == first.best_metric and load_file(first.best)["weight"].item() == kept
