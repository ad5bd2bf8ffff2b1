"""Write any records as a person search in COCO style."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.records import Query, Sample, SearchSet, Split, as_boxes
from pretrainps.data.writers.boxes import xywh
from pretrainps.data.writers.coco_persons import coco_image, coco_records, file_name_of
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError


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
        write_records(root, part, *coco_records(placed, split.identities))
    images, annotations = _query_records(root, search)
    write_records(root, "query", images, annotations)


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
        person_record(position, numbers[query.sample.name], xywh(query.box), search.gallery.identities[query.id])
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


def write_records(root: Path, part: str, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> None:
    """Write the annotation file of "train", "test" or "query"."""
    path = root / "annotations" / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8")


def person_record(number: int, image: int | str, bbox: Sequence[float], person: int | str | None) -> dict[str, Any]:
    """Return the record of a person in an image; their box is left, top, width, height."""
    return {"id": number, "image_id": image, "category_id": 1, "bbox": list(bbox), "iscrowd": 0, "person_id": person}
