"""The type of a box in an image."""

from __future__ import annotations

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright image."""
