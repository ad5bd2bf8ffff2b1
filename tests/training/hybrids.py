"""Small hybrid models and batches for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors.region import RegionConfig
from pretrainps.training.pretraining.alignment import AlignmentSettings
from pretrainps.training.pretraining.model import HybridModel, HybridSettings
from pretrainps.training.pretraining.subtask_batches import Crops, Scenes
from tests.support.detectors import TINY as TINY_DETECTOR

TINY: dict[str, Any] = {**TINY_DETECTOR, "num_identities": 1, "max_size": 96, "embedding_dim": 16, "freeze_stem": False}


@cache
def backbone(arch: str = "resnet18") -> Backbone:
    """To be copied from only; drawing weights takes longer than a step."""
    torch.manual_seed(0)
    return build_backbone(arch)


def hybrid(
    align: Any = "none", *, detector: dict[str, Any] | None = None, arch: str = "shufflenetv1", **settings: Any
) -> HybridModel:
    """Two detection and two re-ID data sets, unless `settings` says otherwise."""
    start = backbone(arch)
    torch.manual_seed(1)  # after the first call for a backbone, which draws it
    alignment = align if isinstance(align, AlignmentSettings) else AlignmentSettings(kind=align, width=8)
    chosen: dict[str, Any] = {"detection_sets": ("street", "yard"), "reid_sets": {"hall": 3, "city": 4}, **settings}
    config = RegionConfig(**{**TINY, **(detector or {})})
    return HybridModel(start, HybridSettings(detector=config, alignment=alignment, **chosen)).train()


def scenes(count: int = 1, seed: int = 0) -> Scenes:
    """Noise with a person in it, and a region to ignore."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, 64, 80, generator=generator) for _ in range(count)]
    target = {"boxes": torch.tensor([[8.0, 8, 28, 56]]), "ignore": torch.tensor([[60.0, 0, 80, 64]]), "name": "a scene"}
    return images, [dict(target) for _ in images]


def crops(ids: list[int], seed: int = 0) -> Crops:
    """Noise of the size of people."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(ids), 3, 64, 32, generator=generator), torch.tensor(ids), torch.full((len(ids),), -1)


def batch() -> tuple[dict[str, Scenes], dict[str, Crops]]:
    """Something of every data set of `hybrid`."""
    return {"street": scenes(1, 0), "yard": scenes(1, 1)}, {"hall": crops([0, 0, 1], 2), "city": crops([2, 3, 3], 3)}


def total(losses: dict[str, Tensor]) -> Tensor:
    """The objective."""
    return torch.stack(list(losses.values())).sum()
