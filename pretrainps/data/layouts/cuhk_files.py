"""The .mat files of CUHK-SYSU and MovieNet-PS: the boxes of all images, and lists that name people.

One file holds the boxes of every image, without names. The training list, and test lists with one query and its gallery in a
row, repeat the boxes of the people that they name. A box belongs to a person if that person's list has exactly its four
numbers. The original readers work so too (`psdb.py` of github.com/ShuangLI59/person_search, `cuhk_sysu.py` of
github.com/serend1p1ty/SeqNet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.annotated import note_left_out
from pretrainps.data.listing import Listing
from pretrainps.data.matlab import cells, load_matlab, numbers, record, records, text, within
from pretrainps.data.records import (
    UNLABELLED,
    Boxes,
    GalleryList,
    Query,
    Sample,
    SearchSet,
    Split,
    are_coordinates,
    from_xywh,
    number,
)
from pretrainps.errors import DatasetError

XYWH = tuple[int, int, int, int]


class Scenes:
    """The boxes of all images, with the identities of the lists that were entered so far.

    Args:
        path: The file Images.mat.
        folder: The folder of the images.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self._boxes: dict[str, list[XYWH]] = {}
        self._ids: dict[str, list[int]] = {}
        self._without_area: dict[str, int] = {}
        self._unknown = 0
        self._renamed = 0
        with within(path):
            images = records(load_matlab(path, "Img"), 3)
        for row, (name, _, people, *_) in enumerate(images, start=1):
            with within(f"{path}, image {row}"):
                self._enter(text(name), [_xywh(person[0]) for person in records(people, 1)])

    def _enter(self, name: str, boxes: list[XYWH | None]) -> None:
        kept = [box for box in boxes if box is not None and box[2] > 0 and box[3] > 0]
        self._boxes[name] = kept
        self._ids[name] = [UNLABELLED] * len(kept)
        self._without_area[name] = len(boxes) - len(kept)

    @property
    def names(self) -> Iterable[str]:
        """Names of all images, in the order of the file."""
        return self._boxes.keys()

    def label(self, image: str, box: XYWH, person: int) -> None:
        """Set the identity of a box; of several equal boxes in an image, that of the first.

        Raises:
            DatasetError: there is no such image.
        """
        if image not in self._boxes:
            raise DatasetError(f"image {image!r} is not in {self.path}.")
        if box not in self._boxes[image]:
            self._unknown += 1
            return
        ids, place = self._ids[image], self._boxes[image].index(box)
        self._renamed += ids[place] not in (UNLABELLED, person)
        ids[place] = person

    def sample(self, name: str) -> Sample:
        """Return an image with its people.

        Raises:
            DatasetError: there is no such image.
        """
        if name not in self._boxes:
            raise DatasetError(f"image {name!r} is not in {self.path}.")
        return Sample(
            name=name,
            image=self.folder / name,
            boxes=from_xywh(self._boxes[name]),
            ids=np.array(self._ids[name], dtype=np.int64),
        )

    def notes(self, samples: Iterable[Sample]) -> tuple[str, ...]:
        """Return notes on boxes that were left out of some images, and on faults of the lists."""
        problems = (
            (self._unknown, f"boxes of the lists are not in {self.path.name} and are not used"),
            (self._renamed, "boxes have two people's names in the lists: the later one counts"),
        )
        return (
            *note_left_out(sum(self._without_area[sample.name] for sample in samples)),
            *(f"{count} {what}" for count, what in problems if count),
        )


@dataclass(frozen=True, slots=True)
class _Search:
    """A row of a test list: a person, and the images to search."""

    image: str
    box: XYWH
    person: str
    names: list[str]
    boxes: list[XYWH | None]


def read_names(path: Path, variable: str) -> list[str]:
    """Return a cell of image names.

    Raises:
        DatasetError: the file is missing or damaged, or holds something else.
    """
    with within(path):
        return [text(cell) for cell in cells(load_matlab(path, variable))]


def read_people(scenes: Scenes, path: Path, rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[str, ...], list[str]]:
    """Label the boxes of a training list with rows (name, number of images, images).

    Returns:
        The names of the people, by identity, which is the number of the row; and the images, in the order of the list, each
        once.

    Raises:
        DatasetError: it is damaged, or names an image that is not among the scenes.
    """
    people: list[str] = []
    images: dict[str, None] = {}
    for person, (name, _, appearances, *_) in enumerate(rows):
        with within(f"{path}, person {person + 1}"):
            people.append(text(name) or str(person + 1))
            for image, place, *_ in records(appearances, 2):
                images[text(image)] = None
                scenes.label(text(image), _known(_xywh(place)), person)
    return tuple(people), list(images)


def read_search_set(scenes: Scenes, pool: Sequence[str], files: Mapping[int, tuple[Path, str]], *, dataset: str) -> SearchSet:
    """Read test lists. The lists of the smallest galleries name the people; the others are read on first use.

    Args:
        scenes: All images, without identities so far.
        pool: Names of the gallery's images.
        files: Gallery size -> file and name of the variable.
        dataset: Name of the layout.

    Raises:
        DatasetError: a list is damaged, or names an image that is not in the pool or not among the scenes.
    """
    places = number(pool)
    smallest = min(files)
    people, shown, lists = [], [], []
    for person, row in enumerate(_searches(*files[smallest])):
        with within(f"{files[smallest][0]}, row {person + 1}"):
            scenes.label(row.image, row.box, person)
            for image, box in zip(row.names, row.boxes, strict=True):
                if box is None:
                    break  # images with the person come first; the original reader stops here too
                scenes.label(image, box, person)
            people.append(row.person or str(person + 1))
            shown.append((row.image, from_xywh([row.box])[0]))
            lists.append(_gallery_list(row, places))
    samples = [scenes.sample(name) for name in places]
    gallery = Split(
        dataset=dataset,
        name="test",
        task="search",
        samples=samples,
        identities=tuple(people),
        notes=scenes.notes(samples),
    )
    queries = [_query(scenes, samples, places, image, box, person) for person, (image, box) in enumerate(shown)]

    def read(size: int) -> list[GalleryList]:
        return lists if size == smallest else _lists(*files[size], places=places, queries=queries)

    return SearchSet(gallery=gallery, queries=queries, lists=GalleryLists(sorted(files), read))


def require_images(samples: Iterable[Sample], *, of: Path) -> None:
    """Check that the files of all images exist.

    Raises:
        DatasetError: some do not exist; the message names the first and their number.
    """
    images = dict.fromkeys(sample.image for sample in samples if isinstance(sample.image, Path))
    Listing().require(list(images), of=str(of))


class GalleryLists(Mapping[int, Sequence[GalleryList]]):
    """Gallery size -> one list for each query; a file is read on the first use of its size.

    The file of 4,000 images for each query has eleven million entries: scipy needs minutes and over ten gigabytes for it.
    """

    def __init__(self, sizes: Sequence[int], read: Callable[[int], Sequence[GalleryList]]) -> None:
        self._sizes = sizes
        self._read = read
        self._known: dict[int, Sequence[GalleryList]] = {}

    def __getitem__(self, size: int) -> Sequence[GalleryList]:
        if size not in self._sizes:
            raise KeyError(size)
        if size not in self._known:
            self._known[size] = self._read(size)
        return self._known[size]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def _lists(path: Path, variable: str, *, places: Mapping[str, int], queries: Sequence[Query]) -> list[GalleryList]:
    found = []
    for row, search in enumerate(_searches(path, variable)):
        with within(f"{path}, row {row + 1}"):
            if row >= len(queries) or queries[row].sample.name != search.image:
                raise DatasetError("its query is another one than in the list of the smallest galleries.")
            found.append(_gallery_list(search, places))
    if len(found) != len(queries):
        raise DatasetError(f"{path} has {len(found)} rows, but there are {len(queries)} queries.")
    return found


def _searches(path: Path, variable: str) -> Iterator[_Search]:
    with within(path):
        rows = records(load_matlab(path, variable), 2)
    for row, (query, gallery, *_) in enumerate(rows, start=1):
        with within(f"{path}, row {row}"):
            image, place, *rest = record(query, 2)
            entries = records(gallery, 2)
            search = _Search(
                image=text(image),
                box=_known(_xywh(place)),
                person=text(rest[1]) if len(rest) > 1 else "",
                names=[text(entry[0]) for entry in entries],
                boxes=[_xywh(entry[1]) for entry in entries],
            )
        yield search


def _gallery_list(search: _Search, places: Mapping[str, int]) -> GalleryList:
    unknown = next((name for name in search.names if name not in places), None)
    if unknown is not None:
        raise DatasetError(f"image {unknown!r} of the gallery is not in the pool of gallery images.")
    boxes: Boxes = np.full((len(search.names), 4), np.nan, dtype=np.float32)
    for entry, box in enumerate(search.boxes):
        if box is not None:
            boxes[entry] = from_xywh([box])[0]
    return GalleryList(frames=np.array([places[name] for name in search.names], dtype=np.int64), boxes=boxes)


def _query(scenes: Scenes, samples: Sequence[Sample], places: Mapping[str, int], image: str, box: Boxes, person: int) -> Query:
    sample = samples[places[image]] if image in places else scenes.sample(image)
    return Query(sample=sample, box=box, id=person)


def _xywh(value: Any) -> XYWH | None:
    """Return a box in whole pixels, truncated as in the original readers; an empty cell gives `None`."""
    if isinstance(value, np.ndarray) and value.size == 0:
        return None
    box = numbers(value)
    if len(box) != 4 or not are_coordinates(box):
        raise DatasetError(f"a box must be 4 numbers, not {box.tolist()}.")
    left, top, width, height = box.tolist()
    return int(left), int(top), int(width), int(height)


def _known(box: XYWH | None) -> XYWH:
    if box is None:
        raise DatasetError("a person without a box.")
    return box
