"""Exact search: who is most similar to a query, by matrix products over everyone.

People lie in blocks, mapped from files. One query reads each block once, as fast as memory gives it; several share the reading.
Of each block only the best few stay: groups of neighbours are first compared by their best member, for the best few people
lie in the best few groups, and to look for them in all would take longer than the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrainps.errors import ArgumentError
from pretrainps.gallery.search.bf16_prefilter import GROUP, pays, screened
from pretrainps.inference.detections import F32, I64

_SCORES = 1 << 21
"""Similarities held at once: what they take fits in a cache, and a block is cut accordingly."""
_SCREENED = 16
"""Queries from which on the product, and no longer the reading, is what takes long."""


class ExactSearch:
    """Finds the most similar people.

    Args:
        blocks: Embeddings (N_i, D) float32, whose rows are numbered through.
        device: Where to compute. On another one than the CPU, everybody is copied there at once.
    """

    def __init__(self, blocks: Sequence[Tensor], *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.blocks = [block.to(self.device) for block in blocks if len(block)]
        self._screens = self.device.type == "cpu" and pays()
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __len__(self) -> int:
        return sum(map(len, self.blocks))

    @torch.inference_mode()
    def search(self, vectors: F32, top: int) -> tuple[F32, I64]:
        """Return the best similarities and their rows.

        Args:
            vectors: (Q, D)
            top: How many for each; fewer if there are not so many.

        Returns:
            (Q, top) similarities, the greatest first, of equal ones the first row first; and (Q, top) rows.
        """
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
        if self._screens and len(queries) >= _SCREENED:
            floor = best[:, -1:] if best.shape[1] == number else best.new_full((len(best), 1), -torch.inf)
            found = screened(queries, part, number, floor=floor, longest=self._longest)
            if found is not None:
                values, kept = found[0].topk(min(number, found[0].shape[1]), dim=1)
                return values, found[1].gather(1, kept)
        return _greatest(queries @ part.T, number)

    def _product(self, query: Tensor, part: Tensor) -> Tensor:
        """Return the products of one query. (D,), (N, D) -> (N,). Torch's own reads memory at a third of this speed."""
        pieces = part.chunk(torch.get_num_threads())
        found = self._threads.map(lambda piece: np.vecdot(piece.numpy(), query.numpy()), pieces)
        return torch.from_numpy(np.concatenate(list(found)))

    @cached_property
    def _longest(self) -> float:
        """The greatest length of a vector."""
        return max(float(part.norm(dim=1).max()) for block in self.blocks for part in block.split(_SCORES))


def in_order(similarities: F32, rows: I64) -> tuple[F32, I64]:
    """Sort each query's answers: the greatest first, of equal ones the first row first. (Q, K), (Q, K) -> the same."""
    order: NDArray[np.intp] = np.lexsort((rows, -similarities), axis=-1)
    return np.take_along_axis(similarities, order, axis=-1), np.take_along_axis(rows, order, axis=-1)


def check_vectors(vectors: F32, dim: int, top: int) -> None:
    """See that vectors can be searched for.

    Raises:
        ArgumentError: another shape, numbers that are not finite, or nothing asked for.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ArgumentError(f"vectors to search for: expected (queries, {dim}), not {tuple(vectors.shape)}.")
    if not np.isfinite(vectors).all():
        raise ArgumentError("vectors to search for hold numbers that are not finite.")
    if top < 1:
        raise ArgumentError(f"top={top}: ask for 1 answer or more.")


def _greatest(similarities: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the greatest of each row and where they stand. (Q, N) -> (Q, K), (Q, K) with K = min(number, N)."""
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
