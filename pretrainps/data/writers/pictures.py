"""Write the pictures of a replica: small grey ones, or the pixels of a record."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pretrainps.data.records import Sample

_ALIKE = {".jpeg": ".jpg"}


def write_blank(paths: Iterable[Path], *, height: int = 40, width: int = 60) -> None:
    """Write grey images, and the folders for them; a path's suffix sets the format."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), 128, dtype=np.uint8)).save(path)


def write_picture(sample: Sample, path: Path) -> None:
    """Write the image of a record: a file of the same format is copied, everything else is encoded anew.

    Raises:
        ImageError: the record's file is missing or damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(sample.image, Path) and _format(sample.image) == _format(path):
        shutil.copyfile(sample.image, path)
    elif _format(path) == ".jpg":
        sample.pixels().save(path, quality=95)
    else:
        sample.pixels().save(path)


def _format(path: Path) -> str:
    suffix = path.suffix.lower()
    return _ALIKE.get(suffix, suffix)
