"""MSMT17 in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pretrainps.data.records import Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import cropped

_FIRST = "0000/0000_000_01_0303morning_0008_0.jpg"
_FIRST_AGAIN = "0000/0000_004_15_0303noon_0011_2_ex.jpg"
_SECOND = "0001/0001_000_02_0302afternoon_0050_1.jpg"
_SECOND_AGAIN = "0001/0001_007_14_0113morning_0211_0.jpg"
_THIRD = "0002/0002_001_09_0303evening_0123_1_ex.jpg"


def write_miniature(root: Path, version: Literal["V1", "V2"] = "V1") -> dict[str, Split]:
    """Write a handful of crops: test people numbered from 0 again, `_ex` in names, CRLF, few people in the validation list.

    Returns:
        What must be read, by the names of the splits.
    """
    lists = {
        "train": [(_FIRST, 0), (_THIRD, 2), (_SECOND, 1)],
        "val": [(_SECOND_AGAIN, 1)],
        "query": [(_SECOND, 1)],
        "gallery": [(_FIRST, 0), (_FIRST_AGAIN, 0), (_SECOND_AGAIN, 1)],
    }
    halves = {"train": "train", "val": "train", "query": "test", "gallery": "test"}
    folders = {half: root / (half if version == "V1" else f"mask_{half}_v2") for half in ("train", "test")}
    for name, entries in lists.items():
        write_blank((folders[halves[name]] / image for image, _ in entries), height=64, width=32)
        end = "\r\n" if name == "gallery" else "\n"
        (root / f"list_{name}.txt").write_bytes("".join(f"{image} {person}{end}" for image, person in entries).encode())
    cameras = {_FIRST: 1, _FIRST_AGAIN: 15, _SECOND: 2, _SECOND_AGAIN: 14, _THIRD: 9}

    def split(name: str, parts: Sequence[str], people: int) -> Split:
        half = halves[parts[0]]
        return Split(
            dataset="msmt17",
            name=name,
            task="reid",
            samples=[
                cropped(image, folders[half] / image, person, cameras[image]) for part in parts for image, person in lists[part]
            ],
            identities=tuple(f"{half}/{person:04d}" for person in range(people)),
        )

    return {
        "train": split("train", ["train"], 3),
        "val": split("val", ["val"], 3),
        "trainval": split("trainval", ["train", "val"], 3),
        "query": split("query", ["query"], 2),
        "gallery": split("gallery", ["gallery"], 2),
    }
