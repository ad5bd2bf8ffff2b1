"""Write any records in the layout of PRW."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.matlab import cell_array, save_matlab, save_variables
from pretrainps.data.records import UNLABELLED, Boxes, Sample, SearchSet, Split
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError

_FRAME = re.compile(r"c(\d+)s\d+_\d+\.jpg")
_IN_DOUBT = -2
QueryRow = tuple[int, float, float, float, float, str]
"""Person, left, top, width, height, and the frame's name without suffix."""


def write(root: Path, train: Split, search: SearchSet) -> None:
    """Write records so that readers of PRW return them.

    The layout has no regions to ignore, and boxes start within the image: parts to the left of it or above it are clipped.
    If not all identities are whole numbers, people are numbered: training people from 1, the queries' people after them.
    Frames keep their names if all have a camera like c1s1_000151.jpg; else all get such names.

    Args:
        root: The folder to write to.
        train: Training frames, each with its camera.
        search: Gallery and queries; the queries' frames must be in the gallery.

    Raises:
        ArgumentError: the layout cannot hold the records.
    """
    pictures = [*train.samples, *search.gallery.samples]
    names = _frame_names(pictures)
    for name, sample in zip(names, pictures, strict=True):
        write_picture(sample, root / "frames" / f"{name}.jpg")
    people = person_numbers(train.identities, search.gallery.identities)
    frames: dict[str, tuple[list[str], tuple[int, ...]]] = {
        "train": (names[: len(train)], people[: len(train.identities)]),
        "test": (names[len(train) :], people[len(train.identities) :]),
    }
    for split, part in (("train", train), ("test", search.gallery)):
        listed, numbers = frames[split]
        write_frames(root, split, listed)
        for name, sample in zip(listed, part.samples, strict=True):
            rows = [
                (_IN_DOUBT if person == UNLABELLED else numbers[person], *_xywh(box, sample.name))
                for box, person in zip(sample.boxes, sample.ids, strict=True)
            ]
            write_people(root, name, {"box_new": np.array(rows, dtype=np.float64).reshape(-1, 5)})
    listed, numbers = frames["test"]
    shown = {sample.name: name for name, sample in zip(listed, search.gallery.samples, strict=True)}
    queries: list[QueryRow] = []
    for query in search.queries:
        if query.sample.name not in shown:
            raise ArgumentError(f"the query's image {query.sample.name!r} must be in the gallery.")
        queries.append((numbers[query.id], *_xywh(query.box, query.sample.name), shown[query.sample.name]))
    write_queries(root, queries)


def write_frames(root: Path, split: str, names: Iterable[str]) -> None:
    """Write the list of the frames of a split ("train" or "test"), without suffixes."""
    save_matlab(root / f"frame_{split}.mat", f"img_index_{split}", cell_array(list(names), column=True))


def write_people(root: Path, name: str, variables: Mapping[str, Any]) -> None:
    """Write a frame's annotation: variables of rows (person, left, top, width, height)."""
    save_variables(root / "annotations" / f"{name}.jpg.mat", variables)


def write_queries(root: Path, rows: Iterable[QueryRow], *, newline: str = "\r\n") -> None:
    """Write query_info.txt."""
    lines = (" ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in row) for row in rows)
    (root / "query_info.txt").write_bytes("".join(line + newline for line in lines).encode())


def _frame_names(samples: Sequence[Sample]) -> list[str]:
    names = [sample.name for sample in samples]
    found: Any = [_FRAME.fullmatch(name) for name in names]
    cameras = [sample.camera for sample in samples]
    if len(set(names)) == len(names) and all(match and int(match[1]) == cam for match, cam in zip(found, cameras, strict=True)):
        return [name.removesuffix(".jpg") for name in names]
    if None in cameras:
        raise ArgumentError(f"{names[cameras.index(None)]}: the layout needs a frame's camera, but the record has none.")
    return [f"c{camera}s1_{place:06d}" for place, camera in enumerate(cameras, start=1)]


def person_numbers(train: Sequence[str], test: Sequence[str]) -> tuple[int, ...]:
    """Return people's numbers: their names if all are whole numbers; else numbers from 1, test people after training people."""
    if all(name.isdecimal() for name in (*train, *test)):
        return tuple(map(int, (*train, *test)))
    return tuple(range(1, len(train) + len(test) + 1))


def _xywh(box: Boxes, name: str) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = box.clip(min=0).tolist()
    if not all(value.is_integer() for value in (x1, y1, x2, y2)):
        raise ArgumentError(f"{name}: the layout holds whole pixels, but a box is {box.tolist()}.")
    return int(x1), int(y1), int(x2 - x1), int(y2 - y1)
