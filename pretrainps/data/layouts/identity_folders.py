"""Your own images of people: a folder for each person.

A file's name may have the camera: `_c3` at its end, or before another `_`. The folders of training people are in the root, or
in `train`. A test needs `query` and `gallery`, where the same folder name means the same person.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pretrainps.data.layout import Layout
from pretrainps.data.layouts.market1501 import crop_sample, holds_market_family
from pretrainps.data.records import Split, number
from pretrainps.errors import DatasetError
from pretrainps.images.read import SUFFIXES

PARTS = ("train", "query", "gallery")

_CAMERA = re.compile(r"(?:^|_)c(\d{1,9})(?=s\d|_|$)")


def _recognize(root: Path) -> bool:
    if _is_parted(root):
        return any(_looks_like_people(root / part) for part in PARTS if (root / part).is_dir()) and not any(
            entry.suffix in (".txt", ".json", ".mat", ".odgt") for entry in root.iterdir()
        )
    return _looks_like_people(root) and not holds_market_family(root)


def _looks_like_people(folder: Path) -> bool:
    """Whether a folder holds two or more folders and nothing else, and the first of them hold images."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return len(entries) > 1 and all(entry.is_dir() for entry in entries) and all(_images(entry) for entry in entries[:8])


def _is_parted(root: Path) -> bool:
    return any((root / part).is_dir() for part in PARTS)


def _images(folder: Path) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]


def _read_split(root: Path, split: str) -> Split:
    parted = _is_parted(root)
    if split != "train" and not parted:
        raise DatasetError(f"{root} only holds people to train on; a test needs {root / 'query'} and {root / 'gallery'}.")
    together = ("train",) if split == "train" else ("query", "gallery")
    people = {part: _people(LAYOUT.wants(root / part) if parted else root) for part in together}
    identities = number(sorted({person for part in people.values() for person, names in part.items() if names}))
    folder = root / split if parted else root
    samples = []
    for person, names in people[split].items():
        for name in names:
            match = _CAMERA.search(os.path.splitext(name)[0])
            camera = None if match is None else int(match[1])
            samples.append(crop_sample(f"{person}/{name}", folder / person / name, identities[person], camera))
    empty = sum(not names for names in people[split].values())
    strays = len(_images(folder))
    return Split(
        dataset=LAYOUT.name,
        name=split,
        task="reid",
        samples=samples,
        identities=tuple(identities),
        notes=(
            *((f"{empty} folders without an image left out",) if empty else ()),
            *((f"{strays} images in no person's folder left out",) if strays else ()),
        ),
    )


def _people(folder: Path) -> dict[str, list[str]]:
    """Return the names of each person's images, in order."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return {name: _images(folder / name) for name in names}


LAYOUT = Layout(
    name="identity_folders",
    title="A folder of each person",
    task="reid",
    splits=PARTS,
    tree="""\
ROOT/<person>/<image> ...   (the image's name may have a camera: anna/monday_c3.jpg)
or, to test as well
ROOT/train/<person>/<image> ...
ROOT/query/<person>/<image> ...
ROOT/gallery/<person>/<image> ...
""",
    recognize=_recognize,
    read_split=_read_split,
    terms="your own",
)
