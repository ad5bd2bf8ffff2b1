"""Keep what a run finds: written every few seconds, put together when small files are many, true at every moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pretrainps.errors import IntegrityError
from pretrainps.gallery.search import faiss_index as approximate
from pretrainps.gallery.storage.manifest import Failure, FileMark, Manifest, ModelMark, NeighboursMark, SourceMark
from pretrainps.gallery.storage.store import DetectionShard, GalleryStore, ImageRecord, joined

_SECONDS = 5.0
"""What is found is written this often: what a power cut may cost."""
_IMAGES = 256
"""It is written earlier when so many images are waiting,"""
_SMALL_FILES = 32
"""and so many small files are put together as"""
_LARGE = 32 << 20
"""files of this many bytes,"""
_LARGE_IMAGES = 20_000
"""or of this many images."""
log = logging.getLogger("pretrainps")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Everyone in one image."""

    record: ImageRecord
    boxes: Tensor
    scores: Tensor
    embeddings: Tensor


class Keeper:
    """Writes what is found, and keeps the manifest true at every moment.

    Args:
        store: Where.
        manifest: What is there.
    """

    def __init__(self, store: GalleryStore, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.seen: list[str] = []
        self._old: list[DetectionShard] = []
        self._waiting: list[Found] = []
        self._failures: list[Failure] = []
        self._written = time.monotonic()

    def open(self) -> list[ImageRecord]:
        """Return the known images; a damaged file is forgotten, and its images are looked at again."""
        whole = []
        for mark in self.manifest.files:
            try:
                self._old.append(self.store.open_people(mark, self.manifest.model.dim))
                whole.append(mark)
            except (IntegrityError, FileNotFoundError) as error:
                log.warning("%s. Its images are looked at again.", str(error).split(". ")[0])
        self._set(files=tuple(whole))
        return [record for people in self._old for record in people.images]

    def begin(self, model: ModelMark, source: SourceMark, kept: dict[str, ImageRecord]) -> None:
        """Drop the people of images that are gone or changed, and write down that a run has begun."""
        files = []
        for mark, people in zip(self.manifest.files, self._old, strict=True):
            if all(kept.get(record.name) == record for record in people.images):
                files.append(mark)
                continue
            people = people.changed(lambda record: kept.get(record.name))
            files += [self.store.write_people(people)] if people.images else []
        self._old = []
        self._set(model=model, source=source, files=tuple(files), failures=(), complete=False)
        self._write()
        self.store.sweep(self.manifest)

    def add(self, found: Found | Failure) -> None:
        """Take what was found in one image, and write when it is time."""
        if isinstance(found, Failure):
            self._failures.append(found)
        else:
            self._waiting.append(found)
            self.seen.append(found.record.name)
        if len(self._waiting) >= _IMAGES or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            self._set(files=(*self.manifest.files, self.store.write_people(_as_sightings(self._waiting))))
            self._waiting = []
            if sum(map(_is_small, self.manifest.files)) >= _SMALL_FILES:
                self._put_together()
        self._set(failures=tuple(self._failures))
        self._write()

    def finish(self, failures: tuple[Failure, ...], approximate_above: int) -> None:
        """Put small files together, make or drop the index for approximate search, and say that the run is complete."""
        if sum(map(_is_small, self.manifest.files)) > 1:
            self._put_together()
        self._set(failures=(*failures, *self._failures), neighbours=self._neighbours(approximate_above), complete=True)
        self._write()
        self.store.sweep(self.manifest)

    def _put_together(self) -> None:
        """Join small files; the large ones stay as they are."""
        files = [mark for mark in self.manifest.files if not _is_small(mark)]
        group: list[FileMark] = []
        for mark in (*filter(_is_small, self.manifest.files), None):
            full = sum(each.size for each in group) >= _LARGE or sum(each.images for each in group) >= _LARGE_IMAGES
            if group and (mark is None or full):
                files.append(self.store.write_people(joined([self._open(each) for each in group])))
                group = []
            group += [mark] if mark is not None else []
        self._set(files=tuple(files))
        self._write()
        self.store.sweep(self.manifest)

    def _neighbours(self, above: int) -> NeighboursMark | None:
        old = self.manifest.neighbours
        if self.manifest.people <= above:
            return None
        if old is not None and old.of == self.manifest.contents:
            return old
        if not approximate.is_installed():
            log.warning(
                "%s people are searched exactly, which takes longer: for an index, pip install 'pretrainps[index]'.",
                f"{self.manifest.people:,}",
            )
            return None
        blocks = [self._open(mark).embeddings for mark in self.manifest.files]
        return self.store.write_neighbours(blocks, self.manifest.contents)

    def _open(self, mark: FileMark) -> DetectionShard:
        """Map a file that was verified or written in this run."""
        return self.store.open_people(mark, self.manifest.model.dim, verify=False)

    def _set(self, **changes: Any) -> None:
        self.manifest = replace(self.manifest, **changes)

    def _write(self) -> None:
        self.manifest.write(self.store.folder)
        self._written = time.monotonic()


def _as_sightings(found: Sequence[Found]) -> DetectionShard:
    counts = torch.tensor([len(each.scores) for each in found])
    return DetectionShard(
        images=tuple(each.record for each in found),
        numbers=torch.arange(len(found), dtype=torch.int32).repeat_interleave(counts),
        boxes=torch.cat([each.boxes for each in found]),
        scores=torch.cat([each.scores for each in found]),
        embeddings=torch.cat([each.embeddings for each in found]),
    )


def _is_small(mark: FileMark) -> bool:
    return mark.size < _LARGE // 2 and mark.images < _LARGE_IMAGES // 2
