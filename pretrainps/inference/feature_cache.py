"""Features of images kept in a folder, some images a file, so that an interrupted run continues where it stopped."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from tqdm import tqdm

from pretrainps.data.records import Sample
from pretrainps.files import new_file

Arrays = dict[str, NDArray[Any]]
"""The features of one image: arrays with a row for each person."""
SHARD = 16
"""Images in a file. An interruption loses at most so many."""


class FeatureCache:
    """Keeps arrays of images in a folder.

    Args:
        folder: Where. It must belong to this very model and these very images (`fingerprint_of_model`, `digest_of_samples`).
            `None` keeps nothing.
        progress: Whether to show bars.
    """

    def __init__(self, folder: Path | None, *, progress: bool = True) -> None:
        self.folder, self.progress = folder, progress

    def collect(
        self, what: str, count: int, compute: Callable[[Sequence[int]], Iterator[Arrays | None]]
    ) -> list[Arrays | None]:
        """Return the arrays of each image, from files where there are any.

        A damaged file is replaced. No file is written if one of its images could not be read: the next run tries again.

        Args:
            what: A word for the arrays: part of the files' names, and shown in the bar.
            count: Number of images.
            compute: Yields the arrays of the images that it is given, in order; None for one that could not be read. It is
                called once, with all images that no file holds.

        Raises:
            CacheError: the folder cannot be written to.
        """
        parts = [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
        kept = {part.start: images for part in parts if (images := self._read(what, part)) is not None}
        computed = compute([image for part in parts if part.start not in kept for image in part])
        features: list[Arrays | None] = []
        with tqdm(total=count, desc=what, unit="image", disable=not self.progress, leave=False) as bar:
            for part in parts:
                if part.start in kept:
                    features += kept[part.start]
                    bar.update(len(part))
                    continue
                new: list[Arrays] = []
                for arrays in itertools.islice(computed, len(part)):
                    features.append(arrays)
                    new += [] if arrays is None else [arrays]
                    bar.update()
                if len(new) == len(part):
                    self._write(what, part, new)
        return features

    def _path(self, what: str, images: range) -> Path:
        assert self.folder is not None
        return self.folder / f"{what}-{images.start:06d}-{images.stop:06d}.safetensors"

    def _read(self, what: str, images: range) -> list[Arrays] | None:
        if self.folder is None:
            return None
        try:
            arrays = load(self._path(what, images).read_bytes())
            counts = arrays.pop("counts")
        except (OSError, SafetensorError, KeyError):
            return None
        rows = {len(part) for part in arrays.values()} if all(part.ndim for part in arrays.values()) else set()
        if counts.shape != (len(images),) or counts.dtype != np.int64 or rows != {int(counts.sum())} or counts.min() < 0:
            return None
        borders = np.cumsum(counts)[:-1]
        parts = {name: np.split(rows, borders) for name, rows in arrays.items()}
        return [{name: rows[place] for name, rows in parts.items()} for place in range(len(images))]

    def _write(self, what: str, images: range, found: Sequence[Arrays]) -> None:
        if self.folder is None:
            return
        arrays = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        counts = np.array([len(next(iter(each.values()))) for each in found], dtype=np.int64)
        with new_file(self._path(what, images)) as temporary:
            temporary.write_bytes(save({**arrays, "counts": counts}))


def digest_of_samples(samples: Iterable[Sample]) -> str:
    """Return a hash of images and what is annotated in them.

    For a file, its name, size and time stand: to read it would be slow.
    """
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.name.encode())
        if isinstance(sample.image, Path):
            status = sample.image.stat() if sample.image.exists() else None
            digest.update(f"{sample.image.name} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
        else:
            digest.update(sample.image.tobytes())
        digest.update(sample.boxes.tobytes() + sample.ids.tobytes())
    return digest.hexdigest()
