"""Many queries at once: products in bfloat16 rule out most rows, and only the others are computed in float32.

The result is exact. The error of a product of rounded numbers has a known bound, so no row is ruled out whose true similarity
could be among the best. This is faster on processors that multiply bfloat16 faster than float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 64
"""Rows in a group. At first, a group is compared by its best row only."""
_ERROR = 3.1 * 2.0**-8
"""Bound on the error of a product, as a share of the two lengths' product. Rounding to bfloat16's 8 bits changes a number by
at most 2^-8 of itself. It happens to both factors and to the sum. The rest is for float32's own rounding."""
_MANY = 64
"""If more rows remain than this times the rows that are wanted, the plain product is faster, and the prefilter gives up."""


def is_fast() -> bool:
    """Return whether this processor has instructions for bfloat16."""
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public way to ask
    return ask is not None and bool(ask())


def prefilter(queries: Tensor, vectors: Tensor, number: int, *, floor: Tensor, longest: float) -> tuple[Tensor, Tensor] | None:
    """Return the rows that can be among the best, with their similarities in float32.

    Args:
        queries: (Q, D) float32
        vectors: (N, D) float32
        number: How many of the best are wanted.
        floor: (Q, 1) similarities that the best must reach; -inf if that is not known.
        longest: At least the length of the longest row of `vectors`.

    Returns:
        (Q, C) similarities, -inf where a query has fewer than others; and (Q, C) their rows. `None` if so many rows remain
        that the plain product is faster.
    """
    groups = len(vectors) // GROUP
    whole = groups * GROUP
    if groups < 4 * number:
        return None
    # a group is every `groups`-th row: maxima are then taken of contiguous memory, which is faster
    rough = (queries.bfloat16() @ vectors[:whole].bfloat16().T).view(len(queries), GROUP, groups)
    best = rough.amax(dim=1).float()  # (Q, groups)
    error = _ERROR * longest * queries.norm(dim=1, keepdim=True) + 1e-30
    # `number` groups have a member of at least this true similarity
    bar = torch.maximum(floor, best.topk(number, dim=1).values[:, -1:] - error) - error
    query, group = (best >= bar).nonzero(as_tuple=True)
    hit, member = (rough[query, :, group].float() >= bar[query]).nonzero(as_tuple=True)
    if len(hit) > _MANY * number * len(queries):
        return None
    query, row = query[hit], member * groups + group[hit]
    similarities = torch.linalg.vecdot(queries[query], vectors[row])
    counts = query.bincount(minlength=len(queries))
    column = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]  # rows of one query follow each other
    rest = len(vectors) - whole  # too few for a group: all of them
    values = queries.new_full((len(queries), int(counts.max()) + rest), -torch.inf)
    rows = torch.zeros_like(values, dtype=torch.int64)
    values[query, rest + column], rows[query, rest + column] = similarities, row
    values[:, :rest], rows[:, :rest] = queries @ vectors[whole:].T, torch.arange(whole, len(vectors))
    return values, rows
