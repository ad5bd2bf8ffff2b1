"""Search among some of the detections, for an index that holds all of them in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pretrainps.gallery.search.protocol import DetectionFilter
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.detections import F32, I64

Allowed = NDArray[np.bool_]


def allowed_rows(stored: StoredDetections, only: DetectionFilter | None) -> Allowed | None:
    """Return for each row whether it may be an answer. (N,), or `None` if all may."""
    if only is None or not (only.folder or only.exclude_images):
        return None
    names = stored.image_names if only.folder else (each for each in only.exclude_images if each in stored)
    allowed = np.ones(len(stored), dtype=np.bool_)
    for name in names:
        if not only.allows(name):
            rows = stored.rows_of(name)
            allowed[rows.start : rows.stop] = False
    return allowed


def keep_allowed(search: Callable[[int], tuple[F32, I64]], top: int, allowed: Allowed) -> tuple[F32, I64]:
    """Search for more answers than are wanted, and keep those that are allowed.

    Args:
        search: Searches among all for so many answers; in its rows -1 is no answer.
        top: How many are wanted.
        allowed: (N,)

    Returns:
        As `VectorIndex.search`. If `search` is exact, so is this.
    """
    similarities, rows = search(top + len(allowed) - int(allowed.sum()))
    wrong = (rows < 0) | ~allowed[rows]
    order = np.argsort(wrong, axis=1, kind="stable")[:, : min(top, int(allowed.sum()))]
    missing = np.take_along_axis(wrong, order, axis=1)
    kept = np.where(missing, -np.inf, np.take_along_axis(similarities, order, axis=1)).astype(np.float32)
    return kept, np.where(missing, -1, np.take_along_axis(rows, order, axis=1))
