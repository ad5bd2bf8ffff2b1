"""Write any records as folders of people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.layouts.identity_folders import PARTS
from pretrainps.data.records import Split
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError


def write(root: Path, splits: Sequence[Split]) -> None:
    """Write crops into folders with the names in `Split.identities`, in `train`, `query` and `gallery`.

    The reader returns the same images, people and cameras, in the order of the names in this layout.

    Raises:
        ArgumentError: a split has another name, or a record does not show exactly one person with an identity.
    """
    for split in splits:
        if split.name not in PARTS:
            raise ArgumentError(f"folders of people have the splits {', '.join(PARTS)}, not {split.name!r}.")
        counts: Counter[int] = Counter()
        for sample in split.samples:
            if len(sample.ids) != 1 or sample.ids[0] < 0:
                raise ArgumentError(f"{sample.name}: each image must show exactly one person with an identity.")
            identity = int(sample.ids[0])
            counts[identity] += 1
            camera = "" if sample.camera is None else f"_c{sample.camera}"
            name = f"{counts[identity]:06d}{camera}.jpg"
            write_picture(sample, root / split.name / split.identities[identity] / name)
