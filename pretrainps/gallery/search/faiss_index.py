"""Approximate search with faiss, for galleries that are too large for a product with all embeddings.

Embeddings are sorted into `nlist` lists around centres. A query searches only the `nprobe` lists with the nearest centres. The
number is measured: it is doubled until the recall against exact search is high enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrainps.errors import IntegrityError, MissingPackageError
from pretrainps.gallery.search.exact_search import ExactSearch, in_order
from pretrainps.gallery.search.filtering import allowed_rows
from pretrainps.gallery.search.protocol import DetectionFilter, Facts
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.detections import F32, I64, unit_rows

ABOVE = 2_000_000
"""Galleries with more detections than this get an index, if faiss is installed."""
RECALL = 0.95
"""The share of the truly nearest that an index must find."""
NEAREST = 10
"""How many of the nearest are counted for that."""
_SAMPLE = 200
"""How many embeddings are taken as queries for that."""
_TRAINING = 64
"""How many embeddings a centre is computed from."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The settings of an index and its recall."""

    detections: int
    """How many embeddings it holds."""
    nlist: int
    """Into how many lists embeddings are sorted."""
    nprobe: int
    """How many lists a query searches."""
    recall: float
    """Which share of the truly nearest was found."""
    nearest: int
    """How many of the nearest were counted."""
    sample: int
    """How many embeddings were taken as queries."""


def build(blocks: Sequence[Tensor], path: Path) -> Measured:
    """Write an index and measure it.

    A sample of the embeddings is taken as queries. An embedding is not counted among its own answers.

    Args:
        blocks: Embeddings (N_i, D). Rows are counted through all blocks.
        path: The file to write.

    Raises:
        MissingPackageError: faiss is not installed.
    """
    faiss = _faiss()
    count, dim = sum(map(len, blocks)), blocks[0].shape[1]
    nlist = max(1, min(round(4 * math.sqrt(count)), count // 39))  # faiss warns of less than 39 a centre
    index = faiss.index_factory(dim, f"IVF{nlist},Flat", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    index.train(_sample(blocks, rng, nlist * _TRAINING))
    for block in blocks:
        index.add(block.numpy())
    queries = unit_rows(_sample(blocks, rng, _SAMPLE))
    number = min(NEAREST + 1, count)
    _, truly = ExactSearch(blocks).search(queries, number)
    nprobe = 1
    while True:
        index.nprobe = nprobe
        _, found = index.search(queries, number)
        recall = _recall(found, truly)
        if recall >= RECALL or nprobe == nlist:
            break
        nprobe = min(2 * nprobe, nlist)
    faiss.write_index(index, str(path))
    return Measured(count, nlist, nprobe, recall, NEAREST, len(queries))


class FaissIndex:
    """Finds most of the most similar detections.

    Args:
        path: The file that `build` wrote. It must be known to be unchanged, because faiss trusts what it reads.
        measured: What `build` returned.
        stored: The detections.

    Raises:
        MissingPackageError: faiss is not installed.
        IntegrityError: The file does not belong to these detections.
    """

    def __init__(self, path: Path, measured: Measured, stored: StoredDetections) -> None:
        self._faiss = _faiss()
        self._measured, self._stored = measured, stored
        try:
            self._index = self._faiss.read_index(str(path), self._faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise IntegrityError(
                f"{path} cannot be read by faiss {self._faiss.__version__}. Run `pretrainps index` again."
            ) from error
        if (self._index.ntotal, self._index.d) != (len(stored), stored.header.model.dim):
            raise IntegrityError(f"{path} belongs to another gallery. Run `pretrainps index` again.")
        self._index.nprobe = measured.nprobe

    @property
    def method(self) -> str:
        """How much is searched, and the measured recall."""
        each = self._measured
        return (
            f"faiss IVF, {each.nprobe} of {each.nlist} lists searched: recall {each.recall:.1%} of the {each.nearest} nearest, "
            f"measured against exact search for {each.sample} detections"
        )

    def search(self, vectors: F32, top: int, *, only: DetectionFilter | None = None) -> tuple[F32, I64]:
        """Return inner products and their rows; row -1 and -inf where the lists held too few."""
        allowed = allowed_rows(self._stored, only)
        count, options = len(self._stored), {}
        if allowed is not None:
            rows = np.flatnonzero(allowed).astype(np.int64)
            count = len(rows)
            selector = self._faiss.IDSelectorBatch(rows)
            options = {"params": self._faiss.SearchParametersIVF(sel=selector, nprobe=self._measured.nprobe)}
        if count == 0:
            return np.zeros((len(vectors), 0), np.float32), np.zeros((len(vectors), 0), np.int64)
        similarities, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), min(top, count), **options)
        return in_order(np.where(rows < 0, -np.inf, similarities).astype(np.float32), rows.astype(np.int64))


class FaissIndexType:
    """Builds and opens faiss indexes."""

    name = "faiss"

    def require(self) -> None:
        """See that faiss is installed.

        Raises:
            MissingPackageError: It is not.
        """
        _faiss()

    def build(self, stored: StoredDetections, file: Path) -> Facts:
        """Write an index of all embeddings and measure it."""
        return asdict(build(stored.embeddings(), file))

    def open(self, stored: StoredDetections, facts: Facts, file: Path | None, *, device: torch.device | str) -> FaissIndex:
        """Map an index from its file. It is searched on the CPU."""
        try:
            measured = Measured(**facts)  # type: ignore[arg-type]
            whole = all(type(each) is int and each > 0 for each in (measured.nlist, measured.nprobe))
        except TypeError:
            whole = False
        if file is None or not whole:
            raise IntegrityError("what the gallery says of its faiss index is damaged. Run `pretrainps index` again.")
        return FaissIndex(file, measured, stored)


def _sample(blocks: Sequence[Tensor], rng: np.random.Generator, number: int) -> F32:
    """Draw rows, each at most once, evenly from all blocks."""
    starts = np.cumsum([0, *map(len, blocks)])
    drawn = np.sort(rng.choice(starts[-1], min(number, int(starts[-1])), replace=False))
    cuts = np.searchsorted(drawn, starts)
    parts = [block.numpy()[drawn[cuts[place] : cuts[place + 1]] - starts[place]] for place, block in enumerate(blocks)]
    return np.concatenate(parts)


def _recall(found: I64, truly: I64) -> float:
    """Return which share of the truly nearest was found. The very best is left out: it is the query itself."""
    if truly.shape[1] < 2:
        return 1.0
    shares = [len(np.intersect1d(some, wanted[1:])) / (len(wanted) - 1) for some, wanted in zip(found, truly, strict=True)]
    return float(np.mean(shares))


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingPackageError("approximate search needs faiss: pip install 'pretrainps[index]'") from error
