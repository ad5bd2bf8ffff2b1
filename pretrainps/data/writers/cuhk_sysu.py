"""Write any records in the layout of CUHK-SYSU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.matlab import cell_array, save_matlab, struct_array
from pretrainps.data.records import UNLABELLED, Boxes, SearchSet, Split
from pretrainps.data.writers.pictures import write_picture
from pretrainps.errors import ArgumentError

XYWH = tuple[int, int, int, int]
Place = tuple[str, XYWH]
"""An image, and a box in it."""
_IN_GALLERY = ("imname", "idlocate", "ishard")


@dataclass(frozen=True, slots=True)
class Search:
    """A row of a test list."""

    person: str
    query: Place
    gallery: Sequence[tuple[str, XYWH | None]]
    """Images and the person's box in each, those with the person first."""


def write(root: Path, train: Split, search: SearchSet) -> None:
    """Write records so that readers of CUHK-SYSU return them.

    The layout has no cameras and no regions to ignore, and in the gallery only the queries' people have an identity: the rest
    is lost. Images keep their names if all end in .jpg and none is both in training and gallery; else all are named s00001.jpg,
    s00002.jpg and so on.

    Args:
        root: The folder to write to.
        train: Training images.
        search: Gallery, one query for each person, and for each TestG file one list for each query.

    Raises:
        ArgumentError: the layout cannot hold the records.
    """
    images, people, searches = as_rows(train, search)
    pictures = [*train.samples, *search.gallery.samples]
    for name, sample in zip(images, pictures, strict=True):
        write_picture(sample, root / "Image/SSM" / name)
    pool = list(images)[len(train.samples) :]
    write_images(root / "annotation/Images.mat", images)
    write_pool(root / "annotation/pool.mat", pool)
    write_people(root / "annotation/test/train_test/Train.mat", people)
    for size, rows in searches.items():
        write_searches(root / f"annotation/test/train_test/TestG{size}.mat", f"TestG{size}", rows)


def as_rows(
    train: Split, search: SearchSet
) -> tuple[dict[str, list[XYWH]], list[tuple[str, list[Place]]], dict[int, list[Search]]]:
    """Return the rows of the files: images of training and gallery, training people, and searches of each size.

    Raises:
        ArgumentError: the layout cannot hold the records.
    """
    pictures = [*train.samples, *search.gallery.samples]
    names = _file_names([sample.name for sample in pictures])
    in_training, in_gallery = names[: len(train.samples)], names[len(train.samples) :]
    if not search.lists:
        raise ArgumentError("the layout takes the people of a gallery from its lists. Give SearchSet.lists.")
    if len({query.id for query in search.queries}) != len(search.queries):
        raise ArgumentError("the layout has one query for each person, but one person has two.")
    people: list[tuple[str, list[Place]]] = [(person, []) for person in train.identities]
    for name, sample in zip(in_training, train.samples, strict=True):
        for box, person in zip(sample.boxes, sample.ids, strict=True):
            if person != UNLABELLED:
                people[person][1].append((name, _xywh(box, name)))
    place = {sample.name: name for sample, name in zip(search.gallery.samples, in_gallery, strict=True)}
    searches: dict[int, list[Search]] = {}
    for size, lists in search.lists.items():
        searches[size] = []
        for query, entries in zip(search.queries, lists, strict=True):
            if query.sample.name not in place:
                raise ArgumentError(f"the query's image {query.sample.name!r} must be in the gallery.")
            shown = place[query.sample.name]
            listed = [in_gallery[frame] for frame in entries.frames]
            gallery = [
                (name, None if np.isnan(box).any() else _xywh(box, name))
                for name, box in zip(listed, entries.boxes, strict=True)
            ]
            person = search.gallery.identities[query.id]
            searches[size].append(Search(person, (shown, _xywh(query.box, shown)), gallery))
    images = {name: [_xywh(box, name) for box in sample.boxes] for name, sample in zip(names, pictures, strict=True)}
    return images, people, searches


def write_images(path: Path, images: Mapping[str, Sequence[XYWH | None]]) -> None:
    """Write Images.mat; a box that is `None` becomes an empty cell."""
    rows = [
        (name, len(boxes), struct_array(("idlocate", "ishard"), [(pixels(box), 0) for box in boxes]))
        for name, boxes in images.items()
    ]
    save_matlab(path, "Img", struct_array(("imname", "nAppear", "box"), rows))


def write_pool(path: Path, names: Iterable[str]) -> None:
    """Write the names of the gallery's images."""
    save_matlab(path, "pool", cell_array(list(names), column=True))


def write_people(path: Path, people: Iterable[tuple[str, Sequence[Place]]]) -> None:
    """Write Train.mat: a cell of structs."""
    structs = [
        struct_array(
            ("idname", "nAppear", "scene"),
            [(name, len(places), struct_array(_IN_GALLERY, [(image, pixels(box), 0) for image, box in places]))],
        )
        for name, places in people
    ]
    save_matlab(path, "Train", cell_array(structs, column=True))


def write_searches(path: Path, variable: str, rows: Iterable[Search]) -> None:
    """Write a test list."""
    nothing = np.zeros((0, 0))
    structs = []
    for row in rows:
        image, box = row.query
        query = struct_array((*_IN_GALLERY, "idname"), [(image, pixels(box), 0, row.person)])
        entries = [(name, pixels(place), nothing if place is None else 0) for name, place in row.gallery]
        structs.append((query, struct_array(_IN_GALLERY, entries)))
    save_matlab(path, variable, struct_array(("Query", "Gallery"), structs))


def pixels(box: XYWH | None) -> NDArray[np.generic]:
    """Return a box as MATLAB stores it: in the smallest type that holds it, unsigned if possible."""
    if box is None:
        return np.zeros((0, 0))
    return np.asarray([box]).astype(np.result_type(*map(np.min_scalar_type, box)))


def _xywh(box: Boxes, name: str) -> XYWH:
    x1, y1, x2, y2 = box.tolist()
    if not all(value.is_integer() for value in (x1, y1, x2, y2)):
        raise ArgumentError(f"{name}: the layout holds whole pixels, but a box is {box.tolist()}.")
    return int(x1), int(y1), int(x2 - x1), int(y2 - y1)


def _file_names(names: Sequence[str]) -> list[str]:
    fit = all(name.endswith(".jpg") and PurePath(name).name == name for name in names)
    if fit and len(set(names)) == len(names):
        return list(names)
    return [f"s{number:05d}.jpg" for number in range(1, len(names) + 1)]
