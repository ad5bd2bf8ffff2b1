"""Measure the cached load of a ResNet-50 against timm and torchvision with the same file, in turn, in one process.

    python benchmarks/load.py [--rounds 15]

All three start from a file on disk (random values, the structure of the published one) and end with a complete model in
eval mode. The package also checks that no key is missing or left over; the others run typical code of their users.
Prints the median time of each and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.download import Cache
from pretrainps.download.cache import Record
from pretrainps.files import sha256_of
from pretrainps.registry import find_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contenders = prepare(Path(folder))
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for load in contenders.values():
            load()  # warm the page cache and the imports
        for _ in range(args.rounds):
            for name, load in contenders.items():
                start = time.perf_counter()
                load()
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians["pretrainps"]
    for name, median in medians.items():
        print(f"{name:46} {1000 * median:7.1f} ms   {median / ours:5.2f} x pretrainps")


def prepare(folder: Path) -> dict[str, Callable[[], torch.nn.Module]]:
    tensors = build_backbone("resnet50").state_dict()
    cache = Cache(folder / "cache")
    pth = cache.original("resnet50-hybrid") / "resnet50-ps12.pth"
    pth.parent.mkdir(parents=True)
    torch.save({"state_dict": tensors}, pth)
    plain, safe = folder / "plain.pth", folder / "plain.safetensors"
    torch.save(tensors, plain)
    save_file(tensors, safe)
    stat = pth.stat()
    spec = replace(find_spec("resnet50-hybrid"), sha256=sha256_of(pth))
    cache.write_record(
        spec.name,
        Record(file=pth.name, sha256=sha256_of(pth), size=stat.st_size, mtime_ns=stat.st_mtime_ns, source="benchmark"),
    )

    def ours() -> torch.nn.Module:
        return pretrainps.load(spec, cache_dir=cache.root, offline=True, progress=False)

    def with_timm(path: Path) -> torch.nn.Module:
        return timm.create_model("resnet50", num_classes=0, checkpoint_path=str(path)).eval()

    def with_torchvision(state: dict[str, torch.Tensor]) -> torch.nn.Module:
        model = torchvision.models.resnet50(weights=None)
        model.load_state_dict(state, strict=False)
        return model.eval()

    def by_hand() -> torch.nn.Module:
        with torch.device("meta"):
            model = torchvision.models.resnet50(weights=None)
        model.fc = torch.nn.Identity()
        model.load_state_dict(load_file(safe), strict=True, assign=True)
        return model.eval()

    return {
        "pretrainps": ours,
        "torchvision, by hand (meta, mapped, assign)": by_hand,
        "timm, .safetensors": lambda: with_timm(safe),
        "timm, .pth": lambda: with_timm(plain),
        "torchvision, .pth (mmap)": lambda: with_torchvision(torch.load(plain, weights_only=True, mmap=True)),
        "torchvision, .pth": lambda: with_torchvision(torch.load(plain, weights_only=True)),
        "torchvision, .safetensors": lambda: with_torchvision(load_file(safe)),
    }


if __name__ == "__main__":
    main()
