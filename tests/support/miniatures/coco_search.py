"""A person search in COCO style in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.records import UNLABELLED, Query, Sample, SearchSet, Split, as_boxes
from pretrainps.data.writers.coco_search import person_record, write_records
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import Rows

_SIZE = (40, 60)


def write_miniature(root: Path, *, queries: bool = True) -> tuple[Split, SearchSet]:
    """Write two training images, and four of a test and one that holds only a query.

    Somebody twice in an image, numbers and texts as names, every way of having no name, crowds and other regions to ignore,
    boxes without width and out of the frame, an image of nobody, with and without camera and size, files in two folders.

    Args:
        root: Where to.
        queries: Whether to write `query.json`; else a reader must choose the queries.

    Returns:
        What must be read: the training split, gallery and queries.
    """
    train = [
        _image(1, "a/1.jpg", camera=2),
        {"id": "second", "file_name": "2.png", "camera": None},
    ]
    in_train = [
        person_record(1, 1, [1, 2, 10, 30], 10),
        person_record(2, "second", [0.5, 2, 10, 30], "anna"),
        person_record(3, 1, [-4, 0, 12, 45], 9),
        person_record(4, 1, [30, 2, 10, 30], 10),
        person_record(5, 1, [40, 2, 10, 30], None),
        person_record(6, 1, [45, 2, 10, 30], -1),
        {"id": 7, "image_id": 1, "bbox": [50, 2, 9, 30]},
        person_record(8, 1, [20, 2, 0, 30], "without width"),
        person_record(9, 1, [20, 2, 10, 30], "in a crowd") | {"iscrowd": 1},
        person_record(10, 1, [22, 2, 10, 30], None) | {"ignore": 1},
    ]
    test = [_image(number, f"t{number}.jpg", camera=number) for number in (1, 2, 3, 4)]
    in_test = [
        person_record(1, 1, [1, 1, 10, 30], "eve"),
        person_record(2, 1, [12, 1, 10, 30], "7"),
        person_record(3, 2, [2, 1, 10, 30], 7),
        person_record(4, 2, [14, 1, 10, 30], "once"),
        person_record(5, 3, [3, 1, 10, 30], "eve"),
        person_record(6, 3, [16, 1, 10, 30], "eve"),
        person_record(7, 3, [28, 1, 10, 30], None),
    ]
    alone = [_image(1, "q.jpg"), _image(2, "t2.jpg", camera=2)]
    in_queries = [
        person_record(1, 2, [2, 1, 10, 30], 7),
        person_record(2, 1, [5, 5, 10, 30], "only searched for"),
        person_record(3, 2, [14, 1, 10, 30], "once"),
    ]
    write_blank([root / "images" / "a" / "1.jpg", *(root / "images" / name for name in ("t1.jpg", "t3.jpg", "t4.jpg"))])
    write_blank([root / "2.png", root / "t2.jpg", root / "q.jpg"])  # names that count from the root
    write_records(root, "train", train, in_train)
    write_records(root, "test", test, in_test)
    if queries:
        write_records(root, "query", alone, in_queries)
    people = ("7", "eve", "once", *(["only searched for"] if queries else []))
    gallery = Split(
        dataset="coco_search",
        name="test",
        task="search",
        samples=(
            _sample("t1.jpg", root / "images" / "t1.jpg", [[1, 1, 11, 31], [12, 1, 22, 31]], [1, 0], camera=1),
            _sample("t2.jpg", root / "t2.jpg", [[2, 1, 12, 31], [14, 1, 24, 31]], [0, 2], camera=2),
            _sample(
                "t3.jpg",
                root / "images" / "t3.jpg",
                [[3, 1, 13, 31], [16, 1, 26, 31], [28, 1, 38, 31]],
                [1, 1, UNLABELLED],
                camera=3,
            ),
            _sample("t4.jpg", root / "images" / "t4.jpg", (), (), camera=4),
        ),
        identities=people,
    )
    first, second = gallery.samples[:2]
    if queries:
        outside = _sample("q.jpg", root / "q.jpg", [[5, 5, 15, 35]], [3])
        expected = [
            Query(sample=second, box=second.boxes[0], id=0),
            Query(sample=outside, box=outside.boxes[0], id=3),
            Query(sample=second, box=second.boxes[1], id=2),
        ]
    else:
        expected = [Query(sample=first, box=first.boxes[1], id=0), Query(sample=first, box=first.boxes[0], id=1)]
    training = Split(
        dataset="coco_search",
        name="train",
        task="search",
        samples=(
            _sample(
                "a/1.jpg",
                root / "images" / "a" / "1.jpg",
                [[1, 2, 11, 32], [-4, 0, 8, 45], [30, 2, 40, 32], [40, 2, 50, 32], [45, 2, 55, 32], [50, 2, 59, 32]],
                [1, 0, 1, UNLABELLED, UNLABELLED, UNLABELLED],
                ignore=[[20, 2, 30, 32], [22, 2, 32, 32]],
                camera=2,
            ),
            _sample("2.png", root / "2.png", [[0.5, 2, 10.5, 32]], [2], size=None),
        ),
        identities=("9", "10", "anna"),
        notes=("1 boxes without width or height left out",),
    )
    return training, SearchSet(gallery=gallery, queries=expected)


def _image(number: int, file_name: str, *, camera: int | None = None) -> dict[str, Any]:
    image = {"id": number, "file_name": file_name, "height": _SIZE[0], "width": _SIZE[1]}
    return image if camera is None else image | {"camera": camera}


def _sample(
    name: str,
    image: Path,
    boxes: Rows,
    ids: Sequence[int],
    *,
    ignore: Rows = (),
    camera: int | None = None,
    size: tuple[int, int] | None = _SIZE,
) -> Sample:
    return Sample(
        name=name,
        image=image,
        boxes=as_boxes(boxes),
        ids=np.asarray(ids, dtype=np.int64),
        ignore=as_boxes(ignore),
        camera=camera,
        size=size,
    )
