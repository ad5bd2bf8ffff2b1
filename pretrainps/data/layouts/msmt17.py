"""MSMT17: fifteen cameras on a campus, at all times of day.

Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018. Lists name the images and the
number of the person; the camera is the third part of a file's name. V2 is V1 with blurred faces, in folders of other names.

The numbers of the test people start at 0 again, so people are named `train/0000` and `test/0000`. Training and validation
images show the same people and share one numbering; so do queries and gallery. Published comparisons train on `train`;
`trainval` is the union of training and validation.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.layouts.market1501 import crop_sample
from pretrainps.data.listing import Listing, unpacked
from pretrainps.data.records import Split, number
from pretrainps.data.text_files import read_lines
from pretrainps.errors import DatasetError

LISTS = {
    "train": ("train",),
    "val": ("val",),
    "trainval": ("train", "val"),
    "query": ("query",),
    "gallery": ("gallery",),
}
"""The lists of each split."""

_NUMBER = re.compile(r"\d{1,9}")


class _Entry(NamedTuple):
    name: str
    path: Path
    person: str
    camera: int


def _root(root: Path) -> Path:
    return unpacked(root, "MSMT17_V1", "MSMT17_V2")


def _recognize(root: Path) -> bool:
    root = _root(root)
    folders = any((root / folder).is_dir() for folder in ("train", "mask_train_v2"))
    return folders and (root / "list_train.txt").is_file() and (root / "list_gallery.txt").is_file()


def _read_split(root: Path, split: str) -> Split:
    root = _root(root)
    half, together = ("train", ("train", "val")) if split in ("train", "val", "trainval") else ("test", ("query", "gallery"))
    blurred = root / f"mask_{half}_v2"
    folder = blurred if blurred.is_dir() else LAYOUT.wants(root / half)
    lists = {name: _read_list(LAYOUT.wants(root / f"list_{name}.txt"), folder, half) for name in together}
    identities = number(sorted({entry.person for entries in lists.values() for entry in entries}))
    listing = Listing()
    samples = []
    for name in LISTS[split]:
        listing.require([entry.path for entry in lists[name]], of=str(root / f"list_{name}.txt"))
        samples += [crop_sample(entry.name, entry.path, identities[entry.person], entry.camera) for entry in lists[name]]
    return Split(dataset=LAYOUT.name, name=split, task="reid", samples=samples, identities=tuple(identities))


def _read_list(path: Path, folder: Path, half: str) -> list[_Entry]:
    entries = []
    for where, line in read_lines(path):
        name, _, label = line.rpartition(" ")
        fields = name.split("_")
        if len(fields) < 4 or not (_NUMBER.fullmatch(fields[2]) and _NUMBER.fullmatch(label)):
            raise DatasetError(
                f"{where}: expected an image, with its camera as the third part of its name, and the number of a person, as in "
                f"'0000/0000_000_01_0303morning_0008_0.jpg 0', not {line[:80]!r}."
            )
        entries.append(_Entry(name, folder / name, f"{half}/{int(label):04d}", int(fields[2])))
    return entries


def _counts(images: int, identities: int, cameras: int | None = 15) -> Counts:
    return Counts(images=images, boxes=images, labelled=images, identities=identities, cameras=cameras)


LAYOUT = Layout(
    name="msmt17",
    title="MSMT17",
    task="reid",
    splits=tuple(LISTS),
    main_splits=("train", "val", "query", "gallery"),
    tree="""\
ROOT/train/0000/0000_000_01_0303morning_0008_0.jpg ...   (V2: mask_train_v2; ROOT may also be the folder that holds MSMT17_V1)
ROOT/test/0000/...   (V2: mask_test_v2; queries and gallery)
ROOT/list_train.txt
ROOT/list_val.txt
ROOT/list_query.txt
ROOT/list_gallery.txt
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={
        "train": _counts(30_248, 1_041),
        "val": _counts(2_373, 1_041, cameras=None),
        "trainval": _counts(32_621, 1_041),
        "query": _counts(11_659, 3_060),
        "gallery": _counts(82_161, 3_060),
    },
    terms="research only, after signing the release agreement",
)
