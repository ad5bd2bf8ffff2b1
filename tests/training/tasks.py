"""Small trainings: a line to fit, and a detector on scenes that are drawn from random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.data.batching import ShuffledBatches
from pretrainps.data.loading import Loader, Scenes, scenes_together
from pretrainps.data.records import Sample, Split, as_boxes
from pretrainps.data.transforms import SceneAugmentation
from pretrainps.detectors import assemble
from pretrainps.registry.specs import ASSUMED_INPUT
from pretrainps.training import Batch, LoaderStream, LoopSettings, OptimSettings, RunResult, Stream, train
from pretrainps.training.engine.log import read_log
from tests.support.detectors import TINY

OPTIM = OptimSettings(lr=0.01, warmup_steps=3)
TIMES = ("seconds", "waiting", "images_per_second")
"""What a log says that no two runs share."""


class Line(nn.Module):
    """Learns y = 3 x - 1 in spite of dropout; the noise comes from torch's generator, the counter is a buffer."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        dropped = nn.functional.dropout(x, 0.2)
        return {"fit": (self.weight * dropped + self.bias - y).square().mean(), "small": 0.01 * self.weight.square()}


class Still(Line):
    """Nothing random, and one loss."""

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"fit": (self.weight * x + self.bias - y).square().mean()}


class Numbers:
    """A stream of pairs; whatever `damaged` names (epoch, batch) cannot be read."""

    def __init__(self, length: int, rank: int, world_size: int, damaged: frozenset[tuple[int, int]]) -> None:
        self.length, self.rank, self.world_size, self.damaged = length // world_size, rank, world_size, damaged
        self.epoch = self.done = 0

    def __len__(self) -> int:
        return self.length

    def start_at(self, epoch: int, done: int = 0) -> None:
        self.epoch, self.done = epoch, done

    def __iter__(self) -> Iterator[Batch | None]:
        for number in range(self.done, self.length):
            place = number * self.world_size + self.rank
            x = torch.from_numpy(np.random.default_rng([self.epoch, place]).normal(size=8)).float()
            yield None if (self.epoch, place) in self.damaged else (x, 3 * x - 1)


class LineTask:
    """Fits the line.

    Args:
        model: What learns.
        length: Batches of an epoch.
        damaged: What cannot be read, see `Numbers`.
        during: Called in each step, with the steps of this task so far.
        before: Called before each evaluation, with the number of evaluations so far.
    """

    metric: str | None = "closeness"
    batch_size = 8

    def __init__(
        self,
        length: int = 6,
        *,
        model: nn.Module | None = None,
        damaged: frozenset[tuple[int, int]] = frozenset(),
        during: Callable[[int], object] = lambda number: None,
        before: Callable[[int], object] = lambda number: None,
    ) -> None:
        self.model = model or Line()
        self.length, self.damaged, self.during, self.before = length, damaged, during, before
        self.steps = 0
        self.evaluations: list[dict[str, float]] = []

    def stream(self, rank: int, world_size: int) -> Stream:
        return Numbers(self.length, rank, world_size, self.damaged)

    def names(self, batch: Batch) -> list[str]:
        self.during(self.steps)
        self.steps += 1
        return [f"{value:.3f}" for value in batch[0].tolist()]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        self.before(len(self.evaluations))
        torch.rand(3)
        weight = float(model.weight)  # type: ignore[arg-type]
        self.evaluations.append({"closeness": -abs(weight - 3), "weight": weight})
        return self.evaluations[-1]

    def describe(self) -> dict[str, Any]:
        return {"data": {"pairs": "made up"}}


def street(seed: int) -> Sample:
    """A 64 x 64 picture with one or two people in colours of their own."""
    draw = np.random.default_rng(seed)
    picture = draw.integers(0, 80, (64, 64, 3)).astype(np.uint8)
    colours = np.random.default_rng(99).integers(100, 256, (4, 3))
    boxes, ids = [], []
    for number in range(1 + seed % 2):
        width, height, identity = (int(each) for each in (draw.integers(12, 16), draw.integers(28, 40), draw.integers(4)))
        x, y = 32 * number + int(draw.integers(0, 32 - width)), int(draw.integers(0, 64 - height))
        picture[y : y + height, x : x + width] = colours[identity]
        boxes.append([x, y, x + width, y + height])
        ids.append(identity if seed % 3 else -1)
    return Sample(name=f"street_{seed}", image=picture, boxes=as_boxes(boxes), ids=np.array(ids, dtype=np.int64), size=(64, 64))


@cache
def _backbone(arch: str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(arch)


class DetectorTask:
    """A small detector on streets that are mirrored and recoloured at random."""

    metric = None

    def __init__(self, *, images: int = 9, batch_size: int = 2, augment: bool = True, workers: int = 0, **changes: Any) -> None:
        backbone = _backbone("shufflenetv1")
        torch.manual_seed(1)
        self.model: nn.Module = assemble("nae", backbone, {**TINY, **changes}, ASSUMED_INPUT)
        samples = [street(seed) for seed in range(images)]
        self.split = Split(dataset="streets", name="train", task="search", samples=samples, identities=("a", "b", "c", "d"))
        self.batch_size, self.workers = batch_size, workers
        self.transform = SceneAugmentation(flip=0.5, colour=0.4) if augment else SceneAugmentation()

    def stream(self, rank: int, world_size: int) -> Stream:
        batches = ShuffledBatches(len(self.split), self.batch_size, seed=5, rank=rank, world_size=world_size)
        return LoaderStream(Loader(Scenes(self.split, self.transform), batches, scenes_together, workers=self.workers))

    def names(self, batch: Batch) -> list[str]:
        return [target["name"] for target in batch[1]]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def fit(folder: Path, task: Any = None, *, resume: bool = False, optim: OptimSettings = OPTIM, **loop: Any) -> RunResult:
    """Train the line, quietly and on the CPU, with a line of the log a step."""
    settings = LoopSettings(**{"epochs": 3, "log_every": 1, "device": "cpu", **loop})
    return train(task or LineTask(), optim, settings, folder, resume=resume, progress=False)


def course(folder: Path) -> list[dict[str, Any]]:
    """Return what a log says of steps and evaluations, without times."""
    lines = [line for line in read_log(folder / "log.jsonl") if line["kind"] != "start"]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
