"""Exact search: the detections most similar to a query, by matrix products with all of them.

Embeddings lie in blocks that are mapped from files. One query reads each block once, as fast as memory allows. Several queries
share the reading. Only the best few of each block are kept. To find them, groups of rows are first compared by their best
member: the best few rows lie in the best few groups, and a search through all rows would take longer than the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrainps.errors import ArgumentError
from pretrainps.gallery.search.bf16_prefilter import GROUP, is_fast, prefilter
from pretrainps.gallery.search.filtering import Allowed, allowed_rows, keep_allowed
from pretrainps.gallery.search.protocol import DetectionFilter, Facts
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.detections import F32, I64

_SCORES = 1 << 21
"""Similarities held at once. They fit in a cache, and blocks are split accordingly."""
_PREFILTERED = 16
"""From this many queries on, the product takes longer than reading the embeddings."""
_FEW = 256
"""If at most so many rows are not allowed, they are searched too and dropped. Otherwise the allowed rows are copied."""


class ExactSearch:
    """Finds the most similar embeddings.

    Args:
        blocks: Embeddings (N_i, D) float32. Rows are counted through all blocks.
        device: Where to compute. All embeddings are copied there, if it is not the CPU.
    """

    def __init__(self, blocks: Sequence[Tensor], *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.blocks = [block.to(self.device) for block in blocks if len(block)]
        self._prefilters = self.device.type == "cpu" and is_fast()
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    def search(self, vectors: F32, top: int, *, allowed: Allowed | None = None) -> tuple[F32, I64]:
        """Return the best similarities and their rows.

        Args:
            vectors: (Q, D)
            top: How many for each; fewer if there are not so many.
            allowed: (N,) which rows may be answers; `None` allows all.

        Returns:
            (Q, top) similarities, the greatest first, of equal ones the first row first; and (Q, top) rows.
        """
        if allowed is None:
            return self._search(vectors, top)
        if len(allowed) - int(allowed.sum()) <= _FEW:
            return keep_allowed(lambda more: self._search(vectors, more), top, allowed)
        parts = torch.from_numpy(allowed).to(self.device).split([len(block) for block in self.blocks])
        some = ExactSearch([block[part] for block, part in zip(self.blocks, parts, strict=True)], device=self.device)
        similarities, rows = some._search(vectors, top)
        return similarities, np.flatnonzero(allowed).astype(np.int64)[rows]

    @torch.inference_mode()
    def _search(self, vectors: F32, top: int) -> tuple[F32, I64]:
        queries = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32)).to(self.device)
        number = min(top, len(self))
        best = queries.new_full((len(queries), 0), 0)
        rows = torch.zeros(len(queries), 0, dtype=torch.int64, device=self.device)
        first = 0
        for block in self.blocks:
            for part in block.split(max(_SCORES // max(len(queries), 1), 4 * GROUP)):
                values, places = self._best(queries, part, number, best)
                best, rows = torch.cat([best, values], dim=1), torch.cat([rows, places + first], dim=1)
                if best.shape[1] > number:
                    best, kept = best.topk(number, dim=1)
                    rows = rows.gather(1, kept)
                first += len(part)
        return in_order(best.cpu().numpy(), rows.cpu().numpy())

    def _best(self, queries: Tensor, part: Tensor, number: int, best: Tensor) -> tuple[Tensor, Tensor]:
        """Return the greatest similarities to a part, and their rows in it. (Q, D), (N, D) -> (Q, K), (Q, K)."""
        if len(queries) == 1 and self.device.type == "cpu":
            return _greatest(self._product(queries[0], part)[None], number)
        if self._prefilters and len(queries) >= _PREFILTERED:
            floor = best[:, -1:] if best.shape[1] == number else best.new_full((len(best), 1), -torch.inf)
            found = prefilter(queries, part, number, floor=floor, longest=self._longest)
            if found is not None:
                values, kept = found[0].topk(min(number, found[0].shape[1]), dim=1)
                return values, found[1].gather(1, kept)
        return _greatest(queries @ part.T, number)

    def _product(self, query: Tensor, part: Tensor) -> Tensor:
        """Return the products of one query. (D,), (N, D) -> (N,). Torch's own product reads memory at a third of this speed."""
        pieces = part.chunk(torch.get_num_threads())
        found = self._threads.map(lambda piece: np.vecdot(piece.numpy(), query.numpy()), pieces)
        return torch.from_numpy(np.concatenate(list(found)))

    @cached_property
    def _longest(self) -> float:
        """The greatest length of a vector."""
        return max(float(part.norm(dim=1).max()) for block in self.blocks for part in block.split(_SCORES))


class ExactIndex:
    """Exact search as a vector index.

    Args:
        stored: The detections.
        device: Where to compute.
    """

    method = "exact"

    def __init__(self, stored: StoredDetections, *, device: torch.device | str) -> None:
        self._stored = stored
        self._exact = ExactSearch(stored.embeddings(), device=device)

    def search(self, vectors: F32, top: int, *, only: DetectionFilter | None = None) -> tuple[F32, I64]:
        """Return the greatest inner products and their rows."""
        return self._exact.search(vectors, top, allowed=allowed_rows(self._stored, only))


class ExactIndexType:
    """Opens exact search. It needs nothing but the detections."""

    name = "exact"

    def require(self) -> None:
        """Return: it can always be used."""

    def build(self, stored: StoredDetections, file: Path) -> Facts:
        """Write nothing."""
        return {}

    def open(self, stored: StoredDetections, facts: Facts, file: Path | None, *, device: torch.device | str) -> ExactIndex:
        """Return exact search over all detections."""
        return ExactIndex(stored, device=device)


def in_order(similarities: F32, rows: I64) -> tuple[F32, I64]:
    """Sort each query's answers: the greatest first, of equal ones the first row first. (Q, K), (Q, K) -> the same."""
    order: NDArray[np.intp] = np.lexsort((rows, -similarities), axis=-1)
    return np.take_along_axis(similarities, order, axis=-1), np.take_along_axis(rows, order, axis=-1)


def check_vectors(vectors: F32, dim: int, top: int) -> None:
    """Check vectors to search for.

    Raises:
        ArgumentError: They have another shape, numbers that are not finite, or `top` is below 1.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ArgumentError(f"vectors to search for: expected (queries, {dim}), not {tuple(vectors.shape)}.")
    if not np.isfinite(vectors).all():
        raise ArgumentError("vectors to search for hold numbers that are not finite.")
    if top < 1:
        raise ArgumentError(f"top={top}: ask for 1 answer or more.")


def _greatest(similarities: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the greatest of each row and their positions. (Q, N) -> (Q, K), (Q, K) with K = min(number, N)."""
    queries, count = similarities.shape
    groups = count // GROUP
    if groups <= 4 * number:
        values, places = similarities.topk(min(number, count), dim=1)
        return values, places
    grouped = similarities[:, : groups * GROUP].view(queries, groups, GROUP)
    chosen = grouped.amax(dim=2).topk(number, dim=1).indices[:, :, None]  # (Q, number, 1)
    members = torch.arange(GROUP, device=similarities.device)
    rest = torch.arange(groups * GROUP, count, device=similarities.device).expand(queries, -1)
    candidates = torch.cat([(chosen * GROUP + members).flatten(1), rest], dim=1)
    values, places = similarities.gather(1, candidates).topk(number, dim=1)
    return values, candidates.gather(1, places)
