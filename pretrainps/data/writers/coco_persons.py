"""Write any records as COCO's people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.data.writers.boxes import xywh
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError
from pretrainps.images.read import SUFFIXES

_CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 2, "name": "bicycle", "supercategory": "vehicle"}]


def write(root: Path, split: Split) -> None:
    """Write a split as COCO's split of the same name. Images without annotation are written, but the reader leaves them out.

    Identities are not written. Cameras and visible boxes are written in additional fields (`pretrainps.data.coco_files`). The
    size of every image is written too, even if its record does not have it.
    """
    images, annotations = coco_records((sample, file_name_of(sample)) for sample in split.samples)
    for sample in split.samples:
        write_picture(sample, root / f"{split.name}2017" / file_name_of(sample))
    write_instances(root, split.name, images, annotations)


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
            annotation = coco_annotation(len(annotations) + 1, number, 1, xywh(box))
            if sample.visible is not None:
                annotation["vis_bbox"] = xywh(sample.visible[row])
            if identities is not None and sample.ids[row] != UNLABELLED:
                annotation["person_id"] = identities[sample.ids[row]]
            annotations.append(annotation)
        for box in sample.ignore:
            annotations.append(coco_annotation(len(annotations) + 1, number, 1, xywh(box)) | {"iscrowd": 1})
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


def coco_annotation(number: int, image: int, category: int, bbox: Sequence[float]) -> dict[str, Any]:
    """Return one of COCO's annotations, which is no crowd; its box is left, top, width, height."""
    area = bbox[2] * bbox[3]
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), "area": area, "iscrowd": 0}


def write_instances(root: Path, split: str, images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> None:
    """Write the annotation file of a split."""
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"info": {}, "images": images, "annotations": annotations, "categories": _CATEGORIES}
    path.write_text(json.dumps(content), encoding="utf-8")
