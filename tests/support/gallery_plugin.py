"""Back ends of galleries as another package would bring them: detections in an SQLite file, and search in rounded vectors."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrainps import errors
from pretrainps.gallery import DetectionFilter, StoredDetections, VectorIndexType
from pretrainps.gallery.storage.header import Failure, GalleryHeader, ImageRecord, IndexMark, ModelMark, SourceMark
from pretrainps.inference.detections import F32, I64, Detections

SCHEME = "toydb"
TABLES = "CREATE TABLE IF NOT EXISTS images (name TEXT PRIMARY KEY, record TEXT, count INT, rows BLOB)"
NOTES = "CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT)"


class ToyStore:
    """Detections in an SQLite file, named by the URL "toydb://PATH"."""

    folder = None

    def __init__(self, url: str) -> None:
        self.location = url
        self.path = Path(url.removeprefix(f"{SCHEME}://"))

    def open(self, *, verify: bool = True) -> ToyVersion:
        if not self.path.exists():
            raise errors.GalleryError(f"{self.path} does not exist. Index first.")
        with closing(sqlite3.connect(self.path)) as base:
            return ToyVersion(base, self.path.with_suffix(".index"))

    @contextmanager
    def write(self, *, wait: bool, rebuild: bool) -> Iterator[ToyWriter]:
        if rebuild:
            self.path.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.path, timeout=30 if wait else 0)) as base:
            base.execute(TABLES)
            base.execute(NOTES)
            yield ToyWriter(base, self.path.with_suffix(".index"))


class ToyVersion:
    """All that the file held when it was opened."""

    def __init__(self, base: sqlite3.Connection, file: Path) -> None:
        notes = dict(base.execute("SELECT key, value FROM notes"))
        self.header = _header(json.loads(notes["header"]))
        self.index = IndexMark(**json.loads(notes["index"])) if "index" in notes else None
        self._file = file
        self._records: dict[str, ImageRecord] = {}
        self._rows: dict[str, range] = {}
        parts: list[Detections] = []
        first = 0
        digest = hashlib.sha256()
        for name, record, count, raw in base.execute("SELECT name, record, count, rows FROM images ORDER BY name"):
            self._records[name] = ImageRecord(*json.loads(record))
            self._rows[name] = range(first, first + count)
            first += count
            values = np.frombuffer(raw, np.float32).reshape(count, 5 + self.header.model.dim)
            counts = np.array([count], dtype=np.int64)
            parts.append(Detections(boxes=values[:, :4], scores=values[:, 4], embeddings=values[:, 5:], counts=counts))
            digest.update(raw)
        self._table = Detections.concatenate(parts) if parts else None
        self.version = digest.hexdigest()
        self.image_names = tuple(self._records)

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table)

    def __contains__(self, image: object) -> bool:
        return image in self._records

    def record(self, image: str) -> ImageRecord:
        return self._records[image]

    def rows_of(self, image: str) -> range:
        return self._rows[image]

    def image_of(self, row: int) -> str:
        return next(name for name, rows in self._rows.items() if row in rows)

    def table(self, images: Sequence[str]) -> Detections:
        assert self._table is not None
        return self._table.of_images(np.array([self.image_names.index(image) for image in images], dtype=np.int64))

    def embeddings(self) -> list[Tensor]:
        return [] if self._table is None else [torch.from_numpy(np.ascontiguousarray(self._table.embeddings))]

    def index_file(self) -> Path | None:
        return self._file if self._file.exists() else None


class ToyWriter:
    """Writes each image as it comes."""

    def __init__(self, base: sqlite3.Connection, file: Path) -> None:
        self._base, self._file = base, file
        found = base.execute("SELECT value FROM notes WHERE key = 'header'").fetchone()
        self.header = None if found is None else _header(json.loads(found[0]))

    def records(self) -> dict[str, ImageRecord]:
        return {
            name: ImageRecord(*json.loads(record)) for name, record in self._base.execute("SELECT name, record FROM images")
        }

    def begin(self, header: GalleryHeader, kept: Mapping[str, ImageRecord]) -> None:
        for name in self.records().keys() - kept.keys():
            self._base.execute("DELETE FROM images WHERE name = ?", (name,))
        for name, record in kept.items():
            self._base.execute("UPDATE images SET record = ? WHERE name = ?", (json.dumps(astuple(record)), name))
        self._note(header)

    def append(self, record: ImageRecord, found: Detections) -> None:
        rows = np.zeros((0, 5), np.float32)
        if len(found):
            rows = np.concatenate([found.boxes, found.scores[:, None], found.embeddings], axis=1)
        values = (record.name, json.dumps(astuple(record)), len(found), rows.tobytes())
        self._base.execute("INSERT INTO images VALUES (?, ?, ?, ?)", values)
        self._base.commit()

    def flush(self, failures: Sequence[Failure]) -> None:
        assert self.header is not None
        self._note(replace(self.header, failures=tuple(failures)))

    def finish(self, failures: Sequence[Failure]) -> ToyVersion:
        assert self.header is not None
        self._note(replace(self.header, failures=tuple(failures), complete=True))
        return ToyVersion(self._base, self._file)

    def save_index(self, kind: VectorIndexType | None) -> None:
        stored = ToyVersion(self._base, self._file)
        if kind is not None and len(stored):
            facts = dict(kind.build(stored, self._file))
            mark = asdict(IndexMark(kind=kind.name, version=stored.version, facts=facts))
            self._base.execute("INSERT OR REPLACE INTO notes VALUES ('index', ?)", (json.dumps(mark),))
        else:
            self._base.execute("DELETE FROM notes WHERE key = 'index'")
        self._base.commit()

    def _note(self, header: GalleryHeader) -> None:
        self.header = header
        self._base.execute("INSERT OR REPLACE INTO notes VALUES ('header', ?)", (json.dumps(asdict(header)),))
        self._base.commit()


class ToyIndexType:
    """Vectors rounded to eighths, in a file of numpy."""

    def __init__(self, name: str = "toy") -> None:
        self.name = name

    def require(self) -> None:
        return

    def build(self, stored: StoredDetections, file: Path) -> dict[str, int | float | str | bool]:
        with file.open("wb") as stream:
            np.save(stream, np.round(torch.cat(list(stored.embeddings())).numpy() * 8).astype(np.int8))
        return {"eighths": True, "recall": 0.5}

    def open(
        self, stored: StoredDetections, facts: Mapping[str, Any], file: Path | None, *, device: torch.device | str
    ) -> ToyIndex:
        assert facts["eighths"] is True and file is not None
        return ToyIndex(stored, np.load(file).astype(np.float32) / 8, facts["recall"])


class ToyIndex:
    """Products with the rounded vectors."""

    def __init__(self, stored: StoredDetections, vectors: F32, recall: float) -> None:
        self._stored, self._vectors = stored, vectors
        self.method = f"toy, recall {recall:.0%}"

    def search(self, vectors: F32, top: int, *, only: DetectionFilter | None = None) -> tuple[F32, I64]:
        found = vectors @ self._vectors.T
        if only is not None:
            allowed = [only.allows(self._stored.image_of(row)) for row in range(len(self._stored))]
            found[:, ~np.array(allowed)] = -np.inf
        rows = np.argsort(-found, axis=1, kind="stable")[:, :top]
        found = np.take_along_axis(found, rows, axis=1)
        return found, np.where(np.isneginf(found), -1, rows).astype(np.int64)


TOY_INDEX, PLUGGED_INDEX = ToyIndexType(), ToyIndexType("plugged")


def _header(value: Any) -> GalleryHeader:
    failures = tuple(Failure(**each) for each in value["failures"])
    marks = {"model": ModelMark(**value["model"]), "source": SourceMark(**value["source"])}
    return GalleryHeader(**marks, failures=failures, complete=value["complete"])
