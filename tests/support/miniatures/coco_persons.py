"""COCO's people in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.records import Sample, Split
from pretrainps.data.writers.coco_persons import coco_annotation, write_instances
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import Rows, detected

_SIZE = (40, 60)


def write_miniature(root: Path) -> dict[str, Split]:
    """Write four images and one: a crowd in run lengths, other categories, nobody, images whose boxes come mixed.

    Returns:
        What must be read, by the names of the splits.
    """
    names = ["000000000009.jpg", "000000000025.jpg", "000000000030.jpg", "000000000034.jpg"]
    annotations = [
        coco_annotation(1, 25, 1, [1.25, 2.5, 10, 30.75]),
        coco_annotation(2, 9, 1, [-2, 0, 12, 45]),
        coco_annotation(3, 25, 2, [20, 20, 10, 10]),
        coco_annotation(4, 25, 1, [30, 0, 25, 20])
        | {"iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [1200, 800, 400]}},
        coco_annotation(5, 30, 2, [5, 5, 10, 10]),
        coco_annotation(6, 9, 1, [20, 3, 8.5, 30]),
        coco_annotation(7, 34, 1, [0, 0, 50, 30]) | {"iscrowd": 1},
        coco_annotation(8, 25, 1, [4, 4, 0, 10]),
    ]
    images = [{"id": int(name[:12]), "file_name": name, "height": 40, "width": 60} for name in names]
    write_instances(root, "train", images, annotations)
    write_instances(root, "val", [images[0] | {"id": 9}], [coco_annotation(1, 9, 1, [1, 1, 9, 30])])
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


def _sample(root: Path, split: str, name: str, *, boxes: Rows = (), ignore: Rows = ()) -> Sample:
    return detected(name, root / f"{split}2017" / name, boxes=boxes, ignore=ignore, size=_SIZE)


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="coco_persons", name=name, task="detection", samples=samples, notes=notes)
