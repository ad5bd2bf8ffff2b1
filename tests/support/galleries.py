"""Small galleries: a tiny detector that finds people in noise, folders of noise, and stores filled without any detector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import Gallery, IndexReport
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.gallery.storage.header import GalleryHeader, ImageRecord, ModelMark, SourceMark
from pretrainps.gallery.storage.manifest import FileMark, Manifest
from pretrainps.gallery.storage.shard import DetectionShard
from tests.support.detectors import lively_detector

DIM = 8


@cache
def detector(seed: int = 0) -> PersonSearchDetector[Any]:
    """A detector that answers within some milliseconds; made once a seed."""
    model = lively_detector("oim", "shufflenetv1", min_size=32, max_size=64)
    with torch.no_grad():
        next(model.parameters()).add_(0.01 * seed)
    return model


def noise(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """Write an image of noise, of a width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def photos(folder: Path, count: int = 4) -> Path:
    """Write images of two sizes, some in a folder below."""
    for place in range(count):
        noise(folder / ("trip" if place % 2 else ".") / f"{place}.png", place, (48, 40) if place % 3 else (40, 48))
    return folder


def indexed(folder: Path, store: Path, **options: Any) -> IndexReport:
    """Bring a gallery up to date by the small detector."""
    return Gallery.index(folder, options.pop("model", detector()), store=store, progress=False, **options)


def everyone(gallery: Gallery) -> dict[str, list[tuple[tuple[float, ...], float]]]:
    """Return the detections of a gallery, image by image, in whatever order it holds them."""
    return {name: [(each.box, each.score) for each in gallery.detections_of(name)] for name in gallery.image_names}


def random_shard(counts: Sequence[int], seed: int = 0, *, dim: int = DIM, first: int = 0) -> DetectionShard:
    """Return random detections, so many in each image."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    corners = 90 * torch.rand(total, 2, generator=generator)
    return DetectionShard(
        images=tuple(ImageRecord(f"{first + place}.jpg", 10, place, f"{place:064x}") for place in range(len(counts))),
        image_indices=torch.arange(len(counts), dtype=torch.int32).repeat_interleave(torch.tensor(counts)),
        boxes=torch.cat([corners, corners + 10], dim=1),
        scores=torch.rand(total, generator=generator),
        embeddings=torch.nn.functional.normalize(torch.randn(total, dim, generator=generator)),
    )


def stored(folder: Path, parts: Sequence[DetectionShard], *, dim: int = DIM) -> Manifest:
    """Write a gallery of these detections, made by no model."""
    store = GalleryFiles(folder)
    files: list[FileMark] = []
    with store.lock(wait=False):
        for part in parts:
            files.append(store.write_shard(part))
        header = GalleryHeader(model=model_mark(dim), source=SourceMark(kind="folder", root=str(folder)))
        manifest = Manifest(header=header, files=tuple(files))
        manifest.write(folder)
    return manifest


def model_mark(dim: int = DIM) -> ModelMark:
    """Return the mark of no model."""
    return ModelMark(name="no-model", fingerprint="0" * 64, kind="oim", dim=dim, precision="float32", weighted=False)


def embeddings(parts: Sequence[DetectionShard]) -> Tensor:
    """Return all embeddings, in order."""
    return torch.cat([part.embeddings for part in parts])
