"""Somebody's own person search in miniature, and any person search written as such."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.records import UNLABELLED, Query, Sample, SearchSet, Split, as_boxes
from pretrainps.data.writers.coco_persons import coco_image, coco_records, file_name_of
from pretrainps.data.writers.pictures import write_blank, write_picture
from pretrainps.data.writers.records import Rows, xywh
from pretrainps.errors import ArgumentError

_SIZE = (40, 60)


def replica(root: Path, *, queries: bool = True) -> tuple[Split, SearchSet]:
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
        _person(1, 1, [1, 2, 10, 30], 10),
        _person(2, "second", [0.5, 2, 10, 30], "anna"),
        _person(3, 1, [-4, 0, 12, 45], 9),
        _person(4, 1, [30, 2, 10, 30], 10),
        _person(5, 1, [40, 2, 10, 30], None),
        _person(6, 1, [45, 2, 10, 30], -1),
        {"id": 7, "image_id": 1, "bbox": [50, 2, 9, 30]},
        _person(8, 1, [20, 2, 0, 30], "without width"),
        _person(9, 1, [20, 2, 10, 30], "in a crowd") | {"iscrowd": 1},
        _person(10, 1, [22, 2, 10, 30], None) | {"ignore": 1},
    ]
    test = [_image(number, f"t{number}.jpg", camera=number) for number in (1, 2, 3, 4)]
    in_test = [
        _person(1, 1, [1, 1, 10, 30], "eve"),
        _person(2, 1, [12, 1, 10, 30], "7"),
        _person(3, 2, [2, 1, 10, 30], 7),
        _person(4, 2, [14, 1, 10, 30], "once"),
        _person(5, 3, [3, 1, 10, 30], "eve"),
        _person(6, 3, [16, 1, 10, 30], "eve"),
        _person(7, 3, [28, 1, 10, 30], None),
    ]
    alone = [_image(1, "q.jpg"), _image(2, "t2.jpg", camera=2)]
    in_queries = [
        _person(1, 2, [2, 1, 10, 30], 7),
        _person(2, 1, [5, 5, 10, 30], "only searched for"),
        _person(3, 2, [14, 1, 10, 30], "once"),
    ]
    write_blank([root / "images" / "a" / "1.jpg", *(root / "images" / name for name in ("t1.jpg", "t3.jpg", "t4.jpg"))])
    write_blank([root / "2.png", root / "t2.jpg", root / "q.jpg"])  # names that count from the root
    _write(root, "train", train, in_train)
    _write(root, "test", test, in_test)
    if queries:
        _write(root, "query", alone, in_queries)
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


def write(root: Path, train: Split, search: SearchSet) -> None:
    """Write a person search so that the reader returns the same names, boxes, cameras and people.

    The reader numbers people anew: those who appear, in the order of their names. The size of every image is written, even if
    its record does not have it.

    Raises:
        ArgumentError: queries have galleries of their own, which this layout cannot hold; or the image of a query is not in the
        gallery and has more annotation than its queries.
    """
    if search.lists:
        raise ArgumentError("this layout has one gallery for all queries. Leave the lists out: replace(search, lists={}).")
    for split, part in ((train, "train"), (search.gallery, "test")):
        placed = [(sample, f"{part}/{file_name_of(sample)}") for sample in split.samples]
        for sample, file_name in placed:
            write_picture(sample, root / "images" / file_name)
        _write(root, part, *coco_records(placed, split.identities))
    images, annotations = _query_records(root, search)
    _write(root, "query", images, annotations)


def _query_records(root: Path, search: SearchSet) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    in_gallery = {sample.name for sample in search.gallery.samples}
    samples = {query.sample.name: query.sample for query in search.queries}
    images = []
    for number, sample in enumerate(samples.values(), start=1):
        part = "test" if sample.name in in_gallery else "query"
        file_name = f"{part}/{file_name_of(sample)}"
        if part == "query":
            _see_that_all_are_searched_for(sample, search.queries)
            write_picture(sample, root / "images" / file_name)
        images.append(coco_image(number, sample, file_name))
    numbers = {name: number for number, name in enumerate(samples, start=1)}
    annotations = [
        _person(position, numbers[query.sample.name], xywh(query.box), search.gallery.identities[query.id])
        for position, query in enumerate(search.queries, start=1)
    ]
    return images, annotations


def _see_that_all_are_searched_for(sample: Sample, queries: Sequence[Query]) -> None:
    boxes = as_boxes([query.box for query in queries if query.sample.name == sample.name])
    if not np.array_equal(boxes, sample.boxes) or len(sample.ignore) or sample.visible is not None:
        raise ArgumentError(
            f"{sample.name} is not in the gallery, and has more annotation than its queries. This layout cannot hold "
            "that: put the image into the gallery."
        )


def _write(root: Path, part: str, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> None:
    path = root / "annotations" / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8")


def _image(number: int, file_name: str, *, camera: int | None = None) -> dict[str, Any]:
    image = {"id": number, "file_name": file_name, "height": _SIZE[0], "width": _SIZE[1]}
    return image if camera is None else image | {"camera": camera}


def _person(number: int, image: int | str, bbox: Sequence[float], person: int | str | None) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": list(bbox), "iscrowd": 0, "person_id": person}


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
