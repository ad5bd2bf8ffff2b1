"""Records of scenes and of crops, as a reader must return them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrainps.data.records import UNLABELLED, Sample, as_boxes

Rows = Sequence[Sequence[float]]
"""Boxes as rows x1, y1, x2, y2."""


def detected(
    name: str,
    image: Path,
    *,
    boxes: Rows = (),
    ignore: Rows = (),
    visible: Rows | None = None,
    size: tuple[int, int] | None = None,
) -> Sample:
    """Return the record of a scene without identities."""
    people = as_boxes(boxes)
    return Sample(
        name=name,
        image=image,
        boxes=people,
        ids=np.full(len(people), UNLABELLED, dtype=np.int64),
        ignore=as_boxes(ignore),
        visible=None if visible is None else as_boxes(visible),
        size=size,
    )


def cropped(name: str, image: Path, identity: int, camera: int | None = None) -> Sample:
    """Return the record of an image that shows one person from edge to edge."""
    return Sample(name=name, image=image, boxes=Sample.whole(), ids=np.array([identity], dtype=np.int64), camera=camera)
