"""Results of hours of work, kept piece by piece: what was done is not done again, whatever ended the run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn
from tqdm import tqdm

from pretrainps.data.records import Sample
from pretrainps.files import new_file
from pretrainps.weights.unwrap import bare_state

Arrays = dict[str, NDArray[Any]]
"""What was found in one image: arrays with a row each person."""
SHARD = 16
"""Images in a file: what an interruption may cost."""
FORMAT = 1
"""Of what is kept. Raised when something that a result depends on is computed otherwise, it makes older files void."""


class Shards:
    """Keeps arrays of images in a folder, some images a file.

    Args:
        folder: Where; it must belong to this very model and these very images (see `fingerprint`). `None` keeps nothing.
        progress: Whether to show bars.
    """

    def __init__(self, folder: Path | None, *, progress: bool = True) -> None:
        self.folder, self.progress = folder, progress

    def collect(self, what: str, count: int, compute: Callable[[range], Iterator[Arrays | None]]) -> list[Arrays | None]:
        """Return what is found in each of some images, from files where there are any.

        A file that is damaged is made anew. None is written where an image could not be read: the next run tries again.

        Args:
            what: What it is, in a word: part of the files' names, and shown in the bar.
            count: Of images.
            compute: Finds it for images of a range, one after the other; None for one that could not be read.

        Raises:
            CacheError: the folder cannot be written to.
        """
        found: list[Arrays | None] = []
        with tqdm(total=count, desc=what, unit="image", disable=not self.progress, leave=False) as bar:
            for start in range(0, count, SHARD):
                images = range(start, min(start + SHARD, count))
                kept = self._read(what, images)
                if kept is not None:
                    found += kept
                    bar.update(len(images))
                    continue
                new: list[Arrays] = []
                for each in compute(images):
                    found.append(each)
                    new += [] if each is None else [each]
                    bar.update()
                if len(new) == len(images):
                    self._write(what, images, new)
        return found

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


def fingerprint_of_model(model: nn.Module, settings: Mapping[str, Any]) -> str:
    """Return a hash of everything that a model's answers depend on: names and values of its tensors, and settings."""
    digest = hashlib.sha256(repr((FORMAT, sorted(settings.items()))).encode())
    for name, tensor in bare_state(model).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint_of_samples(samples: Iterable[Sample]) -> str:
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
