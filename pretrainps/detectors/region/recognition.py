"""What the file of a region detector is known by, and the sizes that can be read off its shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pretrainps.registry.specs import LARGEST_HEAD

Shape = tuple[int, ...]

SIGNATURE_KEYS = (
    "rpn.",
    "oim_loss.",
    "roi_heads.",
    "box_stage.",
    "reid_stage.",
    "proposal_head.",
    "embedding_head.",
    "box_head.",
)
"""Pieces of keys; every file of a region detector has at least one of them, under our own names or the originals'."""
_TABLE, _QUEUE, _CURSOR = "oim_loss.lookup_table", "oim_loss.queue", "oim_loss.cursor"
TABLES = (_TABLE, _QUEUE, _CURSOR)
"""The identity tables. Files for use, not for training, often lack them."""
_DIM = 256
"""Length of the embedding where the file says nothing of it."""
_EMBEDDED = "embedding_head.projectors.{}.0.weight"


def sizes_of_tables(
    found: Mapping[str, Shape], variant: Mapping[str, Any], *, maps: Sequence[str] = ("c4", "c5")
) -> dict[str, Any]:
    """Read the sizes off a file. What is not there, or has a shape that cannot be, gets a value that can.

    Args:
        found: Shapes by our own names, as far as they are there.
        variant: Settings that are known already.
        maps: The maps that the embedding is made of.

    Returns:
        Fields of the config.
    """
    table, queue = (shape if len(shape := found.get(name, ())) == 2 else () for name in (_TABLE, _QUEUE))
    parts = [found.get(_EMBEDDED.format(part), ()) for part in maps]
    dims = [sum(shape[0] for shape in parts)] if all(parts) else []
    dims = [dim for dim in (*dims, *table[1:], *queue[1:]) if 2 <= dim <= LARGEST_HEAD] or [_DIM]
    config: dict[str, Any] = {
        **variant,
        # a table that was stripped says nothing of how many it was of
        "num_identities": table[0] if table and 1 <= table[0] <= LARGEST_HEAD else 1,
        "embedding_dim": max(dims, key=dims.count),
    }
    if queue and 1 <= queue[0] <= LARGEST_HEAD:
        config["queue_size"] = queue[0]
    return config
