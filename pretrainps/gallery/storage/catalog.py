"""One version of a gallery in a folder: detections by their rows, images by their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from torch import Tensor

from pretrainps.gallery.storage.header import GalleryHeader, ImageRecord, IndexMark
from pretrainps.gallery.storage.manifest import IndexFile, Manifest
from pretrainps.gallery.storage.shard import DetectionShard
from pretrainps.inference.detections import F32, Detections


class FolderCatalog:
    """Detections of several files as one version. It follows `StoredDetections`.

    Args:
        manifest: The version's manifest.
        parts: The detections of its files, in order.
        check: Returns the path of an index's file, known to be unchanged.
    """

    def __init__(self, manifest: Manifest, parts: Sequence[DetectionShard], check: Callable[[IndexFile], Path]) -> None:
        self._manifest, self._parts, self._check = manifest, parts, check
        self._starts = list(accumulate((len(part) for part in parts), initial=0))

    @property
    def header(self) -> GalleryHeader:
        """What is known of the gallery as a whole."""
        return self._manifest.header

    @property
    def version(self) -> str:
        """Digest of all detections in their order."""
        return self._manifest.version

    @property
    def index(self) -> IndexMark | None:
        """The vector index that was saved last."""
        saved = self._manifest.index
        return None if saved is None else IndexMark(kind=saved.kind, version=saved.version, facts=saved.facts)

    @cached_property
    def image_names(self) -> tuple[str, ...]:
        """Names of all indexed images."""
        return tuple(self._places)

    def __len__(self) -> int:
        return self._starts[-1]

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def record(self, image: str) -> ImageRecord:
        """Return what is known of an image's file."""
        part, place = self._places[image]
        return self._parts[part].images[place]

    def rows_of(self, image: str) -> range:
        """Return the rows of an image's detections."""
        part, place = self._places[image]
        rows, first = self._parts[part].rows_of(place), self._starts[part]
        return range(first + rows.start, first + rows.stop)

    def image_of(self, row: int) -> str:
        """Return the name of the image that a row's detection is in."""
        part = bisect_right(self._starts, row) - 1
        return self._parts[part].images[int(self._parts[part].image_indices[row - self._starts[part]])].name

    def table(self, images: Sequence[str]) -> Detections:
        """Return all detections of some images, in the given order."""
        places = [self._places[image] for image in images]
        pieces = [(self._parts[part], self._parts[part].rows_of(place)) for part, place in places]

        def rows(name: str, *shape: int) -> F32:
            nothing: F32 = np.zeros((0, *shape), dtype=np.float32)
            return np.concatenate([nothing, *(getattr(part, name)[run.start : run.stop].numpy() for part, run in pieces)])

        return Detections(
            boxes=rows("boxes", 4),
            scores=rows("scores"),
            embeddings=rows("embeddings", self.header.model.dim),
            counts=np.array([len(run) for _, run in pieces], dtype=np.int64),
        )

    def embeddings(self) -> list[Tensor]:
        """Return all embeddings, (N_i, D) for each file."""
        return [part.embeddings for part in self._parts]

    def index_file(self) -> Path | None:
        """Return the path of the index's file, known to be unchanged."""
        saved = self._manifest.index
        return None if saved is None or saved.file is None else self._check(saved)

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """For each image's name its file and its place among the images of that file."""
        return {
            record.name: (number, place) for number, part in enumerate(self._parts) for place, record in enumerate(part.images)
        }
