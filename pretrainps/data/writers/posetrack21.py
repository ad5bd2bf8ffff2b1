"""Write PoseTrack21's person-search files: any records in its layout, or a miniature with everything readers trip over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pretrainps.data.records import UNLABELLED, Sample, SearchSet, Split
from pretrainps.data.writers.pictures import write_blank, write_picture
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
    queries = [_person(name_of[query.sample.name], query.box, searched[query.id]) for query in search.queries]
    files = {
        "train": (in_training, _everybody(in_training, numbers)),
        "val": (in_gallery, _everybody(in_gallery, searched)),
        "query": ({name: in_gallery[name] for name in shown}, queries),
    }
    for file, (samples, people) in files.items():
        write_file(root, file, [_frame(name, sample) for name, sample in samples.items()], people)
    for name, sample in (in_training | in_gallery).items():
        write_picture(sample, root / name)


def replica(root: Path, *, folder: str = "posetrack_person_search") -> None:
    """Write a miniature: three training and three gallery frames of four videos, and three queries.

    In it: a frame without annotation, frames first annotated in another order, a video numbered by a text, keypoints that are
    there, empty or missing, polygons as lists of lists, as a flat list, of two corners and missing, a box without area,
    negative, broken and outside coordinates, sparse numbers of people, one person twice in a frame, a query in a frame that is
    not in the gallery, of somebody who is not in it either.

    Args:
        root: The folder to write to.
        folder: Where the annotation goes.
    """
    clip = "images/train/000001_bonn_train/"
    train = [
        {**_head(f"{clip}000000.jpg", 1), "ignore_regions_x": [[0, 9, 9, 0], [20, 30, 25]],
         "ignore_regions_y": [[1, 1, 8.5, 8], [5, 5, 12]]},
        {**_head(f"{clip}000004.jpg", 1), "ignore_regions_x": [], "ignore_regions_y": []},
        {**_head(f"{clip}000008.jpg", 1), "ignore_regions_x": [3, 13, 8], "ignore_regions_y": [4, 4, 24]},
        {**_head("images/train/000002_mpii_train/000000.jpg", "000002"), "ignore_regions_x": [[1, 2]],
         "ignore_regions_y": [[1, 2]]},
    ]  # fmt: skip
    people = [
        _person(f"{clip}000008.jpg", [-3, 2.5, 12.5, 30.7], 1024) | {"keypoints": [5, 6, 1] * 17},
        _person(f"{clip}000000.jpg", [1, 2, 11, 22], 77),
        _person(f"{clip}000008.jpg", [40, 2, 130, 90], 77),
        _person(f"{clip}000000.jpg", [30, 2, 30, 22], 5000),
        _person(f"{clip}000000.jpg", [13, 2, 23, 22], 1024),
        _person("images/train/000002_mpii_train/000000.jpg", [5, 5, 15, 25], 77),
        _person("images/train/000002_mpii_train/000000.jpg", [25, 5, 35, 25], 77),
    ]
    del people[1]["keypoints"]
    clip = "images/val/000342_mpii_test/"
    other = "images/val/000522_mpii_test/000000.jpg"
    gallery = [_head(f"{clip}000000.jpg", 342), _head(f"{clip}000004.jpg", 342), _head(other, 522)]
    write_blank(root / str(frame["file_name"]) for frame in (*train, *gallery))
    write_blank([root / f"{clip}000008.jpg"])
    write_file(root, "train", train, people, folder=folder)
    write_file(
        root,
        "val",
        gallery,
        [
            _person(f"{clip}000000.jpg", [1, 2, 11, 22], 12),
            _person(f"{clip}000000.jpg", [21, 2, 31, 22], 4),
            _person(f"{clip}000004.jpg", [3, 2, 13, 22], 12),
            _person(other, [2, 2, 12, 22], 12),
        ],
        folder=folder,
    )
    write_file(
        root,
        "query",
        [_head(f"{clip}000008.jpg", 342), _head(f"{clip}000000.jpg", 342)],
        [
            _person(f"{clip}000000.jpg", [1, 2, 11, 22], 12),
            _person(f"{clip}000000.jpg", [21, 2, 31, 22], 4),
            _person(f"{clip}000008.jpg", [5, 2, 15.9, 22], 9),
        ],
        folder=folder,
    )


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


def _head(name: str, video: int | str) -> dict[str, Any]:
    return {"file_name": name, "vid_id": video, "nframes": 9, "is_labeled": True, "has_labeled_person": True}


def _frame(name: str, sample: Sample) -> dict[str, Any]:
    if sample.camera is None:
        raise ArgumentError(f"{sample.name}: the layout needs a frame's video, but the record has no camera.")
    corners = sample.ignore[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).tolist()  # clockwise from the upper left
    return {
        **_head(name, sample.camera),
        "ignore_regions_x": [[x for x, _ in polygon] for polygon in corners],
        "ignore_regions_y": [[y for _, y in polygon] for polygon in corners],
    }


def _everybody(samples: Mapping[str, Sample], numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        _person(name, box, UNLABELLED if person == UNLABELLED else numbers[person])
        for name, sample in samples.items()
        for box, person in zip(sample.boxes, sample.ids, strict=True)
    ]


def _person(name: str, box: ArrayLike, person: int) -> dict[str, Any]:
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
