"""Write any records in the layout of MovieNet-PS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pretrainps.data.matlab import save_matlab
from pretrainps.data.records import SearchSet, Split
from pretrainps.data.writers.cuhk_sysu import (
    Place,
    as_rows,
    pixels,
    write_images,
    write_pool,
    write_searches,
)
from pretrainps.data.writers.pictures import write_picture


def write(root: Path, train: Split, search: SearchSet) -> None:
    """Write records so that readers of MovieNet-PS return them.

    The limits of `pretrainps.data.writers.cuhk_sysu.write` hold here too. In addition, training images without any person of a
    known identity are lost, and the others come in the order of their people.

    Args:
        root: The folder to write to.
        train: Training images, for the list of up to 10 images of each person.
        search: Gallery, one query for each person, and for each TestG file one list for each query.

    Raises:
        ArgumentError: the layout cannot hold the records.
    """
    images, people, searches = as_rows(train, search)
    for name, sample in zip(images, [*train.samples, *search.gallery.samples], strict=True):
        write_picture(sample, root / "Image" / name)
    annotation = root / "annotation"
    write_images(annotation / "Images.mat", images)
    write_people(annotation / "test/train_test/Train_app10.mat", people)
    for size, rows in searches.items():
        write_pool(annotation / f"pool_{size}.mat", list(images)[len(train) :])
        write_searches(annotation / f"test/train_test/TestG{size}.mat", f"TestG{size}", rows)


def write_people(path: Path, people: Iterable[tuple[str, Sequence[Place]]]) -> None:
    """Write a training list: a cell of three columns; each entry of the last is again a cell of three columns."""
    rows = [(name, len(places), _cell([(image, pixels(box), 0) for image, box in places])) for name, places in people]
    save_matlab(path, "Train", _cell(rows))


def _cell(rows: Sequence[tuple[object, object, object]]) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    cell = np.empty((len(rows), 3), dtype=object)
    for place, row in enumerate(rows):
        for column, value in enumerate(row):
            cell[place, column] = value
    return cell
