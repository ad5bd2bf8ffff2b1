"""MovieNet-PS: its differences from CUHK-SYSU, random records, and broken sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat

from pretrainps.data.layouts import cuhk_sysu
from pretrainps.data.layouts.movienet_ps import LAYOUT
from pretrainps.data.writers import cuhk_sysu as cuhk_writer
from pretrainps.data.writers import movienet_ps as writer
from pretrainps.errors import DatasetError
from tests.support.miniatures.movienet_ps import write_miniature
from tests.support.search_records import listed, search_records, searched, shown

LISTS = Path("annotation/test/train_test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "set")
    return tmp_path / "set"


def plain(part: str, number: int, camera: int) -> str:
    return f"{part}{number}.jpg"


@pytest.mark.parametrize("annotation", ["annotation", "anno_mvn-cs"])
@pytest.mark.parametrize("images", ["Image", "Image/SSM"])
def test_the_miniature(tmp_path: Path, annotation: str, images: str) -> None:
    write_miniature(tmp_path, annotation=annotation, images=images)
    assert LAYOUT.recognize(tmp_path) and not cuhk_sysu.LAYOUT.recognize(tmp_path)
    first = ("tt1_0002.jpg", [([3, 2, 13, 22], "nm1"), ([-5, 2, 5, 302], None)])
    train = LAYOUT.read(tmp_path, "train")
    assert shown(train) == shown(LAYOUT.read(tmp_path, "train-10")) == [first]
    assert train.identities == ("nm1",) and train.notes == () and train.samples[0].image == tmp_path / images / "tt1_0002.jpg"
    more = LAYOUT.read(tmp_path, "train-30")
    assert shown(more) == [first, ("tt1_0001.jpg", [([1, 2, 11, 22], "nm1"), ([30, 2, 40, 22], "nm2")])]
    assert more.identities == ("nm1", "nm2") and more.name == "train-30"
    assert more.notes == ("1 boxes without width or height left out",)
    search = LAYOUT.read_search(tmp_path)
    assert shown(search.gallery) == [
        ("tt2_0003.jpg", [([6, 2, 16, 22], "nm4")]),
        ("tt2_0001.jpg", [([4, 2, 14, 22], "nm3"), ([14, 2, 24, 22], "nm4")]),
        ("tt2_0002.jpg", [([5, 2, 15, 22], "nm3")]),
        ("tt2_0004.jpg", [([7, 2, 17, 22], None)]),
    ]
    assert shown(LAYOUT.read(tmp_path, "test")) == shown(search.gallery)
    assert searched(search) == [("tt2_0001.jpg", [4, 2, 14, 22], "nm3"), ("tt2_0003.jpg", [6, 2, 16, 22], "nm4")]
    matched, other = ("tt2_0002.jpg", [5, 2, 15, 22]), ("tt2_0001.jpg", [14, 2, 24, 22])
    assert list(search.lists) == [2000, 4000]
    assert listed(search, 2000) == [[matched, ("tt2_0003.jpg", None)], [other]]
    assert listed(search, 4000) == [
        [matched, ("tt2_0003.jpg", None), ("tt2_0004.jpg", None)],
        [other, ("tt2_0004.jpg", None)],
    ]


def test_annotation_in_two_folders(root: Path) -> None:
    """As in one of the public readers: the pools in one folder, everything else in the other."""
    (root / "annotation").rename(root / "anno_mvn-cs")
    (root / "annotation").mkdir()
    for size in (2000, 4000):
        (root / f"anno_mvn-cs/pool_{size}.mat").rename(root / f"annotation/pool_{size}.mat")
    assert len(LAYOUT.read_search(root).gallery) == 4


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root = tmp_path_factory.mktemp("set")
    train, search = search_records(seed, plain, lowest=-20, sizes=(2000, 10000))
    writer.write(root, train, search)
    found_train, found = LAYOUT.read(root, "train"), LAYOUT.read_search(root)
    known = [image for image, sample in zip(shown(train), train.samples, strict=True) if (sample.ids >= 0).any()]
    assert sorted(shown(found_train)) == sorted(known) and found_train.identities == train.identities
    assert shown(found.gallery) == shown(search.gallery) and searched(found) == searched(search)
    assert listed(found, 2000) == listed(search, 2000) and listed(found, 10000) == listed(search, 10000)
    assert {sample.pixels().size for sample in found.gallery.samples} == {(12, 8)}


def test_public_readers_indexing_reads_the_same(root: Path) -> None:
    rows = loadmat(root / LISTS / "Train_app30.mat")["Train"]
    assert [[app[0][0] for app in apps] for apps in rows[:, 2]] == [["tt1_0002.jpg", "tt1_0001.jpg"], ["tt1_0001.jpg"]]
    assert [box.squeeze().tolist() for _, box, _ in rows[0][2]] == [[3, 2, 10, 20], [1, 2, 10, 20]]
    query = loadmat(root / LISTS / "TestG2000.mat")["TestG2000"].squeeze()["Query"][0]
    assert str(query["imname"][0, 0][0]) == "tt2_0001.jpg"
    assert query["idlocate"][0, 0][0].astype(np.int32).tolist() == [4, 2, 10, 20]


def other_queries(root: Path) -> None:
    rows = [cuhk_writer.Search("nm3", ("tt2_0002.jpg", (5, 2, 10, 20)), [("tt2_0001.jpg", (4, 2, 10, 20))])]
    cuhk_writer.write_searches(root / LISTS / "TestG4000.mat", "TestG4000", rows)


def no_lists(root: Path) -> None:
    for size in (2000, 4000):
        (root / LISTS / f"TestG{size}.mat").unlink()


@pytest.mark.parametrize(
    ("damage", "split", "match"),
    [
        (lambda root: (root / "annotation/Images.mat").unlink(), "train", r"annotation/Images\.mat is missing.*Image/"),
        (lambda root: (root / "annotation/pool_4000.mat").unlink(), "test", r"annotation/pool_4000\.mat is missing.*Image/"),
        (lambda root: None, "train-50", r"Train_app50\.mat is missing.*Image/"),
        (no_lists, "test", r"TestG2000\.mat is missing.*Image/"),
        (lambda root: (root / "Image").rename(root / "images") and None, "train", r"Image is missing.*half unpacked"),
        (
            lambda root: (root / "Image/tt1_0001.jpg").unlink(),
            "train-30",
            r"tt1_0001\.jpg is missing: 1 of the 2 .*Train_app30",
        ),
        (lambda root: (root / "Image/tt2_0004.jpg").unlink(), "test", r"tt2_0004\.jpg is missing: 1 of the 4 "),
        (
            lambda root: writer.write_people(root / LISTS / "Train_app10.mat", [("nm1", [("tt9.jpg", (1, 2, 3, 4))])]),
            "train",
            r"Train_app10\.mat, person 1: image 'tt9\.jpg' is not in .*Images\.mat",
        ),
    ],
)
def test_broken_sets(root: Path, damage: Callable[[Path], None], split: str, match: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=re.compile(match, re.DOTALL)):
        LAYOUT.read(root, split)


def test_sizes_with_other_queries(root: Path) -> None:
    other_queries(root)
    search = LAYOUT.read_search(root)
    assert len(search.lists[2000]) == 2
    with pytest.raises(DatasetError, match=r"TestG4000\.mat, row 1: its query is another one"):
        search.lists[4000]


def test_recognition(root: Path, tmp_path: Path) -> None:
    assert LAYOUT.recognize(root) and not LAYOUT.recognize(tmp_path) and not LAYOUT.recognize(root / "Image")
