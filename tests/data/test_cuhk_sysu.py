"""CUHK-SYSU: the original reader's records, a miniature with every difficulty, random records, and broken sets."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat

from pretrainps.data.layouts import cuhk_sysu
from pretrainps.data.layouts.cuhk_sysu import LAYOUT
from pretrainps.data.records import Query, SearchSet, Split, as_boxes
from pretrainps.data.writers import cuhk_sysu as writer
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures.cuhk_sysu import write_miniature
from tests.support.search_records import listed, search_records, searched, shown

GOLDEN = Path(__file__).parent.parent / "golden"
LISTS = Path("annotation/test/train_test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "set")
    return tmp_path / "set"


def assert_original(split: Split, original: list[dict[str, Any]]) -> None:
    """Theirs: identities from 1, 5555 without a label."""
    found = [
        {"img_name": s.name, "boxes": s.boxes.tolist(), "pids": np.where(s.ids < 0, 5555, s.ids + 1).tolist()}
        for s in split.samples
    ]
    assert found == original


def test_the_original_readers_records(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "search_cuhk.json").read_text())
    with zipfile.ZipFile(GOLDEN / "mini_cuhk.zip") as archive:
        archive.extractall(tmp_path)
    root = tmp_path / "mini_cuhk"
    assert LAYOUT.recognize(root)
    train, search = LAYOUT.read(root, "train"), LAYOUT.read_search(root)
    assert_original(train, golden["train_annotations"])
    assert_original(search.gallery, golden["gallery"])
    assert train.identities == ("p1", "p2", "p3", "p4", "p5") and search.gallery.identities[0] == "p101"
    assert [(query.sample.name, query.box.tolist(), query.id + 1) for query in search.queries] == [
        (query["img_name"], query["box"], query["pid"]) for query in golden["queries"]
    ]
    expected = [
        [(name, None if box is None else [box[0], box[1], box[0] + box[2], box[1] + box[3]]) for name, box in entries]
        for entries in golden["protocol"]["50"]
    ]
    assert listed(search, 50) == expected and list(search.lists) == [50, 100]
    assert all(sample.pixels().size[0] > 0 for sample in train.samples[:2])


def test_the_miniature(root: Path) -> None:
    train = LAYOUT.read(root, "train")
    assert shown(train) == [
        ("s1.jpg", [([1, 2, 11, 22], "p11"), ([30, 5, 40, 30], "p13"), ([200, 3, 240, 33], None)]),
        ("s10.jpg", [([2, 2, 14, 26], "p12"), ([20, 2, 32, 26], None), ([40, 2, 52, 26], "p12")]),
        ("s2.jpg", [([4, 2, 15, 22], "p11"), ([40, 5, 70, 75], None), ([4, 2, 15, 22], None)]),
        ("s9.jpg", []),
    ]
    assert train.identities == ("p11", "p12", "p13") and train.cameras == () and train.task == "search"
    assert (train.dataset, train.name) == ("cuhk_sysu", "train")
    assert train.notes == (
        "2 boxes without width or height left out",
        "1 boxes of the lists are not in Images.mat and are not used",
    )
    assert all(sample.image == root / "Image/SSM" / sample.name and len(sample.ignore) == 0 for sample in train.samples)
    search = LAYOUT.read_search(root)
    assert shown(search.gallery) == [
        ("s3.jpg", [([3, 3, 16, 29], "p21")]),
        ("s8.jpg", []),
        ("s5.jpg", [([7, 7, 27, 37], None), ([30, 1, 39, 19], None)]),
        ("s4.jpg", [([5, 5, 25, 35], None), ([30, 5, 50, 35], "p21"), ([-4, 5, 16, 35], "p22")]),
        ("s6.jpg", [([7, 8, 27, 33], None), ([8, 8, 28, 33], "p21")]),
        ("s7.jpg", [([250, 255, 260, 275], "p22")]),
    ]
    assert shown(LAYOUT.read(root, "test")) == shown(search.gallery) and search.gallery.notes == ()
    assert searched(search) == [("s3.jpg", [3, 3, 16, 29], "p21"), ("s4.jpg", [-4, 5, 16, 35], "p22")]
    assert search.queries[0].sample is search.gallery.samples[0]
    tall, small = [("s4.jpg", [30, 5, 50, 35]), ("s6.jpg", [8, 8, 28, 33])], ("s7.jpg", [250, 255, 260, 275])
    assert listed(search, 50) == [[*tall, ("s5.jpg", None)], [small]]
    assert listed(search, 100) == [[*tall, tall[1], ("s5.jpg", None), ("s8.jpg", None)], [small, ("s3.jpg", None)]]


@pytest.mark.parametrize("subset", ["occlusion", "resolution"])
def test_subsets_have_their_own_people(root: Path, subset: Any) -> None:
    search = cuhk_sysu.read_subset(root, subset)
    assert searched(search) == [("s7.jpg", [250, 255, 260, 275], "p22")]
    assert listed(search, 100) == [[("s4.jpg", [-4, 5, 16, 35]), ("s3.jpg", None)]]
    assert [person for _, people in shown(search.gallery) for _, person in people if person] == ["p22", "p22"]


def test_no_such_subset(root: Path) -> None:
    with pytest.raises(ArgumentError, match="no subset 'night'"):
        cuhk_sysu.read_subset(root, "night")  # type: ignore[arg-type]


def plain(part: str, number: int, camera: int) -> str:
    return f"{part}{number}.jpg"


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root = tmp_path_factory.mktemp("set")
    train, search = search_records(seed, plain, lowest=-20, sizes=(50, 100))
    writer.write(root, train, search)
    found = LAYOUT.read_search(root)
    assert shown(LAYOUT.read(root, "train")) == shown(train)
    assert shown(found.gallery) == shown(search.gallery)
    assert found.gallery.identities == search.gallery.identities
    assert [(query.sample.name, query.box.tolist(), query.id) for query in found.queries] == [
        (query.sample.name, query.box.tolist(), query.id) for query in search.queries
    ]
    assert listed(found, 50) == listed(search, 50) and listed(found, 100) == listed(search, 100)
    for ours, theirs in zip(found.gallery.samples, search.gallery.samples, strict=True):
        difference = np.asarray(ours.pixels(), dtype=float) - np.asarray(theirs.pixels())
        assert np.abs(difference).max() < 6, "the picture is its own"


def test_names_that_do_not_fit_are_numbered(tmp_path: Path) -> None:
    train, search = search_records(3, lambda part, number, camera: f"deep/{number}", sizes=(50,))
    writer.write(tmp_path, train, search)
    found = LAYOUT.read(tmp_path, "train")
    assert [sample.name for sample in found.samples] == [f"s{number:05d}.jpg" for number in range(1, len(train) + 1)]
    assert [people for _, people in shown(found)] == [people for _, people in shown(train)]


def test_public_readers_indexing_reads_the_same(tmp_path: Path) -> None:
    """Nested indices as in the torchvision family's readers, on files written here."""
    train, search = search_records(11, plain)
    writer.write(tmp_path, train, search)
    boxes = {}
    for name, _, people in loadmat(tmp_path / "annotation/Images.mat")["Img"].squeeze(axis=0):
        boxes[str(name[0])] = [person[0][0].astype(np.int32).tolist() for person in people[0]]
    for sample in (*train.samples, *search.gallery.samples):
        expected = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in sample.boxes.astype(int).tolist()]
        assert boxes[sample.name] == expected
    pool = [str(cell[0][0]) for cell in loadmat(tmp_path / "annotation/pool.mat")["pool"]]
    assert pool == [sample.name for sample in search.gallery.samples]
    scenes = loadmat(tmp_path / LISTS / "Train.mat")["Train"][0, 0][0, 0][2].reshape(-1)
    assert [str(name[0]) for name, *_ in scenes] == [sample.name for sample in train.samples if 0 in sample.ids]
    for row, item in enumerate(loadmat(tmp_path / LISTS / "TestG50.mat")["TestG50"].squeeze(axis=0)):
        query = item["Query"][0, 0]
        assert str(query["imname"][0]) == search.queries[row].sample.name
        assert str(query["idname"][0]) == search.gallery.identities[row]
        entries = [(str(name[0]), box.size > 0) for name, box, _ in item["Gallery"].reshape(-1)]
        assert entries == [(name, box is not None) for name, box in listed(search, 50)[row]]


def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    train, search = search_records(5, plain)
    query = search.queries[0]
    halves = Query(sample=query.sample, box=query.box + np.float32(0.5), id=query.id)
    for wrong, match in (
        (SearchSet(gallery=search.gallery, queries=search.queries), r"Give SearchSet\.lists"),
        (SearchSet(gallery=search.gallery, queries=[query, query], lists=search.lists), "but one person has two"),
        (SearchSet(gallery=search.gallery, queries=[halves, *search.queries[1:]], lists=search.lists), "whole pixels"),
        (
            SearchSet(
                gallery=search.gallery,
                queries=[Query(sample=train.samples[0], box=query.box, id=0), *search.queries[1:]],
                lists=search.lists,
            ),
            "must be in the gallery",
        ),
    ):
        with pytest.raises(ArgumentError, match=match):
            writer.write(tmp_path / "no", train, wrong)
    assert not (tmp_path / "no").exists()


def test_a_gallery_larger_than_the_first_is_read_when_asked_for(root: Path) -> None:
    (root / LISTS / "TestG100.mat").write_bytes(b"no MATLAB")
    search = LAYOUT.read_search(root)
    assert list(search.lists) == [50, 100] and len(search.lists) == 2 and 500 not in search.lists
    assert search.lists[50] is search.lists[50]
    with pytest.raises(DatasetError, match=r"TestG100\.mat is damaged"):
        search.lists[100]


def test_any_one_list_is_enough(root: Path) -> None:
    (root / LISTS / "TestG50.mat").unlink()
    search = LAYOUT.read_search(root)
    assert list(search.lists) == [100] and search.gallery.identities == ("p21", "p22")


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def cut(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-20])


def no_images(root: Path) -> None:
    (root / "Image").rename(root / "Pictures")


def lost_images(root: Path) -> None:
    for name in ("s10.jpg", "s2.jpg", "s3.jpg"):
        (root / "Image/SSM" / name).unlink()


def unknown_in_training(root: Path) -> None:
    writer.write_people(root / LISTS / "Train.mat", [("p1", [("s1.jpg", (1, 2, 10, 20))]), ("p2", [("s99.jpg", (1, 1, 2, 2))])])


def no_struct(root: Path) -> None:
    writer.save_matlab(root / LISTS / "Train.mat", "Train", np.zeros((1, 3)))


def no_images_listed(root: Path) -> None:
    writer.save_matlab(root / "annotation/Images.mat", "Img", np.ones((1, 1)))


def short_box(root: Path) -> None:
    writer.write_images(root / "annotation/Images.mat", {"s1.jpg": [(1, 2, 3, 4)], "s2.jpg": [(1, 2, 3)]})  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (remove("annotation/Images.mat"), r"annotation/Images\.mat is missing.*\n.*Image/SSM/s1\.jpg"),
        (remove("annotation/pool.mat"), r"annotation/pool\.mat is missing.*\n.*Image/SSM/s1\.jpg"),
        (remove("annotation/test/train_test/Train.mat"), r"train_test/Train\.mat is missing.*\n.*Image/SSM/s1\.jpg"),
        (cut("annotation/Images.mat"), r"annotation/Images\.mat is damaged or cut off"),
        (cut("annotation/pool.mat"), r"^[^:]*annotation/pool\.mat is damaged or cut off"),
        (cut("annotation/test/train_test/Train.mat"), r"Train\.mat is damaged or cut off"),
        (no_images, r"Image/SSM is missing.*half unpacked"),
        (lost_images, r"Image/SSM/s10\.jpg is missing: 2 of the 4 .*Images\.mat"),
        (unknown_in_training, r"Train\.mat, person 2: image 's99\.jpg' is not in .*Images\.mat"),
        (no_struct, r"Train\.mat: a struct or a cell of 3 fields is wanted, not an array \(\) of float64"),
        (no_images_listed, r"^[^:]*Images\.mat: a struct or a cell of 3 fields is wanted, not an array \(1, 1\) of float64"),
        (short_box, r"Images\.mat, image 2: a box must be 4 numbers, not \[1\.0, 2\.0, 3\.0\]"),
    ],
)
def test_broken_training_sets(root: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=re.compile(match, re.DOTALL)):
        LAYOUT.read(root, "train")


def no_lists(root: Path) -> None:
    for size in (50, 100):
        (root / LISTS / f"TestG{size}.mat").unlink()


def search_row(root: Path, *rows: writer.Search, size: int = 50) -> None:
    writer.write_searches(root / LISTS / f"TestG{size}.mat", f"TestG{size}", rows)


def unknown_query(root: Path) -> None:
    search_row(root, writer.Search("p21", ("s98.jpg", (1, 1, 2, 2)), [("s3.jpg", None)]))


def not_in_pool(root: Path) -> None:
    search_row(root, writer.Search("p21", ("s3.jpg", (3, 3, 13, 26)), [("s1.jpg", (1, 2, 10, 20))]))


def unknown_in_pool(root: Path) -> None:
    writer.write_pool(root / "annotation/pool.mat", ["s3.jpg", "s4.jpg", "s5.jpg", "s6.jpg", "s7.jpg", "s8.jpg", "s97.jpg"])


def wrong_variable(root: Path) -> None:
    (root / LISTS / "TestG100.mat").replace(root / LISTS / "TestG50.mat")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (no_lists, r"TestG50\.mat is missing.*\n.*Image/SSM"),
        (cut("annotation/test/train_test/TestG50.mat"), r"TestG50\.mat is damaged or cut off"),
        (wrong_variable, r"TestG50\.mat holds no variable TestG50, but TestG100"),
        (lost_images, r"Image/SSM/s3\.jpg is missing: 1 of the 6 .*pool\.mat"),
        (unknown_query, r"TestG50\.mat, row 1: image 's98\.jpg' is not in .*Images\.mat"),
        (not_in_pool, r"TestG50\.mat, row 1: image 's1\.jpg' of the gallery is not in the pool"),
        (unknown_in_pool, r"image 's97\.jpg' is not in .*Images\.mat"),
    ],
)
def test_broken_search_sets(root: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=re.compile(match, re.DOTALL)):
        LAYOUT.read_search(root)


def test_lists_of_other_queries(root: Path) -> None:
    one = writer.Search("p21", ("s3.jpg", (3, 3, 13, 26)), [("s8.jpg", None)])
    search_row(root, one, size=100)
    with pytest.raises(DatasetError, match=r"TestG100\.mat has 1 rows, but there are 2 queries"):
        LAYOUT.read_search(root).lists[100]
    search_row(root, one, one, size=100)
    with pytest.raises(DatasetError, match=r"TestG100\.mat, row 2: its query is another one"):
        LAYOUT.read_search(root).lists[100]


def test_a_box_of_two_people(root: Path) -> None:
    """As in the original, the last name counts."""
    place = ("s1.jpg", (1, 2, 10, 20))
    writer.write_people(root / LISTS / "Train.mat", [("p1", [place]), ("p2", [place])])
    train = LAYOUT.read(root, "train")
    assert train.samples[0].ids.tolist() == [1, -1, -1]
    assert train.notes[-1] == "1 boxes have two people's names in the lists: the later one counts"


def test_recognition(root: Path, tmp_path: Path) -> None:
    assert LAYOUT.recognize(root) and not LAYOUT.recognize(tmp_path) and not LAYOUT.recognize(root / "Image")
    with pytest.raises(DatasetError, match=r"(?s)nowhere is no folder.*Image/SSM"):
        LAYOUT.read_search(tmp_path / "nowhere")


def test_boxes_out_of_the_picture_stay_as_annotated(root: Path) -> None:
    sample = LAYOUT.read(root, "train").samples[0]
    assert sample.pixels().size == (60, 40)
    np.testing.assert_array_equal(sample.boxes[2], as_boxes([200, 3, 240, 33])[0])
