"""Many queries at once: products in bfloat16 tell who cannot be among the best, and only the others are computed in full.

What is found is exact. A product of rounded numbers is off by no more than a known bound, so nobody is passed over whose true
similarity could reach the best. It pays on processors that multiply bfloat16 faster than float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 64
"""People whose best stands for all of them at first."""
_ERROR = 3.1 * 2.0**-8
"""Bound on the error of a product, as a share of the two lengths' product. Rounding to bfloat16's 8 bits changes a number by
2^-8 of itself at most: either factor, and the sum once more. The rest is for float32's own rounding."""
_MANY = 64
"""If more than so many times the people wanted remain, screening has not paid for itself, and is not gone on with."""


def pays() -> bool:
    """Return whether this processor has instructions for bfloat16."""
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public way to ask
    return ask is not None and bool(ask())


def screened(queries: Tensor, people: Tensor, number: int, *, floor: Tensor, longest: float) -> tuple[Tensor, Tensor] | None:
    """Return everyone who can be among the best, with his similarity in float32.

    Args:
        queries: (Q, D) float32
        people: (N, D) float32
        number: How many of the best are wanted.
        floor: (Q, 1) similarities that the best must reach; -inf if that is not known.
        longest: At least the length of every vector of `people`.

    Returns:
        (Q, C) similarities, -inf where a query has fewer than others; and (Q, C) their rows. `None` if so many would have
        to be computed that the plain product is the shorter way.
    """
    groups = len(people) // GROUP
    whole = groups * GROUP
    if groups < 4 * number:
        return None
    # a group is every so-many-th person: maxima are then taken of whole rows at once, which is faster
    rough = (queries.bfloat16() @ people[:whole].bfloat16().T).view(len(queries), GROUP, groups)
    best = rough.amax(dim=1).float()  # (Q, groups)
    error = _ERROR * longest * queries.norm(dim=1, keepdim=True) + 1e-30
    # `number` groups have a member of at least this true similarity
    bar = torch.maximum(floor, best.topk(number, dim=1).values[:, -1:] - error) - error
    query, group = (best >= bar).nonzero(as_tuple=True)
    hit, member = (rough[query, :, group].float() >= bar[query]).nonzero(as_tuple=True)
    if len(hit) > _MANY * number * len(queries):
        return None
    query, row = query[hit], member * groups + group[hit]
    similarities = torch.linalg.vecdot(queries[query], people[row])
    counts = query.bincount(minlength=len(queries))
    column = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]  # rows of one query follow each other
    rest = len(people) - whole  # too few for a group: all of them
    values = queries.new_full((len(queries), int(counts.max()) + rest), -torch.inf)
    rows = torch.zeros_like(values, dtype=torch.int64)
    values[query, rest + column], rows[query, rest + column] = similarities, row
    values[:, :rest], rows[:, :rest] = queries @ people[whole:].T, torch.arange(whole, len(people))
    return values, rows
