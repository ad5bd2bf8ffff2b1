"""Make an image's record from its annotated boxes: people, regions to ignore, and degenerate boxes that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrainps.data.records import UNLABELLED, Boxes, Ids, Sample


def annotated(
    *,
    name: str,
    image: Path,
    boxes: Boxes,
    is_person: Sequence[bool],
    visible: Boxes | None = None,
    ids: Ids | None = None,
    camera: int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Sample, int]:
    """Return a record and the number of boxes that were left out because they have no width or no height.

    Args:
        name: What the data set calls the image.
        image: Its file.
        boxes: (A, 4) x1, y1, x2, y2 of everything annotated.
        is_person: For each box, whether it is a person; all others are regions to ignore.
        visible: (A, 4) the visible part of each. It has no area if a person is wholly hidden, and stays so.
        ids: (A,) identities; by default, all people are unlabelled.
        camera: Which camera took the image.
        size: Its height and width.
    """
    person = np.asarray(is_person, dtype=np.bool_).reshape(-1)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    people = solid & person
    if visible is not None:
        visible = np.hstack([visible[:, :2], np.maximum(visible[:, :2], visible[:, 2:])])[people]
    sample = Sample(
        name=name,
        image=image,
        boxes=boxes[people],
        ids=np.full(int(people.sum()), UNLABELLED, dtype=np.int64) if ids is None else ids[people],
        ignore=boxes[solid & ~person],
        visible=visible,
        camera=camera,
        size=size,
    )
    return sample, int((~solid).sum())


def note_left_out(boxes: int) -> tuple[str, ...]:
    """Return the note on boxes that were left out; an empty tuple if none were."""
    return (f"{boxes} boxes without width or height left out",) if boxes else ()
