"""Write MovieNet-PS's files: any records in its layout, or a miniature with everything that readers trip over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pretrainps.data.matlab import save_matlab
from pretrainps.data.records import SearchSet, Split
from pretrainps.data.writers.cuhk_sysu import (
    XYWH,
    Place,
    Search,
    as_rows,
    pixels,
    write_images,
    write_pool,
    write_searches,
)
from pretrainps.data.writers.pictures import write_blank, write_picture


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


def replica(root: Path, *, annotation: str = "annotation", images: str = "Image") -> None:
    """Write a miniature: three training and four gallery images, two people to train on and two to search for.

    In it: a training list of one person in one image and one of two people in two, an image of both of them, one nobody
    is named in, a box without area, and pools of which the larger one has another order.

    Args:
        root: The folder to write to.
        annotation: Folder of the annotation: "annotation" or "anno_mvn-cs".
        images: Folder of the images: "Image" or "Image/SSM".
    """
    boxes: dict[str, list[XYWH]] = {
        "tt1_0001.jpg": [(1, 2, 10, 20), (30, 2, 10, 20), (5, 5, 0, 9)],
        "tt1_0002.jpg": [(3, 2, 10, 20), (-5, 2, 10, 300)],
        "tt1_0003.jpg": [(3, 3, 10, 20)],
        "tt2_0001.jpg": [(4, 2, 10, 20), (14, 2, 10, 20)],
        "tt2_0002.jpg": [(5, 2, 10, 20)],
        "tt2_0003.jpg": [(6, 2, 10, 20)],
        "tt2_0004.jpg": [(7, 2, 10, 20)],
    }
    first: tuple[str, list[Place]] = ("nm1", [("tt1_0002.jpg", (3, 2, 10, 20))])
    more: list[tuple[str, list[Place]]] = [
        ("nm1", [("tt1_0002.jpg", (3, 2, 10, 20)), ("tt1_0001.jpg", (1, 2, 10, 20))]),
        ("nm2", [("tt1_0001.jpg", (30, 2, 10, 20))]),
    ]
    here, there = ("tt2_0001.jpg", (4, 2, 10, 20)), ("tt2_0003.jpg", (6, 2, 10, 20))
    lists = {
        2000: [
            Search("nm3", here, [("tt2_0002.jpg", (5, 2, 10, 20)), ("tt2_0003.jpg", None)]),
            Search("nm4", there, [("tt2_0001.jpg", (14, 2, 10, 20))]),
        ],
        4000: [
            Search("nm3", here, [("tt2_0002.jpg", (5, 2, 10, 20)), ("tt2_0003.jpg", None), ("tt2_0004.jpg", None)]),
            Search("nm4", there, [("tt2_0001.jpg", (14, 2, 10, 20)), ("tt2_0004.jpg", None)]),
        ],
    }
    pools = {
        2000: ["tt2_0003.jpg", "tt2_0001.jpg", "tt2_0002.jpg"],
        4000: ["tt2_0001.jpg", "tt2_0002.jpg", "tt2_0003.jpg", "tt2_0004.jpg"],
    }
    write_blank(root / images / name for name in boxes)
    folder = root / annotation
    write_images(folder / "Images.mat", boxes)
    write_people(folder / "test/train_test/Train_app10.mat", [first])
    write_people(folder / "test/train_test/Train_app30.mat", more)
    for size, rows in lists.items():
        write_pool(folder / f"pool_{size}.mat", pools[size])
        write_searches(folder / f"test/train_test/TestG{size}.mat", f"TestG{size}", rows)


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
