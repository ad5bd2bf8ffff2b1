"""PoseTrack21, its person-search task on frames of videos; Döring et al., "PoseTrack21", CVPR 2022.

The rules are those of the authors' reader (`posetrack_psearch.py` of github.com/anDoer/PoseTrack21). Frames come in the order
of their first annotation. Frames without annotation are left out. Boxes are truncated to whole pixels. A video counts as a
camera. Regions to ignore are polygons, and become the boxes around them. The release labels all people; a negative
`person_id` means an unlabelled person, and occurs only in files that this package wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.annotated import note_left_out
from pretrainps.data.json_files import Record, as_object, get_list, get_text, get_whole, get_xywh, is_coordinate, read_json
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.records import UNLABELLED, Boxes, Query, Sample, SearchSet, Split, as_boxes, number
from pretrainps.errors import DatasetError

_FOLDERS = ("posetrack_person_search", "annotations/posetrack_person_search", "annotations")
"""Folders of the annotation in the releases and in their readers."""
_FILES = {"train": "train.json", "test": "val.json"}


def recognize(root: Path) -> bool:
    """Whether a root holds the annotation of PoseTrack21's person-search task."""
    folders = [root / folder for folder in _FOLDERS]
    return any((folder / "query.json").is_file() and (folder / "val.json").is_file() for folder in folders)


def read_split(root: Path, split: str) -> Split:
    """Read the frames of a split; identities are in the order of their first annotation."""
    path = _annotation(root, _FILES[split])
    frames, people = _read(path)
    shown = [person for person in people if person.has_area]
    identities = number(person.name for person in shown if person.name is not None)
    by_frame: dict[int, list[_Person]] = {person.frame: [] for person in people}
    for person in shown:
        by_frame[person.frame].append(person)
    samples = [_sample(root, frames[frame], group, identities) for frame, group in by_frame.items()]
    _require(root, samples, of=path)
    unseen = len(frames) - len(samples)
    return Split(
        dataset=LAYOUT.name,
        name=split,
        task="search",
        samples=samples,
        identities=tuple(identities),
        notes=(
            *((f"{unseen} frames without annotation left out",) if unseen else ()),
            *note_left_out(len(people) - len(shown)),
        ),
    )


def read_search_set(root: Path) -> SearchSet:
    """Read the gallery and the queries.

    A query's person who is in no frame of the gallery gets a further identity. If the frame of a query is not in the gallery,
    its record has only the people of the queries in it.
    """
    gallery = read_split(root, "test")
    path = _annotation(root, "query.json")
    frames, people = _read(path)
    if not people:
        raise DatasetError(f"{path} holds no query.")
    unknown = next((place for place, person in enumerate(people, start=1) if person.name is None), None)
    if unknown is not None:
        raise DatasetError(f"{path}, annotation {unknown}: its person_id is negative, so it names no person to search for.")
    identities = number([*gallery.identities, *(person.name for person in people if person.name is not None)])
    samples = {sample.name: sample for sample in gallery.samples}
    by_frame: dict[int, list[_Person]] = {}
    for person in people:
        by_frame.setdefault(person.frame, []).append(person)
    alone = {frame: _sample(root, frames[frame], group, identities) for frame, group in by_frame.items()}
    _require(root, alone.values(), of=path)
    queries = [
        Query(
            sample=samples.get(alone[person.frame].name, alone[person.frame]),
            box=as_boxes(person.box)[0],
            id=identities[person.name or ""],
        )
        for person in people
    ]
    return SearchSet(gallery=replace(gallery, identities=tuple(identities)), queries=queries)


@dataclass(frozen=True, slots=True)
class _Frame:
    name: str
    camera: int
    ignore: Boxes


@dataclass(frozen=True, slots=True)
class _Person:
    frame: int
    name: str | None
    """The label; `None` for an unlabelled person."""
    box: tuple[int, int, int, int]
    """Corners x1, y1, x2, y2."""

    @property
    def has_area(self) -> bool:
        return self.box[2] > self.box[0] and self.box[3] > self.box[1]


def _annotation(root: Path, file: str) -> Path:
    places = [root / folder / file for folder in _FOLDERS]
    return next((place for place in places if place.is_file()), None) or LAYOUT.wants(places[0])


def _read(path: Path) -> tuple[dict[int, _Frame], list[_Person]]:
    """Return the frames by number, and the people in the order of the file."""
    data = read_json(path)
    frames: dict[int, _Frame] = {}
    for place, item in enumerate(get_list(data, "images", where=str(path)), start=1):
        where = f"{path}, image {place}"
        record = as_object(item, where=where)
        key = get_whole(record, "id", where=where)
        if key in frames:
            raise DatasetError(f"{where}: its id is {key}, which an earlier image has too.")
        frames[key] = _Frame(
            name=get_text(record, "file_name", where=where),
            camera=_video(record, where),
            ignore=_ignored(record, where),
        )
    people: list[_Person] = []
    for place, item in enumerate(get_list(data, "annotations", where=str(path)), start=1):
        where = f"{path}, annotation {place}"
        record = as_object(item, where=where)
        frame = get_whole(record, "image_id", where=where)
        if frame not in frames:
            raise DatasetError(f"{where}: its image_id is {frame}, but no image of the file has that id.")
        left, top, width, height = get_xywh(record, "bbox", where=where)
        box = (int(left), int(top), int(left + width), int(top + height))
        person = get_whole(record, "person_id", where=where)
        people.append(_Person(frame=frame, name=None if person < 0 else str(person), box=box))
    return frames, people


def _video(record: Record, where: str) -> int:
    """Return the number of a frame's video; in some files it is a text with leading zeros."""
    value = record.get("vid_id")
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return int(value)
    return get_whole(record, "vid_id", where=where)


def _ignored(record: Record, where: str) -> Boxes:
    """Return the boxes around a frame's polygons; polygons of fewer than three corners are left out."""
    boxes = []
    across, down = (_polygons(record, f"ignore_regions_{axis}", where) for axis in "xy")
    if len(across) != len(down):
        raise DatasetError(f"{where}: {len(across)} polygons in ignore_regions_x, but {len(down)} in ignore_regions_y.")
    for xs, ys in zip(across, down, strict=True):
        if len(xs) != len(ys):
            raise DatasetError(f"{where}: a polygon of ignore_regions has {len(xs)} x but {len(ys)} y.")
        if len(xs) >= 3:
            boxes.append([min(xs), min(ys), max(xs), max(ys)])
    return as_boxes(boxes)


def _polygons(record: Record, field: str, where: str) -> list[list[float]]:
    """Return one coordinate of each polygon's corners; a flat list is a single polygon."""
    value: list[Any] = get_list(record, field, where=where, default=[])
    polygons = value if all(isinstance(polygon, list) for polygon in value) else [value]
    if not all(is_coordinate(place) for polygon in polygons for place in polygon):
        raise DatasetError(f"{where}: {field!r} must be lists of numbers, not {str(value)[:60]}.")
    return polygons


def _sample(root: Path, frame: _Frame, people: Iterable[_Person], identities: Mapping[str, int]) -> Sample:
    return Sample(
        name=frame.name,
        image=root / frame.name,
        boxes=as_boxes([person.box for person in people]),
        ids=np.array([UNLABELLED if person.name is None else identities[person.name] for person in people], dtype=np.int64),
        ignore=frame.ignore,
        camera=frame.camera,
    )


def _require(root: Path, samples: Iterable[Sample], *, of: Path) -> None:
    LAYOUT.wants(root / "images")
    images = dict.fromkeys(sample.image for sample in samples if isinstance(sample.image, Path))
    Listing().require(list(images), of=str(of))


LAYOUT = Layout(
    name="posetrack21",
    title="PoseTrack21 (person search)",
    task="search",
    splits=("train", "test"),
    tree="""\
PoseTrack21/
    images/train/000001_bonn_train/000000.jpg ...
    images/val/000342_mpii_test/000000.jpg ...
    posetrack_person_search/train.json        (or in annotations/, or in annotations/posetrack_person_search/)
    posetrack_person_search/val.json
    posetrack_person_search/query.json""",
    recognize=recognize,
    read_split=read_split,
    read_search_set=read_search_set,
    counts={"train": Counts(images=42_861, identities=5_474), "test": Counts(identities=1_656)},
    terms="With a token, after a signed agreement by e-mail; the annotation tools are under the MIT licence.",
)
