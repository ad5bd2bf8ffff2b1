"""Two processes train as one does.

What is equal, and why: each process takes the losses of its own images, which are means over its samples, and gradients are
averaged over processes. So two processes with a batch of one image each are one process that takes the mean of two images'
losses, each computed by itself: its batch norm in the heads sees one image, and its identity loss the tables as they were
before the step. One process that is given both images in a batch is something else where losses are means over people or
samples, and one that accumulates is where the second image meets tables that the first one has changed; `Apart` is neither.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrainps.errors import ArgumentError, CacheError, TrainingError
from pretrainps.training import OptimSettings
from tests.support.ranks import run_on_two_ranks
from tests.training.tasks import DetectorTask, Line, LineTask, Still, course, fit

pytestmark = pytest.mark.xdist_group("two ranks train")  # the processes are started once
ALL_SAMPLES: dict[str, Any] = {
    "rpn_samples": 10_000,
    "region_samples": 10_000,
    "region_positive_fraction": 1.0,
    "batch_norm": "frozen",
}
"""Nothing is drawn at random, and the backbone's batch norm does not measure."""
OPTIM = OptimSettings(lr=0.003, warmup_steps=5, clip_norm=10.0)
TOGETHER = """
import os
from pathlib import Path

os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")  # as torchrun would
from tests.training.engine.test_ranks import train_detector, train_lines

result = {"detector": train_detector(Path(folder)), "lines": train_lines(Path(folder), rank)}
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """What both processes left in a folder, and what each of them returned; starting them takes longest."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "full").write_text("a file where a folder should be")
    return folder, run_on_two_ranks(TOGETHER, folder)


class Apart(nn.Module):
    """Takes the mean of the losses of a batch's images, each by itself; the identity loss learns of all of them at the end."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        oim = self.detector.oim_loss
        met: list[tuple[Tensor, Tensor]] = []
        update, oim.update_tables = oim.update_tables, lambda *people: met.append(people)
        losses = [self.detector([image], [target]) for image, target in zip(images, targets, strict=True)]
        oim.update_tables = update
        oim.update_tables(torch.cat([people for people, _ in met]), torch.cat([ids for _, ids in met]))
        return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}


def detector_task(batch_size: int) -> DetectorTask:
    return DetectorTask(images=8, batch_size=batch_size, augment=False, **ALL_SAMPLES)


def train_detector(folder: Path) -> dict[str, Tensor]:
    task = detector_task(batch_size=1)
    fit(folder / "two", task, optim=OPTIM, epochs=5, ema_decay=0.9)
    return dict(task.model.state_dict())


def test_two_processes_are_one_with_both_images(ranks: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, (one, other) = ranks[0], [each["detector"] for each in ranks[1]]
    task = detector_task(batch_size=2)
    detector: Any = task.model
    task.model = Apart(detector)
    fit(tmp_path / "one", task, optim=OPTIM, epochs=5, ema_decay=0.9)
    ours, theirs = course(folder / "two"), course(tmp_path / "one")
    assert len(ours) == len(theirs) == 20
    for two, single in zip(ours, theirs, strict=True):
        assert two["lr"] == single["lr"]
        assert two["losses"] == pytest.approx(single["losses"], abs=1e-4), f"step {two['step']}"
    assert theirs[-1]["loss"] < theirs[0]["loss"]
    assert detector.oim_loss.lookup_table.any() and detector.oim_loss.queue.any(), "or the tables were not tried"
    for name, value in detector.state_dict().items():
        if "running" not in name and "num_batches" not in name:  # the main process's statistics are of its own images
            torch.testing.assert_close(one[name], value, rtol=1e-3, atol=1e-4, msg=name)
            assert torch.equal(one[name], other[name]), name


def train_lines(folder: Path, rank: int) -> dict[str, Any]:
    """Let things go wrong in the second process only, or in the main one only, and see what each of them says."""
    found: dict[str, Any] = {}
    result = fit(folder / "whole", epochs=3, evaluate_every=1)
    found["metrics"] = result.metrics
    asked = LineTask(during=lambda now: os.kill(os.getpid(), signal.SIGTERM) if rank == 1 and now == 3 else None)
    result = fit(folder / "stopped", asked, epochs=3)
    found["stopped"] = [result.stopped, result.step]
    found["resumed"] = fit(folder / "stopped", resume=True, epochs=3).step
    fit(folder / "accumulated", LineTask(length=12, model=Still()), epochs=3, accumulate=3)
    damaged = LineTask(damaged=frozenset({(0, 1), (1, 2), (1, 5)}))  # 1 and 5 are the second process's, 2 the first's
    fit(folder / "damaged", damaged, epochs=3)
    found["damaged"] = damaged.steps
    spoilt = LineTask(model=_Spoilt() if rank == 1 else Line())
    wrong = {"nan": spoilt, "whole": LineTask(), "unused": _unused(), "full/file": LineTask(), "short": LineTask(length=1)}
    for name, task in wrong.items():
        try:
            fit(folder / name, task)
        except (TrainingError, CacheError, ArgumentError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    found["finds unused"] = fit(folder / "finds", _unused(), find_unused_parameters=True).step
    return found


def _unused() -> LineTask:
    task = LineTask()
    task.model.spare = nn.Linear(2, 2)
    return task


class _Spoilt(Line):
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        losses = super().forward(x, y)
        return {**losses, "fit": losses["fit"] / 0.0 if self.calls > 4 else losses["fit"]}


def test_batches_of_both_that_are_accumulated_are_those_of_one(ranks: tuple[Path, list[Any]], tmp_path: Path) -> None:
    fit(tmp_path / "one", LineTask(length=12, model=Still()), epochs=3, accumulate=6)
    ours, theirs = course(ranks[0] / "accumulated"), course(tmp_path / "one")
    assert len(ours) == len(theirs) == 9
    for two, single in zip(ours, theirs, strict=True):
        assert two.get("loss") == pytest.approx(single.get("loss"), rel=1e-5)
        assert two.get("grad_norm") == pytest.approx(single.get("grad_norm"), rel=1e-5)


def test_what_one_process_meets_all_know_of(ranks: tuple[Path, list[Any]]) -> None:
    folder, (one, other) = ranks[0], [each["lines"] for each in ranks[1]]
    assert one == other, "errors and all"
    assert one["stopped"] == ["SIGTERM", 4] and one["resumed"] == 9
    assert course(folder / "stopped") == course(folder / "whole")
    assert one["damaged"] == 9 - 3, "three pairs, each with one that cannot be read"
    assert "fit is not finite" in one["nan"]
    shares = json.loads((folder / "nan" / "nonfinite.json").read_text())["processes"]
    assert [share["losses"]["fit"] == "inf" for share in shares] == [False, True] and all(share["images"] for share in shares)
    assert "holds a run already" in one["whole"] and "CacheError" in one["full/file"]
    assert "2 parameters have no part" in one["unused"] and "spare.weight" in one["unused"]
    assert "an epoch has 0 batches" in one["short"] and one["finds unused"] == 9
    (environment,) = json.loads((folder / "whole" / "environment.json").read_text())
    assert environment["processes"] == 2
