"""Market-1501, and the reader of all sets of crops with the same layout.

Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015. A file's name has the person and the camera:
`0002_c1s1_000451_03.jpg`. By the protocol, -1 (detections that are hardly a person) is left out. People of number 0000, who
are in no query, stay in the gallery as people without an identity. Query and gallery share one numbering of all their people,
in the order of their numbers; the training people have their own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import unpacked
from pretrainps.data.records import UNLABELLED, Sample, Split, number
from pretrainps.errors import DatasetError
from pretrainps.images.read import SUFFIXES

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""The folder of each split in a data set of the Market family."""

_NAME = re.compile(r"(-?\d+)_c(\d{1,9})(?!\d)")


class Crop(NamedTuple):
    """An image file of the Market family, with the fields of its name."""

    path: Path
    person: str
    camera: int

    @property
    def is_junk(self) -> bool:
        """Whether it shows hardly a person."""
        return int(self.person) < 0

    @property
    def is_distractor(self) -> bool:
        """Whether it shows a person without an identity."""
        return int(self.person) == 0


def read_market_family(root: Path, split: str, *, layout: Layout, name: str | None = None) -> Split:
    """Read a split of a data set that is stored like Market-1501.

    Args:
        root: The folder with `bounding_box_train`, `bounding_box_test` and `query`.
        split: One of `FOLDERS`.
        layout: The layout of the data set.
        name: The name of the split, if another one.

    Raises:
        DatasetError: a folder is missing, or an image's name does not start with person and camera.
    """
    together = ("train",) if split == "train" else ("query", "gallery")
    parts, copies = {}, 0
    for part in together:
        crops, doubled = _list_crops(layout.wants(root / FOLDERS[part]))
        parts[part] = crops
        copies = doubled if part == split else copies
    people = {crop.person for crops in parts.values() for crop in crops if not (crop.is_junk or crop.is_distractor)}
    identities = number(sorted(people, key=lambda person: (int(person), person)))
    kept = [crop for crop in parts[split] if not crop.is_junk]
    junk, distractors = len(parts[split]) - len(kept), sum(crop.is_distractor for crop in kept)
    return Split(
        dataset=layout.name,
        name=name or split,
        task="reid",
        samples=[crop_sample(crop.path.name, crop.path, identities.get(crop.person, UNLABELLED), crop.camera) for crop in kept],
        identities=tuple(identities),
        notes=tuple(
            f"{count} {what}"
            for count, what in (
                (junk, "junk images (-1) left out"),
                (distractors, "images of people without an identity (0000) kept as such"),
                (copies, "copies of images in another format left out"),
            )
            if count
        ),
    )


def crop_sample(name: str, path: Path, identity: int, camera: int | None) -> Sample:
    """Return the record of an image that shows one person from edge to edge."""
    return Sample(name=name, image=path, boxes=Sample.whole(), ids=np.array([identity], dtype=np.int64), camera=camera)


def _list_crops(folder: Path) -> tuple[list[Crop], int]:
    """Return a folder's images in the order of their names, and the number of copies left out: PNG is preferred to JPEG."""
    images: dict[str, str] = {}
    doubled = 0
    for name in sorted(os.listdir(folder)):  # it may also hold system files such as Thumbs.db
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES and not name.startswith("."):
            doubled += stem in images
            images[stem] = name  # .png comes after .jpg
    return [_crop(folder / name) for name in images.values()], doubled


def _crop(path: Path) -> Crop:
    match = _NAME.match(path.name)
    if match is None:
        raise DatasetError(
            f"{path}: names of images here must have person and camera, as 0002_c1s1_000451_03.jpg has. Move others elsewhere."
        )
    return Crop(path, match[1], int(match[2]))


def holds_market_family(root: Path) -> bool:
    """Whether a folder holds the three folders of the Market family."""
    return all((root / folder).is_dir() for folder in FOLDERS.values())


def first_crop(root: Path) -> str:
    """Return the name of any query of the Market family, to distinguish the family's members; "" if there is none."""
    with os.scandir(root / FOLDERS["query"]) as entries:
        return next((entry.name for entry in entries if _NAME.match(entry.name)), "")


def _root(root: Path) -> Path:
    return unpacked(root, "Market-1501-v15.09.15")


def _recognize(root: Path) -> bool:
    return holds_market_family(_root(root)) and re.match(r"-?\d+_c\d+s", first_crop(_root(root))) is not None


def _read_split(root: Path, split: str) -> Split:
    return read_market_family(_root(root), split, layout=LAYOUT)


LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    task="reid",
    splits=("train", "query", "gallery"),
    tree="""\
ROOT/bounding_box_train/0002_c1s1_000451_03.jpg ...   (the folder Market-1501-v15.09.15, or the one that holds it)
ROOT/query/...
ROOT/bounding_box_test/...   (the gallery)
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={
        "train": Counts(images=12_936, boxes=12_936, labelled=12_936, identities=751, cameras=6),
        "query": Counts(images=3_368, boxes=3_368, labelled=3_368, identities=750, cameras=6),
        "gallery": Counts(images=15_913, boxes=15_913, labelled=13_115, identities=750, cameras=6),
    },
    terms="research only",
    shares_people_with=("prw",),
)
