"""COCO persons: the people in COCO's detection images.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. People are the annotations of category 1; those marked
`iscrowd` are regions to ignore, as their bounding box. As in the training loaders of torchvision's references, only images
with an annotation of the category are kept, even if it is a crowd. That is about half of the training images.
"""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.annotated import note_left_out
from pretrainps.data.coco_files import read_coco
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.records import Split

PERSON = 1
"""The category."""


def _annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def _recognize(root: Path) -> bool:
    return any(_annotations(root, split).is_file() for split in LAYOUT.splits)


def _read_split(root: Path, split: str) -> Split:
    path = LAYOUT.wants(_annotations(root, split))
    folder = LAYOUT.wants(root / f"{split}2017")
    everything = read_coco(path, category=PERSON)
    images = [image for image in everything if image.boxes]
    Listing().require([folder / image.file_name for image in images], of=str(path))
    found = [image.sample(folder / image.file_name) for image in images]
    empty = len(everything) - len(images)
    return Split(
        dataset=LAYOUT.name,
        name=split,
        task="detection",
        samples=[sample for sample, _ in found],
        notes=(
            *((f"{empty} images without people left out",) if empty else ()),
            *note_left_out(sum(without_area for _, without_area in found)),
        ),
    )


LAYOUT = Layout(
    name="coco_persons",
    title="COCO 2017, people only",
    task="detection",
    splits=("train", "val"),
    tree="""\
ROOT/train2017/000000000009.jpg ...
ROOT/val2017/000000000139.jpg ...
ROOT/annotations/instances_train2017.json
ROOT/annotations/instances_val2017.json
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={"train": Counts(images=64_115), "val": Counts(images=2_693)},
    terms="annotations CC BY 4.0; the images are of Flickr, on the terms of their owners",
)
