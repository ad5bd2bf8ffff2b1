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

    Names of people that are numbers from 1 stay, and so do the names of a split's images if all are as the layout wants them.
    Otherwise identity 0 is called 0001, and images are numbered. A reader returns the same pictures, people and cameras, in the
    order of the images' names; people without a picture are not numbered.

    Raises:
        ArgumentError: a record shows not one person, or does not say its camera.
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
    """Return what the name of a record's file starts with."""
    if len(sample.ids) != 1 or sample.camera is None:
        raise ArgumentError(f"{sample.name}: Market-1501 wants one person in each picture, and its camera.")
    person = "0000" if sample.ids[0] == UNLABELLED else people[sample.ids[0]]
    return f"{person}_c{sample.camera}s1_"
