"""Write any records in the layout of Market-1501."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.layouts.market1501 import FOLDERS
from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError


def write(root: Path, splits: Sequence[Split]) -> None:
    """Write crops as Market-1501's splits of the same names.

    People keep names that are numbers from 1, and images keep their names if all names of a split fit the layout. Otherwise
    identity 0 is named 0001, and images are numbered. The reader returns the same images, people and cameras, in the order of
    the images' names; people without an image are not numbered.

    Raises:
        ArgumentError: a record does not show exactly one person, or has no camera.
    """
    for split in splits:
        numbered = all(person.isdecimal() and int(person) > 0 for person in split.identities)
        people = split.identities if numbered else tuple(f"{identity + 1:04d}" for identity in range(len(split.identities)))
        starts = [_start(sample, people) for sample in split.samples]
        names = [sample.name for sample in split.samples]
        if not all(name.startswith(start) and name.endswith(".jpg") for name, start in zip(names, starts, strict=True)):
            names = [f"{start}{index:06d}_00.jpg" for index, start in enumerate(starts)]
        for sample, name in zip(split.samples, names, strict=True):
            write_picture(sample, root / FOLDERS[split.name] / name)


def _start(sample: Sample, people: Sequence[str]) -> str:
    """Return the first part of the name of a record's file: person and camera."""
    if len(sample.ids) != 1 or sample.camera is None:
        raise ArgumentError(f"{sample.name}: Market-1501 needs exactly one person in each image, and its camera.")
    person = "0000" if sample.ids[0] == UNLABELLED else people[sample.ids[0]]
    return f"{person}_c{sample.camera}s1_"
