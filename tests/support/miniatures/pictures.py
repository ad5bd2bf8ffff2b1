"""Grey pictures, where only size and format count."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def write_blank(paths: Iterable[Path], *, height: int = 40, width: int = 60) -> None:
    """Write grey pictures, with the folders that they lie in; a path's suffix is their format."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 128, dtype=np.uint8)).save(path)
