"""PRW, "Person Re-identification in the Wild": six cameras on a campus; Zheng et al., CVPR 2017.

Coordinates become whole pixels as in the readers of the torchvision family (`prw.py` of github.com/serend1p1ty/SeqNet), since
published numbers are measured with them. Annotated boxes are first moved into the image, then get their right and lower
edges, and are then truncated. Boxes of queries first get their edges, and are then truncated and moved. The two differ for
negative coordinates.

Three queries (c5s2_042630, c5s2_082752 and c5s2_120599) are one pixel wider than their annotation. They are not changed,
because the original protocol uses them as they are; `Split.notes` counts such queries.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.annotated import note_left_out
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.matlab import cells, load_matlab, numbers, text, within
from pretrainps.data.records import UNLABELLED, Boxes, Query, Sample, SearchSet, Split, are_coordinates, as_boxes
from pretrainps.data.text_files import read_lines
from pretrainps.errors import DatasetError

_VARIABLES = ("box_new", "anno_file", "anno_previous")
"""Names of the boxes' variable in an annotation file, that of the corrected boxes first."""
_LISTS = {"train": ("frame_train.mat", "img_index_train"), "test": ("frame_test.mat", "img_index_test")}
_CAMERA = re.compile(r"c(\d{1,9})s\d")

_Rows = NDArray[np.float64]


def recognize(root: Path) -> bool:
    """Whether a root holds PRW's lists of frames."""
    return any((root / file).is_file() for file, _ in _LISTS.values())


def read_split(root: Path, split: str) -> Split:
    """Read the frames of a split in the order of its list; identities are in the order of their numbers."""
    file, variable = _LISTS[split]
    path = LAYOUT.wants(root / file)
    with within(path):
        names = [_file_name(text(cell)) for cell in cells(load_matlab(path, variable))]
    people, left_out = _read_people(root, names, of=path)
    identities = sorted({int(person) for rows in people for person in rows[:, 0] if person >= 0})
    index = {person: place for place, person in enumerate(identities)}
    return Split(
        dataset=LAYOUT.name,
        name=split,
        task="search",
        samples=[_sample(root, name, rows, index) for name, rows in zip(names, people, strict=True)],
        identities=tuple(map(str, identities)),
        notes=note_left_out(left_out),
    )


def read_search_set(root: Path) -> SearchSet:
    """Read the gallery and the queries; a query's person who is in no frame of the gallery gets a further identity."""
    gallery = read_split(root, "test")
    samples = {sample.name: sample for sample in gallery.samples}
    index = {int(name): place for place, name in enumerate(gallery.identities)}
    path = LAYOUT.wants(root / "query_info.txt")
    rows = _read_queries(path)
    others = list(dict.fromkeys(name for _, name, _ in rows if name not in samples))
    for person in sorted({person for person, _, _ in rows}.difference(index)):
        index[person] = len(index)
    people, _ = _read_people(root, others, of=path)
    samples |= {name: _sample(root, name, rows, index) for name, rows in zip(others, people, strict=True)}
    queries = [Query(sample=samples[name], box=box, id=index[person]) for person, name, box in rows]
    apart = sum(not _annotated(query) for query in queries)
    note = f"{apart} queries differ from the box in their frame's annotation, and are used as they are"
    notes = (*gallery.notes, note) if apart else gallery.notes
    return SearchSet(gallery=replace(gallery, identities=tuple(map(str, index)), notes=notes), queries=queries)


def _read_people(root: Path, names: list[str], *, of: Path) -> tuple[list[_Rows], int]:
    """Return rows (person, x1, y1, x2, y2) of each frame, and the number of boxes without area that were left out."""
    frames, annotations = LAYOUT.wants(root / "frames"), LAYOUT.wants(root / "annotations")
    there = Listing()
    there.require([frames / name for name in names], of=str(of))
    there.require([annotations / f"{name}.mat" for name in names], of=str(of))
    found, left_out = [], 0
    for name in names:
        path = annotations / f"{name}.mat"
        with within(path):
            rows = numbers(load_matlab(path, *_VARIABLES), 5)
            _check(rows)
        rows[:, 1:] = rows[:, 1:].clip(min=0)
        rows[:, 3:] += rows[:, 1:3]
        rows = np.trunc(rows)
        has_area = (rows[:, 3:] > rows[:, 1:3]).all(axis=1)
        found.append(rows[has_area])
        left_out += int((~has_area).sum())
    return found, left_out


def _check(rows: _Rows) -> None:
    for number, row in enumerate(rows, start=1):
        if not are_coordinates(row):
            raise DatasetError(f"row {number} is {row.tolist()}, which is no person and no box.")
        if row[0] != int(row[0]):
            raise DatasetError(f"row {number} has the id {row[0]}, which is no whole number.")


def _sample(root: Path, name: str, rows: _Rows, index: dict[int, int]) -> Sample:
    """Return a frame's record; -2 is a person of uncertain identity."""
    return Sample(
        name=name,
        image=root / "frames" / name,
        boxes=as_boxes(rows[:, 1:]),
        ids=np.array([index.get(int(person), UNLABELLED) for person in rows[:, 0]], dtype=np.int64),
        camera=_camera(name),
    )


def _read_queries(path: Path) -> list[tuple[int, str, Boxes]]:
    """Return the person, frame and box of each line."""
    found = []
    for where, line in read_lines(path):
        try:
            person, left, top, width, height, name = line.split()
            box = np.array([float(left), float(top), float(left) + float(width), float(top) + float(height)])
            if not are_coordinates(box):
                raise ValueError("a coordinate is not finite, or too far out")
            found.append((int(person), _file_name(name), np.trunc(box).clip(min=0).astype(np.float32)))
        except ValueError as error:
            raise DatasetError(f"{where}: {line!r} is not person, left, top, width, height, frame ({error}).") from error
    if not found:
        raise DatasetError(f"{path} holds no query.")
    return found


def _annotated(query: Query) -> bool:
    same = query.sample.ids == query.id
    return bool((query.sample.boxes[same] == query.box).all(axis=1).any())


def _file_name(name: str) -> str:
    return name.removesuffix(".jpg") + ".jpg"


def _camera(name: str) -> int:
    found = _CAMERA.match(name)
    if found is None:
        raise DatasetError(f"the name of the frame {name!r} does not say which camera it is of, as in c1s1_000151.jpg.")
    return int(found[1])


LAYOUT = Layout(
    name="prw",
    title="PRW",
    task="search",
    splits=("train", "test"),
    tree="""\
PRW-v16.04.20/
    frames/c1s1_000151.jpg ...
    annotations/c1s1_000151.jpg.mat ...
    frame_train.mat
    frame_test.mat
    query_info.txt""",
    recognize=recognize,
    read_split=read_split,
    read_search_set=read_search_set,
    counts={
        "train": Counts(images=5_704, boxes=18_048, labelled=14_907, identities=483, cameras=6),
        "test": Counts(images=6_112, boxes=25_062, labelled=19_127, identities=544, cameras=6),
    },
    terms="For research; no licence is given.",
    shares_people_with=("market1501",),
)
