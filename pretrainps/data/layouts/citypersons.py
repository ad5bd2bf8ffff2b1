"""CityPersons: pedestrians in Cityscapes' street scenes.

Zhang et al., "CityPersons: A Diverse Dataset for Pedestrian Detection", CVPR 2017. Boxes are of six classes. Pedestrians (1)
are people, as in the usual training on it. Riders (2), sitting people (3), people in other postures (4), groups (5) and
regions marked as such (0) are ignored: they are neither positive nor negative examples.

The files hold unsigned 16-bit numbers, or signed ones where a box reaches beyond the image. An image without boxes has an
array of bytes without columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pretrainps.data.annotated import annotated, note_left_out
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.matlab import cells, load_matlab, numbers, record, text, within
from pretrainps.data.records import Split, are_coordinates, from_xywh
from pretrainps.errors import DatasetError

PEDESTRIAN = 1
CLASSES = 6
"""0 ignore, 1 pedestrian, 2 rider, 3 sitting, 4 other posture, 5 group."""
COLUMNS = 10
"""Columns of a row: class, whole box, number of the person, visible box. Boxes are left, top, width, height."""


def _recognize(root: Path) -> bool:
    return any((root / "annotations" / f"anno_{split}.mat").is_file() for split in LAYOUT.splits)


def _read_split(root: Path, split: str) -> Split:
    path = LAYOUT.wants(root / "annotations" / f"anno_{split}.mat")
    folder = LAYOUT.wants(root / "leftImg8bit" / split)
    samples, images = [], []
    empty = 0
    for index, cell in enumerate(cells(load_matlab(path, f"anno_{split}_aligned")), start=1):
        with within(f"{path}, cell {index}"):
            city, name, rows = record(cell, 3)
            image = folder / text(city) / text(name)
            people = numbers(rows, COLUMNS)
            if not are_coordinates(people):
                raise DatasetError(f"{image.name} has a number that is not finite, or too large for a coordinate.")
            unknown = set(people[:, 0]) - set(range(CLASSES))
            if unknown:
                raise DatasetError(f"{image.name} has a box of class {unknown.pop():g}. Classes are 0 to {CLASSES - 1}.")
        sample, without_area = annotated(
            name=image.name,
            image=image,
            boxes=from_xywh(people[:, 1:5]),
            is_person=np.equal(people[:, 0], PEDESTRIAN).tolist(),
            visible=from_xywh(people[:, 6:10]),
        )
        samples.append(sample)
        images.append(image)
        empty += without_area
    Listing().require(images, of=str(path))
    return Split(dataset=LAYOUT.name, name=split, task="detection", samples=samples, notes=note_left_out(empty))


LAYOUT = Layout(
    name="citypersons",
    title="CityPersons",
    task="detection",
    splits=("train", "val"),
    tree="""\
ROOT/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png ...   (Cityscapes' leftImg8bit_trainvaltest.zip)
ROOT/leftImg8bit/val/<city>/...
ROOT/annotations/anno_train.mat
ROOT/annotations/anno_val.mat
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={"train": Counts(images=2_975, boxes=16_526), "val": Counts(images=500, boxes=3_157)},
    terms="non-commercial, after registration (Cityscapes' licence)",
)
