"""WiderPerson: dense crowds in many kinds of scene.

Zhang et al., "WiderPerson: A Diverse Dataset for Dense Pedestrian Detection in the Wild", TMM 2020. Pedestrians (1), riders
(2) and partly visible people (3) are people, as in the usual training on it. Regions to ignore (4) and crowds (5) are
ignored. The labels of the test images are not published.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pretrainps.data.annotated import annotated, note_left_out
from pretrainps.data.json_files import is_coordinate
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.records import Split, as_boxes
from pretrainps.data.text_files import read_lines
from pretrainps.errors import DatasetError

PEOPLE = frozenset({1, 2, 3})
IGNORED = frozenset({4, 5})


def _recognize(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "Images").is_dir() and (root / "train.txt").is_file()


def _read_split(root: Path, split: str) -> Split:
    path = LAYOUT.wants(root / f"{split}.txt")
    images, annotations = LAYOUT.wants(root / "Images"), LAYOUT.wants(root / "Annotations")
    names = [name for _, name in read_lines(path)]
    if len(set(names)) < len(names):
        raise DatasetError(f"{path}: {Counter(names).most_common(1)[0][0]} is listed more than once.")
    listing = Listing()
    listing.require([images / f"{name}.jpg" for name in names], of=str(path))
    listing.require([annotations / f"{name}.jpg.txt" for name in names], of=str(path))
    samples = []
    empty = 0
    for name in names:
        rows = _rows(annotations / f"{name}.jpg.txt")
        sample, without_area = annotated(
            name=name,
            image=images / f"{name}.jpg",
            boxes=as_boxes([row[1:] for row in rows]),
            is_person=[row[0] in PEOPLE for row in rows],
        )
        samples.append(sample)
        empty += without_area
    return Split(dataset=LAYOUT.name, name=split, task="detection", samples=samples, notes=note_left_out(empty))


def _rows(path: Path) -> list[list[int]]:
    """Return the class and the corners of each box; the first line is the number of boxes."""
    lines = list(read_lines(path))
    rows = [_whole_numbers(where, line, 5 if index else 1) for index, (where, line) in enumerate(lines)]
    if not rows or rows[0][0] != len(rows) - 1:
        said = f"says {rows[0][0]} boxes, but {len(rows) - 1} follow" if rows else "the number of boxes is missing"
        raise DatasetError(f"{path}, line 1: {said}. Is the file cut off? Fetch it again.")
    for (where, _), row in zip(lines[1:], rows[1:], strict=True):
        if row[0] not in PEOPLE | IGNORED:
            raise DatasetError(f"{where}: there is no class {row[0]}. Classes are 1 to 5.")
    return rows[1:]


def _whole_numbers(where: str, line: str, count: int) -> list[int]:
    try:
        row = [int(number) for number in line.split()]
    except ValueError:
        row = []
    if len(row) != count or not all(map(is_coordinate, row)):
        wanted = "the number of boxes" if count == 1 else "class x1 y1 x2 y2"
        raise DatasetError(f"{where}: expected {wanted} in whole numbers, not {line[:60]!r}.")
    return row


LAYOUT = Layout(
    name="widerperson",
    title="WiderPerson",
    task="detection",
    splits=("train", "val"),
    tree="""\
ROOT/Images/000040.jpg ...
ROOT/Annotations/000040.jpg.txt ...
ROOT/train.txt
ROOT/val.txt
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={"train": Counts(images=8_000), "val": Counts(images=1_000)},
    terms="research only, after filling in a form",
)
