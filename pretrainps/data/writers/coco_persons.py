"""COCO's people in miniature, and any boxes written as COCO's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.data.writers.pictures import write_blank, write_picture
from pretrainps.data.writers.records import Rows, detected, xywh
from pretrainps.errors import ArgumentError
from pretrainps.images.read import SUFFIXES

_SIZE = (40, 60)
_CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 2, "name": "bicycle", "supercategory": "vehicle"}]


def replica(root: Path) -> dict[str, Split]:
    """Write four images and one: a crowd in run lengths, other categories, nobody, images whose boxes come mixed.

    Returns:
        What must be read, by the names of the splits.
    """
    names = ["000000000009.jpg", "000000000025.jpg", "000000000030.jpg", "000000000034.jpg"]
    annotations = [
        _annotation(1, 25, 1, [1.25, 2.5, 10, 30.75]),
        _annotation(2, 9, 1, [-2, 0, 12, 45]),
        _annotation(3, 25, 2, [20, 20, 10, 10]),
        _annotation(4, 25, 1, [30, 0, 25, 20]) | {"iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [1200, 800, 400]}},
        _annotation(5, 30, 2, [5, 5, 10, 10]),
        _annotation(6, 9, 1, [20, 3, 8.5, 30]),
        _annotation(7, 34, 1, [0, 0, 50, 30]) | {"iscrowd": 1},
        _annotation(8, 25, 1, [4, 4, 0, 10]),
    ]
    images = [{"id": int(name[:12]), "file_name": name, "height": 40, "width": 60} for name in names]
    _write(root, "train", images, annotations)
    _write(root, "val", [images[0] | {"id": 9}], [_annotation(1, 9, 1, [1, 1, 9, 30])])
    write_blank(root / "train2017" / name for name in names)
    write_blank([root / "val2017" / names[0]])
    train = (
        _sample(root, "train", names[0], boxes=[[-2, 0, 10, 45], [20, 3, 28.5, 33]]),
        _sample(root, "train", names[1], boxes=[[1.25, 2.5, 11.25, 33.25]], ignore=[[30, 0, 55, 20]]),
        _sample(root, "train", names[3], ignore=[[0, 0, 50, 30]]),
    )
    return {
        "train": _split("train", train, "1 images without people left out", "1 boxes without width or height left out"),
        "val": _split("val", (_sample(root, "val", names[0], boxes=[[1, 1, 10, 31]]),)),
    }


def write(root: Path, split: Split) -> None:
    """Write a split as COCO's split of the same name. Images without annotation are written, but the reader leaves them out.

    Identities are not written. Cameras and visible boxes are written in additional fields (`pretrainps.data.coco_files`). The
    size of every image is written too, even if its record does not have it.
    """
    images, annotations = coco_records((sample, file_name_of(sample)) for sample in split.samples)
    for sample in split.samples:
        write_picture(sample, root / f"{split.name}2017" / file_name_of(sample))
    _write(root, split.name, images, annotations)


def file_name_of(sample: Sample) -> str:
    """Return a file name for a record: its own name, with a suffix if it has none."""
    return sample.name if Path(sample.name).suffix.lower() in SUFFIXES else f"{sample.name}.jpg"


def coco_records(
    samples: Iterable[tuple[Sample, str]], identities: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return COCO's images and annotations for records.

    Args:
        samples: Records, each with its file name.
        identities: Names of the people, for `person_id`; by default, no annotation gets one.

    Raises:
        ArgumentError: two records share a file name, or only some of them have visible boxes.
    """
    samples = list(samples)
    if len({file_name for _, file_name in samples}) < len(samples):
        raise ArgumentError("two records have the same name, apart from .jpg at its end. Each image needs its own file.")
    if len({sample.visible is None for sample, _ in samples}) > 1:
        raise ArgumentError("some records have visible boxes and some have none. Give them for all records, or for none.")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (sample, file_name) in enumerate(samples, start=1):
        images.append(coco_image(number, sample, file_name))
        for row, box in enumerate(sample.boxes):
            annotation = _annotation(len(annotations) + 1, number, 1, xywh(box))
            if sample.visible is not None:
                annotation["vis_bbox"] = xywh(sample.visible[row])
            if identities is not None and sample.ids[row] != UNLABELLED:
                annotation["person_id"] = identities[sample.ids[row]]
            annotations.append(annotation)
        for box in sample.ignore:
            annotations.append(_annotation(len(annotations) + 1, number, 1, xywh(box)) | {"iscrowd": 1})
    return images, annotations


def coco_image(number: int, sample: Sample, file_name: str) -> dict[str, Any]:
    """Return COCO's image for a record, with an id and the name of its file."""
    height, width = sample.size or sample.pixels().size[::-1]
    image: dict[str, Any] = {"id": number, "file_name": file_name, "height": height, "width": width}
    if file_name != sample.name:
        image["name"] = sample.name
    if sample.camera is not None:
        image["camera"] = sample.camera
    return image


def _annotation(number: int, image: int, category: int, bbox: Sequence[float]) -> dict[str, Any]:
    area = bbox[2] * bbox[3]
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), "area": area, "iscrowd": 0}


def _write(root: Path, split: str, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "images": images, "annotations": annotations, "categories": _CATEGORIES}
    path.write_text(json.dumps(content), encoding="utf-8")


def _sample(root: Path, split: str, name: str, *, boxes: Rows = (), ignore: Rows = ()) -> Sample:
    return detected(name, root / f"{split}2017" / name, boxes=boxes, ignore=ignore, size=_SIZE)


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="coco_persons", name=name, task="detection", samples=samples, notes=notes)
