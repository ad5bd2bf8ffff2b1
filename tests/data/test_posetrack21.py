"""PoseTrack21: a miniature with every difficulty, random records, and broken sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data.layouts.posetrack21 import LAYOUT
from pretrainps.data.records import Query, SearchSet
from pretrainps.data.writers import posetrack21 as writer
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures.posetrack21 import write_miniature
from tests.support.search_records import search_records, searched, shown

CLIP = "images/train/000001_bonn_train/"
HALL = "images/val/000342_mpii_test/"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "set")
    return tmp_path / "set"


def frame(part: str, number: int, camera: int) -> str:
    return f"images/{part}/{camera:06d}_film/{number:06d}.jpg"


@pytest.mark.parametrize("folder", ["posetrack_person_search", "annotations", "annotations/posetrack_person_search"])
def test_the_miniature(tmp_path: Path, folder: str) -> None:
    write_miniature(tmp_path, folder=folder)
    assert LAYOUT.recognize(tmp_path)
    train = LAYOUT.read(tmp_path, "train")
    assert shown(train) == [
        (f"{CLIP}000008.jpg", [([-3, 2, 12, 30], "1024"), ([40, 2, 130, 90], "77")]),
        (f"{CLIP}000000.jpg", [([1, 2, 11, 22], "77"), ([13, 2, 23, 22], "1024")]),
        ("images/train/000002_mpii_train/000000.jpg", [([5, 5, 15, 25], "77"), ([25, 5, 35, 25], "77")]),
    ]
    assert train.identities == ("1024", "77") and [sample.camera for sample in train.samples] == [1, 1, 2]
    assert [sample.ignore.tolist() for sample in train.samples] == [[[3, 4, 13, 24]], [[0, 1, 9, 8.5], [20, 5, 30, 12]], []]
    assert train.notes == ("1 frames without annotation left out", "1 boxes without width or height left out")
    assert all(sample.image == tmp_path / sample.name for sample in train.samples)
    assert (train.dataset, train.name, train.task) == ("posetrack21", "train", "search")
    search = LAYOUT.read_search(tmp_path)
    assert shown(search.gallery) == [
        (f"{HALL}000000.jpg", [([1, 2, 11, 22], "12"), ([21, 2, 31, 22], "4")]),
        (f"{HALL}000004.jpg", [([3, 2, 13, 22], "12")]),
        ("images/val/000522_mpii_test/000000.jpg", [([2, 2, 12, 22], "12")]),
    ]
    assert shown(LAYOUT.read(tmp_path, "test")) == shown(search.gallery)
    assert search.gallery.identities == ("12", "4", "9") and search.gallery.cameras == (342, 522) and not search.lists
    assert searched(search) == [
        (f"{HALL}000000.jpg", [1, 2, 11, 22], "12"),
        (f"{HALL}000000.jpg", [21, 2, 31, 22], "4"),
        (f"{HALL}000008.jpg", [5, 2, 15, 22], "9"),
    ]
    assert search.queries[0].sample is search.queries[1].sample is search.gallery.samples[0]
    assert search.queries[2].sample.ids.tolist() == [2] and search.queries[2].sample.camera == 342


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root = tmp_path_factory.mktemp("set")
    train, search = search_records(seed, frame, lowest=-20, with_ignore=True)
    writer.write(root, train, search)
    found = LAYOUT.read_search(root)
    for ours, theirs in ((LAYOUT.read(root, "train"), train), (found.gallery, search.gallery)):
        assert shown(ours) == shown(theirs) and set(ours.identities) == set(theirs.identities) and ours.notes == ()
        assert [sample.camera for sample in ours.samples] == [sample.camera for sample in theirs.samples]
        assert [sample.ignore.tolist() for sample in ours.samples] == [sample.ignore.tolist() for sample in theirs.samples]
    assert searched(found) == searched(search)
    assert {sample.pixels().size for sample in found.gallery.samples} == {(12, 8)}


def test_names_that_do_not_fit_are_numbered(tmp_path: Path) -> None:
    train, search = search_records(3, lambda part, number, camera: f"{part}{number}")
    writer.write(tmp_path, train, search)
    found = LAYOUT.read(tmp_path, "train")
    assert [people for _, people in shown(found)] == [people for _, people in shown(train)]
    assert all(re.fullmatch(r"images/train/\d{6}_train/\d{6}\.jpg", sample.name) for sample in found.samples)


def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    train, search = search_records(5, frame)
    stranger = Query(sample=train.samples[0], box=search.queries[0].box, id=0)
    with pytest.raises(ArgumentError, match="must be in the gallery"):
        writer.write(tmp_path, train, SearchSet(gallery=search.gallery, queries=[stranger]))
    assert not list(tmp_path.iterdir())


def edit(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / f"posetrack_person_search/{file}.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return damage


def remove(*paths: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in paths:
            (root / path).unlink()

    return damage


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (remove("posetrack_person_search/val.json"), r"posetrack_person_search/val\.json is missing.*images/train"),
        (remove("posetrack_person_search/query.json"), r"posetrack_person_search/query\.json is missing.*images/train"),
        (
            remove(f"{HALL}000004.jpg", "images/val/000522_mpii_test/000000.jpg"),
            r"000342_mpii_test/000004\.jpg is missing: 2 of the 3 .*val\.json",
        ),
        (remove(f"{HALL}000008.jpg"), r"000342_mpii_test/000008\.jpg is missing: 1 of the 2 .*query\.json"),
        (
            lambda root: (root / "images").rename(root / "pictures") and None,
            r"images is missing: is the archive of PoseTrack21.*images/train",
        ),
        (lambda root: (root / "posetrack_person_search/val.json").write_text('{"images": [') and None, r"val\.json.*no JSON"),
        (edit("val", lambda data: data.pop("annotations")), r"val\.json: the field 'annotations' is missing"),
        (edit("val", lambda data: data["images"][1].pop("id")), r"val\.json, image 2: the field 'id' is missing"),
        (edit("val", lambda data: data["images"][1].update(vid_id="hall")), r"val\.json, image 2: 'vid_id' must be a whole"),
        (edit("val", lambda data: data["annotations"][2].update(image_id=5)), r"val\.json, annotation 3: its image_id is 5"),
        (edit("val", lambda data: data["annotations"][2].update(person_id=1.5)), r"val\.json, annotation 3: 'person_id' must"),
        (
            edit("val", lambda data: data["annotations"][2].update(bbox=[1, 2, 3])),
            r"val\.json, annotation 3: 'bbox' must be four",
        ),
        (
            edit("val", lambda data: data["images"][0].update(ignore_regions_x=[[1, 2, 3]], ignore_regions_y=[])),
            r"val\.json, image 1: 1 polygons in ignore_regions_x, but 0 in ignore_regions_y",
        ),
        (
            edit("val", lambda data: data["images"][0].update(ignore_regions_x=[1, 2, 3], ignore_regions_y=[[1, 2]])),
            r"val\.json, image 1: a polygon of ignore_regions has 3 x but 2 y",
        ),
        (
            edit("val", lambda data: data["images"][0].update(ignore_regions_x=["left"], ignore_regions_y=[])),
            r"val\.json, image 1: 'ignore_regions_x' must be lists of numbers",
        ),
        (edit("query", lambda data: data["annotations"].clear()), r"query\.json holds no query"),
        (edit("query", lambda data: data["images"].clear()), r"query\.json, annotation 1: its image_id is \d+, but no image"),
        (edit("query", lambda data: data["annotations"][1].update(person_id=-1)), r"query\.json, annotation 2: its person_id"),
    ],
)
def test_broken_sets(root: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=re.compile(match, re.DOTALL)):
        LAYOUT.read_search(root)


def test_regions_may_be_missing_empty_or_open(root: Path) -> None:
    """A single empty list is a polygon without corners, or no polygon: both ignore nothing."""
    for xs, ys, expected in (
        ([], [], []),
        ([[]], [[]], []),
        ([[1, 2]], [[3, 4]], []),
        ([[5, 1, 3]], [[9, 2, 2]], [[1, 2, 5, 9]]),
        ([5, 1, 3], [[9, 2, 2]], [[1, 2, 5, 9]]),
    ):
        edit("train", lambda data, x=xs, y=ys: data["images"][0].update(ignore_regions_x=x, ignore_regions_y=y))(root)  # type: ignore[misc]
        sample = LAYOUT.read(root, "train").samples[1]
        assert sample.name == f"{CLIP}000000.jpg"
        np.testing.assert_array_equal(sample.ignore, np.reshape(expected, (-1, 4)))


def test_recognition(root: Path, tmp_path: Path) -> None:
    assert LAYOUT.recognize(root) and not LAYOUT.recognize(tmp_path) and not LAYOUT.recognize(root / "images")
    with pytest.raises(DatasetError, match=r"(?s)nowhere is no folder.*query\.json"):
        LAYOUT.read_search(tmp_path / "nowhere")
