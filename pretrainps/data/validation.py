"""Count the contents of a split, compare the counts with the published ones, and find broken images and boxes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pretrainps.data.layout import Counts
from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.errors import ImageError
from pretrainps.images.read import read_image

_THREADS = 8
"""Number of threads that read files; they wait for disks more than they compute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCheck:
    """Counts and faults of a split."""

    split: str
    found: Counts
    published: Counts
    ignored: int
    """Regions to ignore."""
    alone: int
    """Identities with a single box, which no search can find again."""
    twice: int
    """Images in which one person has two boxes."""
    notes: tuple[str, ...]
    """What the reader left out or repaired."""
    problems: tuple[str, ...]
    """Broken images and boxes, one line each."""

    def differences(self) -> list[str]:
        """Return one line for each count that differs from the published one."""
        return [
            f"{getattr(self.found, name)} {name}, but {published} were published"
            for name, published in asdict(self.published).items()
            if published is not None and published != getattr(self.found, name)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all values in a form that JSON can hold."""
        return {**asdict(self), "differences": self.differences()}


def check_split(split: Split, published: Counts | None = None, *, decode: bool = False, progress: bool = False) -> SplitCheck:
    """Check every image of a split.

    Args:
        split: The split, from a reader.
        published: The published counts to compare with.
        decode: Whether to decode each image wholly, not only its header. This finds truncated files, and takes a minute for
        ten thousand photographs.
        progress: Whether to show a progress bar.
    """
    problems: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = pool.map(lambda sample: list(_problems(sample, decode)), split.samples)
        for found in tqdm(looked, total=len(split), desc=split.name, unit="image", disable=not progress):
            problems += found
    people = np.concatenate([sample.ids for sample in split.samples] or [np.zeros(0, np.int64)])
    labelled = people[people != UNLABELLED]
    boxes_of = np.unique(labelled, return_counts=True)[1]
    return SplitCheck(
        split=split.name,
        found=Counts(
            images=len(split),
            boxes=len(people),
            labelled=len(labelled),
            identities=len(boxes_of),
            cameras=len(split.cameras),
        ),
        published=published or Counts(),
        ignored=sum(len(sample.ignore) for sample in split.samples),
        alone=int((boxes_of == 1).sum()),
        twice=sum(_twice(sample) for sample in split.samples),
        notes=split.notes,
        problems=tuple(problems),
    )


def _twice(sample: Sample) -> bool:
    known = sample.ids[sample.ids != UNLABELLED]
    return len(np.unique(known)) < len(known)


def _problems(sample: Sample, decode: bool) -> Iterator[str]:
    try:
        height, width = _size(sample, decode)
    except ImageError as error:
        yield str(error)
        return
    if sample.size is not None and sample.size != (height, width):
        yield f"{sample.name}: the image is {width}x{height}, its annotation says {sample.size[1]}x{sample.size[0]}"
    for person, box in enumerate(sample.boxes):
        x1, y1, x2, y2 = box.tolist()
        if not (x2 > x1 and y2 > y1):
            yield f"{sample.name}: box {person} has no area: {box.tolist()}"
        elif x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            yield f"{sample.name}: box {person} is outside the {width}x{height} image: {box.tolist()}"


def _size(sample: Sample, decode: bool) -> tuple[int, int]:
    """Return height and width."""
    if not decode or not isinstance(sample.image, Path):
        return sample.true_size()
    picture = read_image(sample.image)
    return picture.height, picture.width
