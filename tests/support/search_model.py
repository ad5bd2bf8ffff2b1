"""A small detector with a spec, so that it can be saved, loaded by name and searched with; it finds people in noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.detectors import PersonSearchDetector
from tests.support.detectors import lively_detector


def search_model() -> PersonSearchDetector[Any]:
    """Return the detector, in eval mode."""
    model = lively_detector("seqnet", "shufflenetv1", max_detections=6)
    model.spec = pretrainps.build_detector("seqnet", backbone=build_backbone("shufflenetv1"), config=model.config).spec
    return model


def noisy_photos(folder: Path, count: int, size: tuple[int, int] = (140, 100)) -> list[Path]:
    """Write pictures of coloured noise, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
        paths.append(folder / f"photo {number}.png")
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths
