"""Boxes as the files of most data sets hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def xywh(box: ArrayLike) -> list[float]:
    """Return a box x1, y1, x2, y2 as left, top, width, height."""
    left, top, right, bottom = np.asarray(box, dtype=np.float64).tolist()
    return [left, top, right - left, bottom - top]
