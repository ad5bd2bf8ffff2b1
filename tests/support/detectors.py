"""Small detectors and scenes, and the originals' key lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrainps.backbones import build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.weights import random_values

GOLDEN = Path(__file__).parent.parent / "golden"
KINDS = ("oim", "nae", "nae+", "seqnet")
SMALL: dict[str, Any] = {
    "num_identities": 10,
    "queue_size": 20,
    "min_size": 96,
    "max_size": 160,
    "rpn_candidates": 200,
    "rpn_proposals": 20,
    "rpn_candidates_train": 400,
    "rpn_proposals_train": 60,
    "region_samples": 16,
}
"""Settings under which a training step takes a fraction of a second."""
TINY: dict[str, Any] = {
    "num_identities": 4,
    "queue_size": 4,
    "min_size": 64,
    "max_size": 64,
    "anchor_sizes": (16, 32),
    "anchor_ratios": (1.0, 2.0),
    "rpn_candidates_train": 64,
    "rpn_proposals_train": 12,
    "rpn_samples": 32,
    "region_samples": 8,
    "region_size": 4,
}
"""And under which dozens of them do."""


def small_detector(kind: str, arch: str = "resnet18", seed: int = 0, **changes: Any) -> PersonSearchDetector[Any]:
    torch.manual_seed(seed)
    return assemble(kind, build_backbone(arch), {**SMALL, **changes}, ASSUMED_INPUT)


def lively_detector(kind: str, arch: str = "resnet18", **changes: Any) -> PersonSearchDetector[Any]:
    """A detector in eval mode with random heads that find people, so that there are outputs to compare.

    Its batch norms start plainly, the heads' too, and measure some noise first; a softmax is pushed towards people, and a
    norm away from certainty, so that scores differ.
    """
    model = small_detector(kind, arch, **{"score_threshold": 0.1, **changes})
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_parameters()  # the heads' own start makes everything nearly zero
        norm.momentum = None  # the mean of what is seen
    model.train()
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 96, 128, generator=generator) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[8.0, 8, 40, 88]]), "ids": torch.tensor([0])} for _ in images]
    with torch.no_grad():
        for _ in range(2):
            model(images, targets)
        for name, parameter in model.named_parameters():
            if name.endswith("cls_score.bias"):
                parameter[1] += 1.0
            elif name.endswith("rescaler.bias"):
                parameter -= 4.0
            elif ".bbox_pred." in name:
                parameter *= 0.3  # a trained head moves boxes by less than their size
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def scenes() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different sizes; the first has an unlabelled person too, the second has no people."""
    generator = torch.Generator().manual_seed(7)
    images = [torch.rand(3, 100, 140, generator=generator), torch.rand(3, 120, 90, generator=generator)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 40, 90], [60, 20, 90, 95]]), "ids": torch.tensor([1, -1])},
        {"boxes": torch.zeros(0, 4), "ids": torch.zeros(0, dtype=torch.int64)},
    ]
    return images, targets


def original_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an original's model (`nae`, `seqnet`, `naeplus_fuse`, `naeplus_res5only`).

    The lists were taken under a later torchvision; the files' own name of the RPN's convolution is put back.
    """
    listed = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    return {key.replace("rpn.head.conv.0.0.", "rpn.head.conv."): tuple(shape) for key, shape in listed.items()}


def original_tensors(name: str, seed: int = 0) -> dict[str, Tensor]:
    """Random values under the keys of an original's model."""
    return random_values(original_shapes(name), seed)
