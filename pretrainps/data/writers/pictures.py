"""Write the picture of a record."""

from __future__ import annotations

import shutil
from pathlib import Path

from pretrainps.data.records import Sample

_ALIKE = {".jpeg": ".jpg"}


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
