"""Measure images per second and peak memory of SeqNet on a GPU, for inference and training.

The results are written to results/ under the name of the GPU.

    python benchmarks/gpu.py                                              # 900x1500, training batches of 5
    python benchmarks/gpu.py --device cpu --size 96 160 --batch 2 --rounds 1   # only to check that it runs

The images are noise and the weights are random, so each image has the largest number of proposals: the worst case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision
from torch import Tensor

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.detectors import SeqNet

RESULTS = Path(__file__).parent.parent / "results"


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """Return float32, and on a GPU bfloat16 too; most CPUs emulate bfloat16 very slowly."""
    wide = {"float32": torch.float32}
    return {**wide, "bfloat16": torch.bfloat16} if device.type == "cuda" else wide


def measured(step: Callable[[], object], device: torch.device, images: int, rounds: int) -> dict[str, float]:
    """Run a step several times after a warm-up; return images per second and peak memory in GB."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        step()
    synchronize()
    seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
    return {"images_per_second": round(images * rounds / seconds, 2), "peak_memory_gb": round(memory, 2)}


@contextlib.contextmanager
def precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Use autocast unless the type is float32."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
        yield


def inference(model: SeqNet, images: list[Tensor], device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Measure detection, one image after the other and in one batch."""
    model.eval()
    found = {}
    ways: dict[str, tuple[SeqNet, torch.dtype]] = {}
    for name, dtype in precisions(device).items():
        ways[f"as trained, autocast {name}"] = (model, dtype)
        ways[f"optimized, {name}"] = (model.optimize_for_inference(dtype=dtype), torch.float32)
    for name, (way, cast) in ways.items():
        for count in (1, len(images)):
            with precision(device, cast):
                found[f"{name}, batch {count}"] = measured(lambda way=way, n=count: way(images[:n]), device, count, rounds)
    return found


def training(model: SeqNet, images: list[Tensor], device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Measure forward, backward and update."""
    height, width = images[0].shape[-2:]
    box = torch.tensor([[0.1 * width, 0.1 * height, 0.4 * width, 0.9 * height]], device=device)
    targets = [{"boxes": box, "ids": torch.tensor([index], device=device)} for index in range(len(images))]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-5, momentum=0.9)
    found = {}
    for checkpointing in (False, True):
        model.train().enable_gradient_checkpointing(checkpointing)
        for name, dtype in precisions(device).items():

            def step(dtype: torch.dtype = dtype) -> None:
                with precision(device, dtype):
                    losses = model(images, targets)
                optimizer.zero_grad(set_to_none=True)
                torch.stack(list(losses.values())).sum().backward()
                optimizer.step()

            label = f"{name}, batch {len(images)}" + (", gradient checkpointing" if checkpointing else "")
            found[label] = measured(step, device, len(images), rounds)
    return found


def main() -> None:
    """Measure and print; on a GPU also write the results to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, nargs=2, default=(900, 1500), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu with a small --size shows that it runs")
    torch.manual_seed(0)
    model = pretrainps.build_detector(
        "seqnet",
        backbone=build_backbone("resnet50"),
        num_identities=5532,
        config={"min_size": min(args.size), "max_size": max(args.size)},
    )
    assert isinstance(model, SeqNet)
    model.to(device)
    images = [torch.rand(3, *args.size, device=device) for _ in range(args.batch)]
    report = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "image": list(args.size),
        "training": training(model, images, device, args.rounds),
        "inference": inference(model, images, device, args.rounds),
    }
    print(json.dumps(report, indent=2))
    if device.type == "cuda":
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"seqnet-{report['device'].lower().replace(' ', '-')}.json"
        file.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {file}")


if __name__ == "__main__":
    main()
