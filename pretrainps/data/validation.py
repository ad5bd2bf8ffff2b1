"""Count the contents of a split, compare the counts with the published ones, and find broken images and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.records import UNLABELLED, Sample, SearchSet, Split
from pretrainps.errors import DatasetError, ImageError
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DatasetCheck:
    """What a data set on disk holds."""

    layout: Layout
    """What the data set is."""
    splits: tuple[Split, ...]
    """The splits that can be read,"""
    checks: tuple[SplitCheck, ...]
    """and what each of them holds."""
    search: SearchSet | None
    """Queries and gallery, if the data set has any and they can be read."""
    unreadable: tuple[tuple[str, DatasetError], ...]
    """Splits, and "search", that cannot be read, with the reason."""

    @property
    def is_whole(self) -> bool:
        """Whether everything can be read and nothing is broken."""
        return not self.unreadable and not any(check.problems for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        search = self.search and {
            "queries": len(self.search.queries),
            "gallery": len(self.search.gallery),
            "lists": sorted(self.search.lists),
        }
        return {
            "layout": self.layout.name,
            "splits": [check.to_json() for check in self.checks],
            "search": search,
            "unreadable": {name: str(reason) for name, reason in self.unreadable},
        }


def check_dataset(
    root: Path | str,
    layout: Layout,
    splits: Sequence[str] = (),
    *,
    decode: bool = False,
    force: bool = False,
    progress: bool = False,
) -> DatasetCheck:
    """Look at every image of a data set, split by split; a split that cannot be read does not hide the others.

    Args:
        root: The data set's folder.
        layout: What it is.
        splits: Which splits; by default all that together are the data set.
        decode: See `check_split`.
        force: Read a data set that its owners have withdrawn.
        progress: Whether to show bars.

    Raises:
        DatasetError: no split can be read.
    """
    read: dict[str, Split] = {}
    unreadable: list[tuple[str, DatasetError]] = []
    for name in splits or layout.main_splits:
        try:
            read[name] = layout.read(root, name, force=force)
        except DatasetError as error:
            unreadable.append((name, error))
    if not read:
        raise unreadable[0][1]
    checks = [check_split(each, layout.counts.get(name), decode=decode, progress=progress) for name, each in read.items()]
    search = None
    if layout.read_search_set is not None and "test" in read:
        try:
            search = layout.read_search(root, force=force)
        except DatasetError as error:
            unreadable.append(("search", error))
    return DatasetCheck(
        layout=layout, splits=tuple(read.values()), checks=tuple(checks), search=search, unreadable=tuple(unreadable)
    )


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
