"""CityPersons in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.matlab import cell_array, save_matlab, struct_array
from pretrainps.data.records import Sample, Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import Rows, detected

_NOBODY = np.zeros((0, 0), dtype=np.uint8)


def write_miniature(root: Path) -> dict[str, Split]:
    """Write three images and one: all classes, sums beyond 255 in bytes, negative coordinates, nobody, a single cell.

    Returns:
        What must be read, by the names of the splits.
    """
    classes = np.array(
        [
            [1, 200, 10, 82, 200, 24001, 200, 10, 41, 200],  # 200 + 82 and 10 + 200 do not fit into a byte
            [2, 5, 6, 41, 100, 25001, 5, 6, 41, 90],
            [3, 1, 1, 20, 20, 24002, 1, 1, 20, 20],
            [4, 2, 2, 20, 20, 24003, 2, 2, 20, 20],
            [5, 0, 0, 50, 30, 0, 0, 0, 50, 30],
            [0, 7, 7, 8, 9, 0, 7, 7, 8, 9],
            [1, 30, 30, 0, 12, 24004, 30, 30, 0, 12],
        ],
        dtype=np.uint16,
    )
    outside = np.array([[1, -12, -3, 41, 100, 24001, 0, 0, 29, 97]], dtype=np.int16)
    bytes_only = np.array([[1, 200, 10, 82, 200, 1, 200, 10, 41, 200]], dtype=np.uint8)
    _write(root, "train", [("aachen", 19, classes), ("aachen", 20, _NOBODY), ("tubingen", 3, outside)])
    _write(root, "val", [("munster", 7, bytes_only)])
    big, its_visible = [[200, 10, 282, 210]], [[200, 10, 241, 210]]
    train = (
        _sample(
            root,
            "train",
            "aachen",
            19,
            boxes=big,
            visible=its_visible,
            ignore=[[5, 6, 46, 106], [1, 1, 21, 21], [2, 2, 22, 22], [0, 0, 50, 30], [7, 7, 15, 16]],
        ),
        _sample(root, "train", "aachen", 20),
        _sample(root, "train", "tubingen", 3, boxes=[[-12, -3, 29, 97]], visible=[[0, 0, 29, 97]]),
    )
    return {
        "train": _split("train", train, "1 boxes without width or height left out"),
        "val": _split("val", (_sample(root, "val", "munster", 7, boxes=big, visible=its_visible),)),
    }


def _name(city: str, frame: int) -> str:
    return f"{city}_000000_{frame:06d}_leftImg8bit.png"


def _write(root: Path, split: str, images: Sequence[tuple[str, int, NDArray[np.integer]]]) -> None:
    fields = ("cityname", "im_name", "bbs")
    structs = [struct_array(fields, [(city, _name(city, frame), rows)]) for city, frame, rows in images]
    save_matlab(root / "annotations" / f"anno_{split}.mat", f"anno_{split}_aligned", cell_array(structs))
    write_blank(root / "leftImg8bit" / split / city / _name(city, frame) for city, frame, _ in images)


def _sample(
    root: Path,
    split: str,
    city: str,
    frame: int,
    *,
    boxes: Rows = (),
    visible: Rows = (),
    ignore: Rows = (),
) -> Sample:
    image = root / "leftImg8bit" / split / city / _name(city, frame)
    return detected(image.name, image, boxes=boxes, visible=visible, ignore=ignore)


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="citypersons", name=name, task="detection", samples=samples, notes=notes)
