"""Box arithmetic: overlap and area of boxes in an image.

Corners are points in the plane: a box from 2 to 5 is 3 pixels wide. Some older code counts pixels and adds one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright image."""
F64 = NDArray[np.float64]


def iou(first: NDArray[np.generic], second: NDArray[np.generic], *, pixels: float = 0.0) -> F64:
    """Return the intersection over union of box and box, 0 where both are empty. (P, 4), (P, 4) -> (P,).

    Args:
        first: x1, y1, x2, y2.
        second: Likewise.
        pixels: 1 for code in which boxes include their last pixel.
    """
    shared = intersection(first, second, pixels=pixels)
    union = area(first, pixels=pixels) + area(second, pixels=pixels) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def coverage(inner: NDArray[np.generic], outer: NDArray[np.generic]) -> F64:
    """Return the share of the inner box inside the outer one: intersection over inner area. (P, 4), (P, 4) -> (P,)."""
    shared = intersection(inner, outer)
    whole = area(inner)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def intersection(first: NDArray[np.generic], second: NDArray[np.generic], *, pixels: float = 0.0) -> F64:
    """Return the area of the intersection of two boxes. (P, 4), (P, 4) -> (P,)."""
    low = np.maximum(first[:, :2], second[:, :2]).astype(np.float64)
    high = np.minimum(first[:, 2:], second[:, 2:]).astype(np.float64)
    return np.asarray(np.prod(np.maximum(high - low + pixels, 0.0), axis=1))


def area(boxes: NDArray[np.generic], *, pixels: float = 0.0) -> F64:
    """Return the area of boxes. (P, 4) -> (P,)."""
    corners = boxes.astype(np.float64)
    return np.asarray(np.prod(corners[:, 2:] - corners[:, :2] + pixels, axis=1))


def whole_pixels(boxes: NDArray[np.float32]) -> NDArray[np.int32]:
    """Truncate to whole numbers, as the originals do when they read annotations; nothing is rounded."""
    return boxes.astype(np.int32)
