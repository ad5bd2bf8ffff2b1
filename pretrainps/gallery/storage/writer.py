"""Write a run's detections to a folder: every few seconds, and so that the folder is a whole gallery at every moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pretrainps.errors import IntegrityError
from pretrainps.gallery.search.protocol import VectorIndexType
from pretrainps.gallery.storage.catalog import FolderCatalog
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.gallery.storage.header import Failure, GalleryHeader, ImageRecord
from pretrainps.gallery.storage.manifest import FileMark, Manifest
from pretrainps.gallery.storage.shard import DetectionShard, join_shards, shard_of
from pretrainps.inference.detections import Detections

_SECONDS = 5.0
"""Detections are written this often. A power cut loses at most what came later."""
_IMAGES = 256
"""They are written earlier when so many images are waiting."""
_SMALL_FILES = 32
"""When there are so many small files, they are joined."""
_LARGE = 32 << 20
"""Small files are joined up to this many bytes,"""
_LARGE_IMAGES = 20_000
"""or up to this many images."""
log = logging.getLogger("pretrainps")


class FolderWriter:
    """Writes detections and keeps the manifest true at every moment. It follows `StoreWriter`.

    Args:
        files: The folder. Its lock is held.
        manifest: What is there; `None` to begin with nothing.
    """

    def __init__(self, files: GalleryFiles, manifest: Manifest | None) -> None:
        self.files = files
        self.header = None if manifest is None else manifest.header
        self._old_manifest = manifest
        self._old: list[tuple[FileMark, DetectionShard]] = []
        self._waiting: list[tuple[ImageRecord, Detections]] = []
        self._written = time.monotonic()

    def records(self) -> dict[str, ImageRecord]:
        """Return the indexed images by name. Those of a damaged file are left out, and so are indexed again."""
        self._old = []
        old = self._old_manifest
        if old is None:
            return {}
        for mark in old.files:
            try:
                self._old.append((mark, self.files.open_shard(mark, old.header.model.dim)))
            except (IntegrityError, FileNotFoundError) as error:
                log.warning("%s. Its images are looked at again.", str(error).split(". ")[0])
        return {record.name: record for _, shard in self._old for record in shard.images}

    def begin(self, header: GalleryHeader, kept: Mapping[str, ImageRecord]) -> None:
        """Drop the detections of images that are not kept, and write down that a run has begun."""
        self._manifest = Manifest(header=header, index=None if self._old_manifest is None else self._old_manifest.index)
        marks = []
        for mark, shard in self._old:
            if all(kept.get(record.name) == record for record in shard.images):
                marks.append(mark)
                continue
            shard = shard.changed(lambda record: kept.get(record.name))
            marks += [self.files.write_shard(shard)] if shard.images else []
        self._old = []
        self._set(files=tuple(marks))
        self._write()
        self.files.sweep(self._manifest)

    def append(self, record: ImageRecord, found: Detections) -> None:
        """Take the detections of a new image, and write when it is time."""
        self._waiting.append((record, found))
        if len(self._waiting) >= _IMAGES or time.monotonic() - self._written > _SECONDS:
            self._write_waiting()
            self._write()

    def flush(self, failures: Sequence[Failure]) -> None:
        """Write everything that is waiting, and the failures until now."""
        self._write_waiting()
        self._set_header(failures=tuple(failures))
        self._write()

    def finish(self, failures: Sequence[Failure]) -> FolderCatalog:
        """Join small files and mark the run as complete."""
        self._write_waiting()
        if sum(map(_is_small, self._manifest.files)) > 1:
            self._join_small()
        self._set_header(failures=tuple(failures), complete=True)
        self._write()
        self.files.sweep(self._manifest)
        return self.files.catalog(self._manifest, verify=False)

    def save_index(self, kind: VectorIndexType | None) -> None:
        """Have a vector index built, if it is missing or of another version, and drop any other."""
        old, stored = self._manifest.index, self.files.catalog(self._manifest, verify=False)
        if kind is not None and old is not None and (old.kind, old.version) == (kind.name, stored.version):
            return
        new = self.files.write_index(kind, stored) if kind is not None and len(stored) else None
        if new != old:
            self._set(index=new)
            self._write()
            self.files.sweep(self._manifest)

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        shard = shard_of(self._waiting, self._manifest.header.model.dim)
        self._set(files=(*self._manifest.files, self.files.write_shard(shard)))
        self._waiting = []
        if sum(map(_is_small, self._manifest.files)) >= _SMALL_FILES:
            self._join_small()

    def _join_small(self) -> None:
        """Join small files. The large ones stay as they are."""
        marks = [mark for mark in self._manifest.files if not _is_small(mark)]
        group: list[FileMark] = []
        for mark in (*filter(_is_small, self._manifest.files), None):
            full = sum(each.size for each in group) >= _LARGE or sum(each.images for each in group) >= _LARGE_IMAGES
            if group and (mark is None or full):
                marks.append(self.files.write_shard(join_shards([self._open(each) for each in group])))
                group = []
            group += [mark] if mark is not None else []
        self._set(files=tuple(marks))
        self._write()
        self.files.sweep(self._manifest)

    def _open(self, mark: FileMark) -> DetectionShard:
        """Map a file that was verified or written in this run."""
        return self.files.open_shard(mark, self._manifest.header.model.dim, verify=False)

    def _set(self, **changes: Any) -> None:
        self._manifest = replace(self._manifest, **changes)

    def _set_header(self, **changes: Any) -> None:
        self._set(header=replace(self._manifest.header, **changes))

    def _write(self) -> None:
        self._manifest.write(self.files.folder)
        self._written = time.monotonic()


def _is_small(mark: FileMark) -> bool:
    return mark.size < _LARGE // 2 and mark.images < _LARGE_IMAGES // 2
