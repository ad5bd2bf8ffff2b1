"""Approximate search with faiss, for galleries of more people than a product over all of them serves well.

People are sorted into lists around centres, and a query looks only through the lists whose centres are nearest. How many that
are is chosen by measurement: twice as many until the recall against exact search is what is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pretrainps.errors import IntegrityError, MissingPackageError
from pretrainps.gallery.search.exact_search import ExactSearch, in_order
from pretrainps.inference.detections import F32, I64, unit_rows

ABOVE = 2_000_000
"""People from which on a gallery gets an index."""
RECALL = 0.95
"""What is asked of it: the share of the truly nearest that it finds."""
NEAREST = 10
_SAMPLE = 200
_TRAINING = 64
"""People a centre is computed from."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How well an index finds."""

    lists: int
    probes: int
    recall: float
    sample: int


def build(blocks: Sequence[Tensor], path: Path) -> Measured:
    """Write an index and measure it.

    People of a sample are taken as queries, each without himself among the answers.

    Args:
        blocks: Embeddings (N_i, D), whose rows are numbered through.
        path: The file to write.

    Raises:
        MissingPackageError: faiss is not installed.
    """
    faiss = _faiss()
    people, dim = sum(map(len, blocks)), blocks[0].shape[1]
    lists = max(1, min(round(4 * math.sqrt(people)), people // 39))  # faiss warns of less than 39 a centre
    index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    index.train(_sample(blocks, rng, lists * _TRAINING))
    for block in blocks:
        index.add(block.numpy())
    queries = unit_rows(_sample(blocks, rng, _SAMPLE))
    number = min(NEAREST + 1, people)
    _, truly = ExactSearch(blocks).search(queries, number)
    probes, recall = 1, 0.0
    while True:
        index.nprobe = probes
        _, found = index.search(queries, number)
        recall = _recall(found, truly)
        if recall >= RECALL or probes == lists:
            break
        probes = min(2 * probes, lists)
    faiss.write_index(index, str(path))
    return Measured(lists, probes, recall, len(queries))


class ApproximateSearch:
    """Finds most of the most similar people.

    Args:
        path: What `build` wrote; it must be known to be unchanged, for faiss trusts what it reads.
        probes: Lists that a query looks through.
        people: How many there must be.
        dim: Length of an embedding.

    Raises:
        MissingPackageError: faiss is not installed.
        IntegrityError: the file is not of this gallery.
    """

    def __init__(self, path: Path, *, probes: int, people: int, dim: int) -> None:
        faiss = _faiss()
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise IntegrityError(
                f"{path} cannot be read by faiss {faiss.__version__}. Run `pretrainps index` again."
            ) from error
        if (self._index.ntotal, self._index.d) != (people, dim):
            raise IntegrityError(f"{path} belongs to another gallery. Run `pretrainps index` again.")
        self._index.nprobe = probes

    def search(self, vectors: F32, top: int) -> tuple[F32, I64]:
        """Return similarities and rows as `ExactSearch.search`; row -1 and -inf where the lists held too few."""
        similarities, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), min(top, self._index.ntotal))
        return in_order(np.where(rows < 0, -np.inf, similarities).astype(np.float32), rows.astype(np.int64))


def is_installed() -> bool:
    """Return whether faiss can be used."""
    try:
        _faiss()
    except MissingPackageError:
        return False
    return True


def _sample(blocks: Sequence[Tensor], rng: np.random.Generator, number: int) -> F32:
    """Draw people, each at most once, evenly from all blocks."""
    starts = np.cumsum([0, *map(len, blocks)])
    drawn = np.sort(rng.choice(starts[-1], min(number, int(starts[-1])), replace=False))
    cuts = np.searchsorted(drawn, starts)
    parts = [block.numpy()[drawn[cuts[place] : cuts[place + 1]] - starts[place]] for place, block in enumerate(blocks)]
    return np.concatenate(parts)


def _recall(found: I64, truly: I64) -> float:
    """Return the share of the truly nearest, the very best left out (a person himself), that were found."""
    if truly.shape[1] < 2:
        return 1.0
    shares = [len(np.intersect1d(some, wanted[1:])) / (len(wanted) - 1) for some, wanted in zip(found, truly, strict=True)]
    return float(np.mean(shares))


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingPackageError("approximate search needs faiss: pip install 'pretrainps[index]'") from error
