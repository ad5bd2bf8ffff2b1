"""Your own person search: scenes in COCO's JSON, with a `person_id` for each known person.

Annotations of a category other than 1, COCO's person, are left out. A `person_id` is a whole number or a text; without one,
or with null or a negative number, a person is unlabelled. Number 7 and text "7" are the same person. Training people and
test people are numbered separately, each in the order of their names. `iscrowd` and `ignore` mark regions to ignore. The
other fields are those of `pretrainps.data.coco_files`.

Each annotation in `query.json` is a query, in the order of the file. If its image is in `test.json` too, the record comes
from that file, with all its people. Without `query.json`, the first box of each person in two or more test images is a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pretrainps.data.annotated import note_left_out
from pretrainps.data.coco_files import CocoBox, CocoImage, read_coco
from pretrainps.data.layout import Layout
from pretrainps.data.listing import Listing
from pretrainps.data.records import UNLABELLED, Ids, Query, Sample, SearchSet, Split, from_xywh, number
from pretrainps.errors import DatasetError


def _annotations(root: Path, part: str) -> Path:
    return root / "annotations" / f"{part}.json"


def _recognize(root: Path) -> bool:
    train, val, test = (_annotations(root, part).is_file() for part in ("train", "val", "test"))
    return test or (train and not val)  # PoseTrack21 has val.json next to train.json


def _read_split(root: Path, split: str) -> Split:
    if split == "test":
        return _read_test(root)[0]
    images = read_coco(LAYOUT.wants(_annotations(root, split)), category=1)
    return _split(root, split, images, _identities(images))


def _read_test(root: Path) -> tuple[Split, Sequence[CocoImage]]:
    """Return the gallery, and the images of the queries if a file lists them. Both share one numbering of people."""
    images = read_coco(LAYOUT.wants(_annotations(root, "test")), category=1)
    queries = read_coco(_annotations(root, "query"), category=1) if _annotations(root, "query").is_file() else []
    return _split(root, "test", images, _identities([*images, *queries])), queries


def _read_search_set(root: Path) -> SearchSet:
    gallery, images = _read_test(root)
    path = _annotations(root, "query")
    queries = _queries(root, gallery, images) if path.is_file() else _chosen(gallery)
    if not queries:
        raise DatasetError(
            f"{path} names no query." if path.is_file() else f"No person is in two images of {_annotations(root, 'test')}."
        )
    return SearchSet(gallery=gallery, queries=queries)


def _split(root: Path, split: str, images: Sequence[CocoImage], identities: Mapping[str, int]) -> Split:
    paths = _locate(root, images, _annotations(root, split))
    found = [image.sample(path, ids=_ids(image, identities)) for image, path in zip(images, paths, strict=True)]
    return Split(
        dataset=LAYOUT.name,
        name=split,
        task="search",
        samples=[sample for sample, _ in found],
        identities=tuple(identities),
        notes=note_left_out(sum(without_area for _, without_area in found)),
    )


def _locate(root: Path, images: Sequence[CocoImage], of: Path) -> list[Path]:
    """Return the images' files: `file_name` is relative to `images`, or to the root."""
    listing = Listing()
    paths = []
    for image in images:
        inner, outer = root / "images" / image.file_name, root / image.file_name
        paths.append(outer if inner not in listing and outer in listing else inner)
    listing.require(paths, of=str(of))
    return paths


def _identities(images: Iterable[CocoImage]) -> dict[str, int]:
    people = {person for image in images for box in image.boxes if _counts(box) and (person := _person(box)) is not None}
    return number(sorted(people, key=_in_order))


def _in_order(name: str) -> tuple[bool, int, str]:
    """Return a sort key: first numbers by value, then texts."""
    return not name.isdecimal(), len(name.lstrip("0")) if name.isdecimal() else 0, name.lstrip("0") or name


def _counts(box: CocoBox) -> bool:
    """Whether it becomes a box of a record."""
    return box.is_person and box.xywh[2] > 0 and box.xywh[3] > 0


def _person(box: CocoBox) -> str | None:
    value = box.record.get("person_id")
    if value is None or (type(value) is int and value < 0) or (isinstance(value, str) and re.fullmatch(r"-\d+", value)):
        return None
    if type(value) is not int and not (isinstance(value, str) and value):
        raise DatasetError(f"{box.where}: 'person_id' must be a whole number, a text or null, not {value!r}.")
    return str(value)


def _ids(image: CocoImage, identities: Mapping[str, int]) -> Ids:
    people = [_person(box) if _counts(box) else None for box in image.boxes]
    return np.array([UNLABELLED if person is None else identities[person] for person in people], dtype=np.int64)


def _queries(root: Path, gallery: Split, images: Sequence[CocoImage]) -> list[Query]:
    in_gallery = {sample.name: sample for sample in gallery.samples}
    identities = {name: index for index, name in enumerate(gallery.identities)}
    queries: dict[int, Query] = {}
    for image, path in zip(images, _locate(root, images, _annotations(root, "query")), strict=True):
        sample = in_gallery.get(image.name) or image.sample(path, ids=_ids(image, identities))[0]
        for box in image.boxes:
            person = _person(box)
            if person is None or not _counts(box):
                raise DatasetError(
                    f"{box.where}: a query needs a 'person_id' and a 'bbox' with width and height, and must not be ignored."
                )
            queries[box.position] = Query(sample=sample, box=from_xywh(box.xywh)[0], id=identities[person])
    return [query for _, query in sorted(queries.items())]


def _chosen(gallery: Split) -> list[Query]:
    first: dict[int, tuple[int, Sample, int]] = {}
    twice: set[int] = set()
    for position, sample in enumerate(gallery.samples):
        for row, identity in enumerate(sample.ids.tolist()):
            if identity != UNLABELLED and first.setdefault(identity, (position, sample, row))[0] != position:
                twice.add(identity)
    return [
        Query(sample=sample, box=sample.boxes[row], id=identity)
        for identity, (_, sample, row) in sorted(first.items(), key=lambda item: item[0])
        if identity in twice
    ]


LAYOUT = Layout(
    name="coco_search",
    title="Your own person search in COCO's JSON",
    task="search",
    splits=("train", "test"),
    tree="""\
ROOT/annotations/train.json
ROOT/annotations/test.json
ROOT/annotations/query.json   (may be missing: queries are then chosen)
ROOT/images/...   (where each `file_name` counts from; or from ROOT)
""",
    recognize=_recognize,
    read_split=_read_split,
    read_search_set=_read_search_set,
    terms="your own",
)
