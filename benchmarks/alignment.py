"""Measure the cost of intra-task alignment: time and peak memory of a hybrid training step with and without it.

    python benchmarks/alignment.py                       # ResNet-18, 4 scenes of 320x480, 32 crops of 256x128
    python benchmarks/alignment.py --arch shufflenetv1

A step is forward, backward and SGD with momentum, with two data sets in each sub-task. Peak memory is the largest resident
memory of a separate process for each kind, minus that of a process without any step. Times are CPU times on one thread, so that
other work of the machine matters little. Each round has one step of each kind; ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from pretrainps.backbones import build_backbone
from pretrainps.detectors.region import RegionConfig
from pretrainps.training.pretraining.alignment import AlignmentSettings
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.subtask_batches import Crops, Scenes

KINDS = ("none", "adversarial", "mmd", "domain_norm")
PEOPLE = 6
Given = tuple[dict[str, Scenes], dict[str, Crops]]


def batch(scenes: int, crops: int) -> Given:
    """Return noise with people in it, half of the scenes and half of the crops from each of two data sets."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(PEOPLE, 2, generator=generator) * torch.tensor([400.0, 180.0])
    target = {"boxes": torch.cat([corners, corners + torch.tensor([50.0, 120.0])], dim=1)}

    def some_scenes() -> Scenes:
        images = [torch.rand(3, 320, 480, generator=generator) for _ in range(scenes // 2)]
        return images, [target] * len(images)

    def some_crops() -> Crops:
        ids = torch.arange(crops // 2) // 4
        return torch.rand(crops // 2, 3, 256, 128, generator=generator), ids, ids

    return {"a": some_scenes(), "b": some_scenes()}, {"c": some_crops(), "d": some_crops()}


class Trainer:
    """A model and its optimizer."""

    def __init__(self, kind: str, arch: str, people: int) -> None:
        torch.manual_seed(0)
        settings = HybridSettings(
            detection_sets=("a", "b"),
            reid_sets={"c": people, "d": people},
            detector=RegionConfig(num_identities=1, min_size=320, max_size=480, freeze_stem=False),
            alignment=AlignmentSettings(kind=kind),  # type: ignore[arg-type]
            crop_features="roi",  # the cheaper kind of step, so that alignment is a larger share of it
        )
        self.model = HybridModel(build_backbone(arch), settings).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)

    def step(self, given: Given) -> float:
        """Train on a batch and return the CPU time in seconds."""
        begin = time.process_time()
        self.optimizer.zero_grad()
        torch.stack(list(self.model(*given).values())).sum().backward()
        self.optimizer.step()
        return time.process_time() - begin


def peak(kind: str, arch: str, given: Given, steps: int) -> float:
    """Train a few steps in this process and return its peak memory, in MB."""
    trainer = Trainer(kind, arch, 100)
    for _ in range(steps):
        trainer.step(given)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--scenes", type=int, default=4, help="scenes in a batch")
    parser.add_argument("--crops", type=int, default=32, help="crops in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each kind, after one for warm-up")
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "STEPS"), help="only print the peak memory of STEPS steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = batch(options.scenes, options.crops)
    if options.peak:
        print(peak(options.peak[0], options.arch, given, int(options.peak[1])))
        return

    def peak_of(kind: str, steps: int) -> float:
        again = [sys.executable, __file__, *sys.argv[1:], "--peak", kind, str(steps)]
        return float(subprocess.run(again, check=True, capture_output=True, text=True).stdout)

    memory = {kind: peak_of(kind, 2) for kind in KINDS}
    idle = peak_of("none", 0)
    trainers = {kind: Trainer(kind, options.arch, 100) for kind in KINDS}
    for trainer in trainers.values():
        trainer.step(given)
    rounds = [{kind: trainer.step(given) for kind, trainer in trainers.items()} for _ in range(options.rounds)]
    print(f"{options.arch}, {options.scenes} scenes 320x480, {options.crops} crops 256x128, one thread")
    print(f"{'alignment':12s} {'step':>8s} {'ratio':>7s} {'peak':>9s} {'ratio':>7s}")
    for kind in KINDS:
        seconds = statistics.median(each[kind] for each in rounds)
        ratio = statistics.median(each[kind] / each["none"] for each in rounds)
        used = memory[kind] - idle
        print(f"{kind:12s} {seconds:7.2f}s {ratio:7.3f} {used:6.0f} MB {used / (memory['none'] - idle):7.3f}")


if __name__ == "__main__":
    main()
