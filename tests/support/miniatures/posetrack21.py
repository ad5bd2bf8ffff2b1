"""PoseTrack21 in miniature, with what readers trip over."""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.writers.posetrack21 import image_record, person_record, write_file
from tests.support.miniatures.pictures import write_blank


def write_miniature(root: Path, *, folder: str = "posetrack_person_search") -> None:
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
        {**image_record(f"{clip}000000.jpg", 1), "ignore_regions_x": [[0, 9, 9, 0], [20, 30, 25]],
         "ignore_regions_y": [[1, 1, 8.5, 8], [5, 5, 12]]},
        {**image_record(f"{clip}000004.jpg", 1), "ignore_regions_x": [], "ignore_regions_y": []},
        {**image_record(f"{clip}000008.jpg", 1), "ignore_regions_x": [3, 13, 8], "ignore_regions_y": [4, 4, 24]},
        {**image_record("images/train/000002_mpii_train/000000.jpg", "000002"), "ignore_regions_x": [[1, 2]],
         "ignore_regions_y": [[1, 2]]},
    ]  # fmt: skip
    people = [
        person_record(f"{clip}000008.jpg", [-3, 2.5, 12.5, 30.7], 1024) | {"keypoints": [5, 6, 1] * 17},
        person_record(f"{clip}000000.jpg", [1, 2, 11, 22], 77),
        person_record(f"{clip}000008.jpg", [40, 2, 130, 90], 77),
        person_record(f"{clip}000000.jpg", [30, 2, 30, 22], 5000),
        person_record(f"{clip}000000.jpg", [13, 2, 23, 22], 1024),
        person_record("images/train/000002_mpii_train/000000.jpg", [5, 5, 15, 25], 77),
        person_record("images/train/000002_mpii_train/000000.jpg", [25, 5, 35, 25], 77),
    ]
    del people[1]["keypoints"]
    clip = "images/val/000342_mpii_test/"
    other = "images/val/000522_mpii_test/000000.jpg"
    gallery = [image_record(f"{clip}000000.jpg", 342), image_record(f"{clip}000004.jpg", 342), image_record(other, 522)]
    write_blank(root / str(frame["file_name"]) for frame in (*train, *gallery))
    write_blank([root / f"{clip}000008.jpg"])
    write_file(root, "train", train, people, folder=folder)
    write_file(
        root,
        "val",
        gallery,
        [
            person_record(f"{clip}000000.jpg", [1, 2, 11, 22], 12),
            person_record(f"{clip}000000.jpg", [21, 2, 31, 22], 4),
            person_record(f"{clip}000004.jpg", [3, 2, 13, 22], 12),
            person_record(other, [2, 2, 12, 22], 12),
        ],
        folder=folder,
    )
    write_file(
        root,
        "query",
        [image_record(f"{clip}000008.jpg", 342), image_record(f"{clip}000000.jpg", 342)],
        [
            person_record(f"{clip}000000.jpg", [1, 2, 11, 22], 12),
            person_record(f"{clip}000000.jpg", [21, 2, 31, 22], 4),
            person_record(f"{clip}000008.jpg", [5, 2, 15.9, 22], 9),
        ],
        folder=folder,
    )
