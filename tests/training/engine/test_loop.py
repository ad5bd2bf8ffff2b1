"""The loop: it learns, accumulates, measures, keeps what is best, and refuses early what would fail late."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pretrainps.errors import ArgumentError, CacheError, MissingPackageError, TrainingError
from pretrainps.training import OptimSettings
from pretrainps.training.engine.checkpoints import damage_of
from pretrainps.training.engine.log import read_log
from tests.training.tasks import OPTIM, DetectorTask, Line, LineTask, Still, course, fit


def test_it_learns_and_records(tmp_path: Path) -> None:
    task = LineTask()
    result = fit(tmp_path / "run", task, log_every=4, epochs=4)
    assert (result.step, result.epoch, result.stopped) == (24, 4, None)
    assert result.metrics["closeness"] > -0.5
    assert torch.equal(load_file(result.last)["weight"], task.model.state_dict()["weight"])
    lines = read_log(tmp_path / "run" / "log.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in steps] == [4, 8, 12, 16, 20, 24]
    assert [line["epoch"] for line in steps] == [0, 1, 1, 2, 3, 3]
    assert steps[-1]["loss"] < steps[0]["loss"]
    for line in steps:
        assert set(line) >= {"lr", "losses", "grad_norm", "seconds", "waiting", "images_per_second"}
        assert set(line["losses"]) == {"fit", "small"} and line["loss"] == sum(line["losses"].values())
        assert 0 <= line["waiting"] <= 1 and line["images_per_second"] == pytest.approx(8 / line["seconds"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["optim"]["lr"] == 0.01 and config["loop"]["epochs"] == 4 and config["processes"] == 1
    assert config["task"] == {"data": {"pairs": "made up"}}
    (environment,) = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["torch"] == torch.__version__.split("+")[0] and environment["device"] == "cpu"
    card = (tmp_path / "run" / "README.md").read_text()
    assert "24 steps, 4 whole epochs" in card and "| closeness |" in card and "`optim.lr`: 0.01" in card


def test_lines_of_the_log_are_means_over_steps(tmp_path: Path) -> None:
    fit(tmp_path / "one", log_every=1, epochs=2)
    fit(tmp_path / "four", log_every=4, epochs=2)
    one, four = ([line for line in course(tmp_path / name) if "losses" in line] for name in ("one", "four"))
    for number, line in enumerate(four):
        part = [each["losses"]["fit"] for each in one[4 * number : 4 * number + 4]]
        assert line["losses"]["fit"] == pytest.approx(sum(part) / 4)


def test_it_is_plain_gradient_descent(tmp_path: Path) -> None:
    """Against torch's own loop, with batches put together where the engine accumulates."""
    optim = OptimSettings(lr=0.01, schedule="constant", clip_norm=5.0, weight_decay=0.0)
    task = LineTask(length=6)
    task.model = Still()
    fit(tmp_path / "run", task, optim=optim, accumulate=2, epochs=2)
    oracle = Still()
    optimizer = torch.optim.SGD(oracle.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(2):
        stream = LineTask(length=6).stream(0, 1)
        stream.start_at(epoch)
        pairs: list[Any] = list(stream)
        for one, other in zip(pairs[::2], pairs[1::2], strict=True):
            x, y = torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]])
            optimizer.zero_grad()
            oracle(x, y)["fit"].backward()
            nn.utils.clip_grad_norm_(oracle.parameters(), 5.0)
            optimizer.step()
    for name, parameter in oracle.named_parameters():
        torch.testing.assert_close(task.model.get_parameter(name), parameter)


class Partly(Line):
    """Says nothing of its bias in the first steps: its gradient is 0, as DDP wants it."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        bias = self.bias if self.calls > 3 else 0.0 * self.bias
        return {"fit": (self.weight * x + bias - y).square().mean()}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_no_batch_speaks_of_stays_as_it_is(tmp_path: Path, kind: Any) -> None:
    """And starts later as if the training had begun then: AdamW's first step is as long as the learning rate."""
    optim = OptimSettings(kind=kind, lr=0.01, schedule="constant", weight_decay=0.1, clip_norm=None)
    model = Partly()
    model.bias.data.fill_(0.5)
    fit(tmp_path / "run", LineTask(model=model), optim=optim, epochs=1, max_steps=3)
    assert model.bias.item() == 0.5 and model.weight.item() != 0.5
    model = Partly()
    fit(tmp_path / "run", LineTask(model=model), optim=optim, epochs=1, max_steps=4, resume=True)
    step = abs(model.bias.item() - 0.5)
    assert step == pytest.approx(0.01, rel=1e-3) if kind == "adamw" else step > 0


def test_max_steps_ends_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    result = fit(tmp_path / "run", max_steps=8)
    assert (result.step, result.epoch) == (8, 1) and result.metrics
    evaluations = [line["step"] for line in course(tmp_path / "run") if line["kind"] == "evaluation"]
    assert evaluations == [6, 8]


def test_the_best_weights_stay(tmp_path: Path) -> None:
    """The learning rate is so high that the weight runs past its goal."""
    task = LineTask()
    result = fit(tmp_path / "run", task, optim=OptimSettings(lr=0.05), epochs=5)
    closeness = [each["closeness"] for each in task.evaluations]
    assert result.best_metric == max(closeness) and result.best is not None
    weight = task.evaluations[closeness.index(max(closeness))]["weight"]
    assert load_file(result.best)["weight"].item() == weight
    assert closeness.index(max(closeness)) < 4, "or the test shows nothing"


def test_evaluation_does_not_disturb(tmp_path: Path) -> None:
    fit(tmp_path / "with", evaluate_every=1)
    fit(tmp_path / "without", evaluate_every=None)
    kept = [line for line in course(tmp_path / "with") if line["kind"] == "train"]
    assert kept == course(tmp_path / "without")


def test_the_mean_of_the_weights_is_measured_and_saved(tmp_path: Path) -> None:
    task = LineTask()
    result = fit(tmp_path / "run", task, ema_decay=0.9)
    assert result.last.name == "averaged.safetensors"
    mean = load_file(result.last)
    assert task.evaluations[-1]["weight"] == mean["weight"].item() != task.model.state_dict()["weight"].item()
    assert torch.equal(mean["calls"], torch.tensor(18.0)), "buffers are as they are"
    plain = LineTask()
    fit(tmp_path / "plain", plain)
    assert torch.equal(task.model.state_dict()["weight"], plain.model.state_dict()["weight"])


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Of windows of two: one half, one whole."""
    task = LineTask(length=6, damaged=frozenset({(0, 1), (1, 2), (1, 3)}))
    result = fit(tmp_path / "run", task, accumulate=2, epochs=2)
    assert result.step == 5 and task.steps == 9
    assert [line["epoch"] for line in course(tmp_path / "run") if line["kind"] == "train"] == [0, 0, 0, 1, 1]


class Exploding(Line):
    """From some call on, one of the losses is no number."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        losses = super().forward(x, y)
        return {**losses, "fit": losses["fit"] * (math.nan if self.calls > 8 else 1.0)}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = LineTask()
    task.model = Exploding()
    with pytest.raises(TrainingError, match=r"step 9: fit is not finite.*nonfinite\.json") as caught:
        fit(tmp_path / "run", task, checkpoint_steps=4)
    assert "learning rate of 0.01" in str(caught.value)
    record = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert record["step"] == 8 and record["wrong"] == ["fit"]
    (share,) = record["processes"]
    stream = LineTask().stream(0, 1)
    stream.start_at(1, 2)  # step 9 is the third batch of epoch 1
    expected = LineTask().names(next(iter(stream)))  # type: ignore[arg-type]
    assert share["images"] == expected and share["losses"]["fit"] == "nan"
    assert task.model.state_dict()["weight"].isfinite(), "the step was not taken"
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step_000000008*")
    assert damage_of(newest) is None


class Steep(Line):
    """Finite losses with an infinite gradient."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"fit": (self.weight - self.weight.detach()).abs().sqrt() + y.mean() * self.bias}


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = LineTask()
    task.model = Steep()
    with pytest.raises(TrainingError, match="step 1: the gradient is not finite"):
        fit(tmp_path / "run", task)
    assert task.model.state_dict()["weight"] == 0.5


def test_a_full_disk_ends_the_run_and_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def full(handle: int) -> None:
        if task.steps > 6:
            raise OSError(28, "No space left on device")
        sync(handle)

    task = LineTask()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"no space left.*Nothing incomplete was kept"):
        fit(tmp_path / "run", task, checkpoint_steps=3, evaluate_every=None)
    monkeypatch.undo()
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step_000000003", "step_000000006"]
    fit(tmp_path / "run", resume=True, checkpoint_steps=3, evaluate_every=None)
    fit(tmp_path / "whole", checkpoint_steps=3, evaluate_every=None)
    assert course(tmp_path / "run") == course(tmp_path / "whole")


def test_no_room_is_found_out_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    task = LineTask()
    with pytest.raises(CacheError, match=r"need about .* MB, and 0 MB are free"):
        fit(tmp_path / "run", task)
    assert task.steps == 0


def test_a_folder_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CacheError, match="cannot be written"):
        fit(tmp_path / "run")


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    fit(tmp_path / "run", max_steps=1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match=r"holds a run already.*--resume"):
        fit(tmp_path / "run")
    with pytest.raises(TrainingError, match="holds no run to resume"):
        fit(tmp_path / "elsewhere", resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_start_that_failed_is_no_run(tmp_path: Path) -> None:
    for resume in (False, False, True):
        with pytest.raises(ArgumentError, match="a step takes 7"):
            fit(tmp_path / "run", resume=resume, accumulate=7)
    assert fit(tmp_path / "run", accumulate=2).step == 9


def test_other_settings_are_refused_by_name_and_harmless_ones_recorded(tmp_path: Path) -> None:
    fit(tmp_path / "run", epochs=1)
    with pytest.raises(TrainingError, match=r"other settings:\n  optim\.lr: 0\.01 -> 0\.02\nResume"):
        fit(tmp_path / "run", resume=True, epochs=2, optim=OptimSettings(lr=0.02, warmup_steps=3))
    result = fit(tmp_path / "run", resume=True, epochs=2, log_every=2)
    assert result.step == 12
    starts = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "start"]
    assert starts[1]["changed"] == ["loop.epochs: 1 -> 2", "loop.log_every: 1 -> 2"] and starts[1]["step"] == 6
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loop"]["epochs"] == 2


def test_the_length_of_a_cosine_is_not_harmless(tmp_path: Path) -> None:
    cosine = OptimSettings(lr=0.01, schedule="cosine")
    fit(tmp_path / "run", optim=cosine, epochs=1)
    with pytest.raises(TrainingError, match=r"loop\.epochs: 1 -> 2"):
        fit(tmp_path / "run", optim=cosine, epochs=2, resume=True)


def test_other_data_are_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run", LineTask(length=6), epochs=1)
    with pytest.raises(TrainingError, match="an epoch had 6 batches and has 7 now"):
        fit(tmp_path / "run", LineTask(length=7), resume=True, epochs=2)


def test_other_data_of_the_same_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "run", LineTask(), epochs=1)
    monkeypatch.setattr(LineTask, "describe", lambda task: {"data": {"pairs": "others"}})
    with pytest.raises(TrainingError, match=r'task\.data\.pairs: "made up" -> "others"'):
        fit(tmp_path / "run", LineTask(), resume=True, epochs=2)


def test_a_warm_up_without_an_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path / "whole", epochs=1, optim=OptimSettings(lr=0.01, warmup_steps=5))
    assert not caplog.records
    fit(tmp_path / "run", epochs=1, optim=OptimSettings(lr=0.01, warmup_steps=6))
    assert "warms up over 6 steps, but the training has 6" in caplog.text


def test_another_model_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run", epochs=1)
    task = LineTask()
    task.model = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match="another one than the task's"):
        fit(tmp_path / "run", task, resume=True, epochs=2)


@pytest.mark.parametrize("every", [1, None])
def test_a_finished_run_has_nothing_to_resume(tmp_path: Path, every: int | None) -> None:
    before = fit(tmp_path / "run", evaluate_every=every, checkpoint_steps=3)
    task = LineTask()
    after = fit(tmp_path / "run", task, resume=True, evaluate_every=every, checkpoint_steps=3)
    assert task.steps == 0 and not task.evaluations and after == before


class Promises:
    """A stream that is shorter than it says."""

    def __len__(self) -> int:
        return 5

    def start_at(self, epoch: int, done: int = 0) -> None: ...

    def __iter__(self) -> Any:
        return iter([(torch.zeros(8), torch.zeros(8))] * 2)


@pytest.mark.parametrize(
    ("change", "loop", "error", "says"),
    [
        ({}, {"accumulate": 7}, ArgumentError, "an epoch has 6 batches, and a step takes 7"),
        ({}, {"precision": "float16"}, ArgumentError, "float16 needs a GPU"),
        ({}, {"gradient_checkpointing": True}, ArgumentError, "Line has no gradient checkpointing"),
        ({"metric": "mAP"}, {}, TrainingError, "metric is 'mAP', but its evaluation returned closeness, weight"),
        ({"model": nn.Identity()}, {}, TrainingError, "no parameter of the model is trainable"),
        ({"model": nn.Bilinear(8, 8, 1)}, {}, TrainingError, "Bilinear returned Tensor, not its losses by name"),
        ({"stream": lambda rank, world_size: Promises()}, {}, TrainingError, "promised 5 batches an epoch"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_go_together(
    tmp_path: Path, change: dict[str, Any], loop: dict[str, Any], error: type[Exception], says: str
) -> None:
    task = LineTask()
    for name, value in change.items():
        setattr(task, name, value)
    with pytest.raises(error, match=says):
        fit(tmp_path / "run", task, **loop)


def test_without_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'pretrainps\[train\]'"):
        fit(tmp_path / "run")


class Precise(Line):
    """Notes what its products are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[bool, torch.dtype] = {}

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.kinds[self.training] = (x[None] @ x[:, None]).dtype
        return super().forward(x, y)


def test_low_precision_is_for_training_only(tmp_path: Path) -> None:
    """And the next training in the same process has its own."""
    task = LineTask(before=lambda number: task.model(torch.zeros(8), torch.zeros(8)))
    task.model = model = Precise()
    result = fit(tmp_path / "low", task, precision="bfloat16", epochs=1)
    assert model.kinds == {True: torch.bfloat16, False: torch.float32}
    assert all(value.dtype == torch.float32 for value in load_file(result.last).values())
    task.model = model = Precise()
    fit(tmp_path / "full", task, epochs=1)
    assert model.kinds == {True: torch.float32, False: torch.float32}


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    fit(tmp_path / "run", tensorboard=True, epochs=1)
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/losses/fit")]
    lines = [line for line in course(tmp_path / "run") if line["kind"] == "train"]
    assert shown == [(line["step"], pytest.approx(line["losses"]["fit"])) for line in lines]
    assert [event.step for event in events.Scalars("evaluation/metrics/closeness")] == [6]


def test_the_bar_says_how_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pretrainps.training import LoopSettings, train

    train(LineTask(), OPTIM, LoopSettings(epochs=1, device="cpu"), tmp_path / "run", progress=True)
    said = capsys.readouterr().err
    assert "6/6" in said and "img/s=" in said and "waiting=" in said and "loss=" in said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_weights_are_not_trained(tmp_path: Path, dtype: torch.dtype) -> None:
    task = LineTask()
    task.model = Line().to(dtype)
    with pytest.raises(ArgumentError, match=r"half precision \(weight, \.\.\.\).*model\.float\(\)"):
        fit(tmp_path / "run", task)


def test_a_detector_that_diverged_ends_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pretrainps.detectors.finite` makes of numbers that are not finite: here there are none."""
    monkeypatch.setattr("pretrainps.detectors.region.proposals.spoiled_by", lambda loss, *_: loss * math.nan)
    with pytest.raises(TrainingError, match=r"step 1: loss_rpn_reg is not finite, at a learning rate of .*a lower optim\.lr"):
        fit(tmp_path / "run", DetectorTask())
    assert json.loads((tmp_path / "run" / "nonfinite.json").read_text())["wrong"] == ["loss_rpn_reg"]
