"""Read annotations in COCO's JSON with common additions: identities, cameras and visible boxes.

COCO's own fields are `id`, `file_name`, `height` and `width` of an image, and `id`, `image_id`, `bbox`, `category_id` and
`iscrowd` of an annotation. These further fields are known, all of them optional:

- `name` of an image: its name in records; by default its `file_name`.
- `camera` of an image: a whole number.
- `ignore` of an annotation: 1 means the same as `iscrowd`.
- `vis_bbox` of an annotation: the visible part of the person. If one person of a file has it, all need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrainps.data.annotated import annotated
from pretrainps.data.json_files import Record, as_object, get_length, get_list, get_text, get_whole, get_xywh, read_json
from pretrainps.data.records import Ids, Sample, from_xywh
from pretrainps.errors import DatasetError


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoBox:
    """One annotation."""

    where: str
    """The file and the annotation's id, for messages."""
    position: int
    """Its position among the file's annotations, from 0."""
    record: Record
    xywh: Sequence[float]
    visible: Sequence[float]
    """The visible part of it, if the file says so."""
    is_person: bool
    """Whether it is a person; otherwise it is a region to ignore."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoImage:
    """One image with its annotations."""

    where: str
    name: str
    file_name: str
    size: tuple[int, int] | None
    camera: int | None
    with_visible: bool
    """Whether the file has visible boxes."""
    boxes: list[CocoBox] = field(default_factory=list)

    def sample(self, path: Path, *, ids: Ids | None = None) -> tuple[Sample, int]:
        """Return the record and the number of boxes without width or height that were left out.

        Args:
            path: The image's file.
            ids: (A,) the identity of each annotation; by default, all people are unlabelled.
        """
        return annotated(
            name=self.name,
            image=path,
            boxes=from_xywh([box.xywh for box in self.boxes]),
            is_person=[box.is_person for box in self.boxes],
            visible=from_xywh([box.visible for box in self.boxes]) if self.with_visible else None,
            ids=ids,
            camera=self.camera,
            size=self.size,
        )


def read_coco(path: Path, *, category: int | None = None) -> list[CocoImage]:
    """Return the images that a file lists, in its order, each with its annotations in the file's order.

    Args:
        path: The file.
        category: Keep annotations of this category, and those without a category.

    Raises:
        DatasetError: the file is missing or no JSON; a field of an image or annotation is missing or impossible (the message
        names the annotation's id and the field); an id or a name comes twice; or an annotation has no image.
    """
    content = read_json(path)
    annotations = get_list(content, "annotations", where=str(path))
    with_visible = any(isinstance(entry, dict) and "vis_bbox" in entry for entry in annotations)
    images = _images(content, path, with_visible)
    for position, entry in enumerate(annotations):
        record = as_object(entry, where=f"{path}, annotations[{position}]")
        where = f"{path}, annotation {record['id']}" if "id" in record else f"{path}, annotations[{position}]"
        if category is not None and "category_id" in record and get_whole(record, "category_id", where=where) != category:
            continue
        image = images.get(_key(record, "image_id", where))
        if image is None:
            raise DatasetError(f"{where}: 'image_id' is {record['image_id']!r}, but no image of the file has that id.")
        image.boxes.append(_box(record, position, where, with_visible))
    return list(images.values())


def _images(content: Record, path: Path, with_visible: bool) -> dict[int | str, CocoImage]:
    images: dict[int | str, CocoImage] = {}
    names: set[str] = set()
    for position, entry in enumerate(get_list(content, "images", where=str(path))):
        where = f"{path}, images[{position}]"
        record = as_object(entry, where=where)
        key = _key(record, "id", where)
        where = f"{path}, image {key}"
        if key in images:
            raise DatasetError(f"{where}: two images have this 'id'.")
        image = _image(record, where, with_visible)
        if image.name in names:
            raise DatasetError(f"{where}: another image is called {image.name!r} too.")
        names.add(image.name)
        images[key] = image
    return images


def _image(record: Record, where: str, with_visible: bool) -> CocoImage:
    file_name = get_text(record, "file_name", where=where)
    size = None
    if "height" in record or "width" in record:
        size = (get_length(record, "height", where=where), get_length(record, "width", where=where))
    return CocoImage(
        where=where,
        name=get_text(record, "name", where=where) if "name" in record else file_name,
        file_name=file_name,
        size=size,
        camera=None if record.get("camera") is None else get_whole(record, "camera", where=where),
        with_visible=with_visible,
    )


def _box(record: Record, position: int, where: str, with_visible: bool) -> CocoBox:
    xywh = get_xywh(record, "bbox", where=where)
    if xywh[2] < 0 or xywh[3] < 0:
        raise DatasetError(f"{where}: 'bbox' has a negative width or height: {xywh}. It must be left, top, width, height.")
    is_person = not (_flag(record, "iscrowd", where) or _flag(record, "ignore", where))
    return CocoBox(
        where=where,
        position=position,
        record=record,
        xywh=xywh,
        visible=get_xywh(record, "vis_bbox", where=where) if with_visible and is_person else xywh,
        is_person=is_person,
    )


def _flag(record: Record, name: str, where: str) -> bool:
    value: Any = record.get(name, 0)
    if value not in (0, 1):
        raise DatasetError(f"{where}: {name!r} must be 0 or 1, not {value!r}.")
    return bool(value)


def _key(record: Record, name: str, where: str) -> int | str:
    value: Any = record.get(name)
    if type(value) not in (int, str):
        raise DatasetError(f"{where}: {name!r} must be a whole number or a text, not {value!r}.")
    return value  # type: ignore[no-any-return]
