"""A file's worth of detections: many images, their records, and one row for each detection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from pretrainps.gallery.storage.header import ImageRecord, is_safe_name
from pretrainps.inference.detections import Detections


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DetectionShard:
    """The detections of some images: those of the first image, then those of the second, and so on."""

    images: tuple[ImageRecord, ...]
    """The images, also those without detections."""
    image_indices: Tensor
    """(N,) int32, the place in `images` of each detection's image. They never fall."""
    boxes: Tensor
    """(N, 4) float32, x1, y1, x2, y2 in pixels of the upright image."""
    scores: Tensor
    """(N,) float32, how sure the detector was."""
    embeddings: Tensor
    """(N, D) float32, as the detector gives them for a gallery: unit vectors, times the score if its config says so."""

    def __len__(self) -> int:
        return len(self.scores)

    def rows_of(self, image: int) -> range:
        """Return the rows of one image's detections."""
        start, stop = torch.searchsorted(self.image_indices, torch.tensor([image, image + 1], dtype=torch.int32)).tolist()
        return range(start, stop)

    def changed(self, change: Callable[[ImageRecord], ImageRecord | None]) -> DetectionShard:
        """Return the same with each image's record replaced. If `change` returns `None`, the image and its rows are dropped."""
        new = [change(record) for record in self.images]
        keep = torch.tensor([record is not None for record in new], dtype=torch.bool)
        place = keep.cumsum(0, dtype=torch.int32) - 1  # of each image among those that stay
        images = self.image_indices.long()
        stays = keep[images]
        return DetectionShard(
            images=tuple(record for record in new if record is not None),
            image_indices=place[images][stays],
            boxes=self.boxes[stays],
            scores=self.scores[stays],
            embeddings=self.embeddings[stays],
        )

    def is_consistent(self, *, images: int, detections: int, dim: int) -> bool:
        """Return whether all parts fit to each other and to the expected counts, and all names stay in the folder of images."""
        count = len(self.scores) if self.scores.ndim == 1 else -1
        shapes: list[tuple[Tensor, tuple[int, ...], Any]] = [
            (self.image_indices, (count,), torch.int32),
            (self.boxes, (count, 4), torch.float32),
            (self.scores, (count,), torch.float32),
            (self.embeddings, (count, dim), torch.float32),
        ]
        if (count, len(self.images)) != (detections, images):
            return False
        if any(tuple(tensor.shape) != shape or tensor.dtype != dtype for tensor, shape, dtype in shapes):
            return False
        if count and not (int(self.image_indices[0]) >= 0 and int(self.image_indices[-1]) < images):
            return False
        return bool((self.image_indices.diff() >= 0).all()) and all(map(_is_plain, self.images))


def join_shards(parts: Sequence[DetectionShard]) -> DetectionShard:
    """Put shards of different images together, in order."""
    firsts = itertools.accumulate((len(part.images) for part in parts), initial=0)
    return DetectionShard(
        images=tuple(record for part in parts for record in part.images),
        image_indices=torch.cat([part.image_indices + first for part, first in zip(parts, firsts, strict=False)]),
        boxes=torch.cat([part.boxes for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        embeddings=torch.cat([part.embeddings for part in parts]),
    )


def shard_of(images: Sequence[tuple[ImageRecord, Detections]], dim: int) -> DetectionShard:
    """Return a shard of images, each with a table of its detections.

    Args:
        images: One or more.
        dim: Length of an embedding. A table without detections may not know it.
    """
    tables = [table for _, table in images]
    counts = torch.tensor([len(table) for table in tables])
    return DetectionShard(
        images=tuple(record for record, _ in images),
        image_indices=torch.arange(len(images), dtype=torch.int32).repeat_interleave(counts),
        boxes=torch.cat([torch.from_numpy(table.boxes) for table in tables]),
        scores=torch.cat([torch.from_numpy(table.scores) for table in tables]),
        embeddings=torch.cat([torch.from_numpy(table.embeddings).reshape(-1, dim) for table in tables]),
    )


def _is_plain(record: ImageRecord) -> bool:
    """Return whether a record has the right types, and a name that stays within the folder of images."""
    types = (str, int, int, str)
    if any(type(value) is not wanted for value, wanted in zip(astuple(record), types, strict=True)):
        return False
    return is_safe_name(record.name)
