"""Write any records in the layout of PoseTrack21."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pretrainps.data.records import UNLABELLED, Sample, SearchSet, Split
from pretrainps.data.writers.pictures import write_picture
from pretrainps.data.writers.prw import person_numbers
from pretrainps.errors import ArgumentError

_CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}]


def write(root: Path, train: Split, search: SearchSet) -> None:
    """Write records so that readers of PoseTrack21 return them.

    Frames without people are lost, because the authors' reader leaves them out. Unlabelled people get the person_id -1, which
    the release does not have. If not all identities are whole numbers, people are numbered: training people from 1, the
    queries' people after them. Frames keep their names if all start with images/ and end in .jpg; else all get such names.

    Args:
        root: The folder to write to.
        train: Training frames, each with its camera.
        search: Gallery and queries; the queries' frames must be in the gallery.

    Raises:
        ArgumentError: the layout cannot hold the records.
    """
    names = _frame_names(train.samples, search.gallery.samples)
    in_training = dict(zip(names[: len(train)], train.samples, strict=True))
    in_gallery = dict(zip(names[len(train) :], search.gallery.samples, strict=True))
    numbers = person_numbers(train.identities, search.gallery.identities)
    searched = numbers[len(train.identities) :]
    name_of = {sample.name: name for name, sample in in_gallery.items()}
    absent = next((query.sample.name for query in search.queries if query.sample.name not in name_of), None)
    if absent is not None:
        raise ArgumentError(f"the query's image {absent!r} must be in the gallery.")
    shown = dict.fromkeys(name_of[query.sample.name] for query in search.queries)
    queries = [person_record(name_of[query.sample.name], query.box, searched[query.id]) for query in search.queries]
    files = {
        "train": (in_training, _everybody(in_training, numbers)),
        "val": (in_gallery, _everybody(in_gallery, searched)),
        "query": ({name: in_gallery[name] for name in shown}, queries),
    }
    for file, (samples, people) in files.items():
        write_file(root, file, [_frame(name, sample) for name, sample in samples.items()], people)
    for name, sample in (in_training | in_gallery).items():
        write_picture(sample, root / name)


def write_file(
    root: Path,
    name: str,
    frames: Sequence[Mapping[str, Any]],
    people: Sequence[Mapping[str, Any]],
    *,
    folder: str = "posetrack_person_search",
) -> None:
    """Write an annotation file.

    Args:
        root: The data set's folder.
        name: "train", "val" or "query".
        frames: Records of images, without the numbers, which are given here.
        people: Records of people, each with the `file_name` of its image in place of the image's number.
        folder: Where the annotation goes.
    """
    numbers = {frame["file_name"]: number for number, frame in enumerate(frames, start=10_000_010_000)}
    images = [{"id": numbers[frame["file_name"]], "frame_id": numbers[frame["file_name"]], **frame} for frame in frames]
    annotations = [
        {"id": number, "image_id": numbers[person["file_name"]]} | {key: person[key] for key in person if key != "file_name"}
        for number, person in enumerate(people)
    ]
    path = root / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": _CATEGORIES}), encoding="utf-8")


def image_record(name: str, video: int | str) -> dict[str, Any]:
    """Return the record of a labelled frame, without its number."""
    return {"file_name": name, "vid_id": video, "nframes": 9, "is_labeled": True, "has_labeled_person": True}


def _frame(name: str, sample: Sample) -> dict[str, Any]:
    if sample.camera is None:
        raise ArgumentError(f"{sample.name}: the layout needs a frame's video, but the record has no camera.")
    corners = sample.ignore[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).tolist()  # clockwise from the upper left
    return {
        **image_record(name, sample.camera),
        "ignore_regions_x": [[x for x, _ in polygon] for polygon in corners],
        "ignore_regions_y": [[y for _, y in polygon] for polygon in corners],
    }


def _everybody(samples: Mapping[str, Sample], numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        person_record(name, box, UNLABELLED if person == UNLABELLED else numbers[person])
        for name, sample in samples.items()
        for box, person in zip(sample.boxes, sample.ids, strict=True)
    ]


def person_record(name: str, box: ArrayLike, person: int) -> dict[str, Any]:
    """Return the record of a person from x1, y1, x2, y2."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64).tolist()
    return {
        "file_name": name,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "bbox_head": [],
        "keypoints": [],
        "person_id": person,
        "track_id": 0,
        "category_id": 1,
    }


def _frame_names(train: Sequence[Sample], gallery: Sequence[Sample]) -> list[str]:
    names = [sample.name for sample in (*train, *gallery)]
    if len(set(names)) == len(names) and all(name.startswith("images/") and name.endswith(".jpg") for name in names):
        return names
    parts = [("train", sample.camera) for sample in train] + [("val", sample.camera) for sample in gallery]
    return [f"images/{part}/{video or 0:06d}_{part}/{place:06d}.jpg" for place, (part, video) in enumerate(parts)]
