"""Every layout of detection and re-ID: its miniature is read exactly, no file is opened needlessly, missing files raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pretrainps.data.layout import Layout
from pretrainps.data.layouts import (
    citypersons,
    coco_persons,
    coco_search,
    crowdhuman,
    cuhk03_np,
    dukemtmc,
    eurocity_persons,
    identity_folders,
    market1501,
    msmt17,
    widerperson,
)
from pretrainps.data.records import SearchSet, Split
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures import citypersons as citypersons_miniature
from tests.support.miniatures import coco_persons as coco_persons_miniature
from tests.support.miniatures import coco_search as coco_search_miniature
from tests.support.miniatures import crowdhuman as crowdhuman_miniature
from tests.support.miniatures import cuhk03_np as cuhk03_np_miniature
from tests.support.miniatures import eurocity_persons as eurocity_persons_miniature
from tests.support.miniatures import identity_folders as identity_folders_miniature
from tests.support.miniatures import market1501 as market1501_miniature
from tests.support.miniatures import msmt17 as msmt17_miniature
from tests.support.miniatures import widerperson as widerperson_miniature
from tests.support.miniatures.pictures import write_blank
from tests.support.records import assert_same_split


def coco_search_splits(root: Path) -> dict[str, Split]:
    train, search = coco_search_miniature.write_miniature(root)
    return {"train": train, "test": search.gallery}


def msmt17_v2(root: Path) -> dict[str, Split]:
    return msmt17_miniature.write_miniature(root, "V2")


def duke(root: Path) -> dict[str, Split]:
    """Only names; the contents are tested elsewhere."""
    for folder in ("bounding_box_train", "bounding_box_test", "query"):
        write_blank([root / folder / "0001_c2_f0046182.jpg"])
    return {}


MINIATURES: Mapping[str, tuple[Layout, Callable[[Path], Mapping[str, Split]]]] = {
    "citypersons": (citypersons.LAYOUT, citypersons_miniature.write_miniature),
    "coco_persons": (coco_persons.LAYOUT, coco_persons_miniature.write_miniature),
    "coco_search": (coco_search.LAYOUT, coco_search_splits),
    "crowdhuman": (crowdhuman.LAYOUT, crowdhuman_miniature.write_miniature),
    "cuhk03_np": (cuhk03_np.LAYOUT, cuhk03_np_miniature.write_miniature),
    "eurocity_persons": (eurocity_persons.LAYOUT, eurocity_persons_miniature.write_miniature),
    "identity_folders": (identity_folders.LAYOUT, identity_folders_miniature.write_miniature),
    "market1501": (market1501.LAYOUT, market1501_miniature.write_miniature),
    "msmt17": (msmt17.LAYOUT, msmt17_miniature.write_miniature),
    "msmt17 V2": (msmt17.LAYOUT, msmt17_v2),
    "widerperson": (widerperson.LAYOUT, widerperson_miniature.write_miniature),
}
LAYOUTS = {layout.name: layout for layout, _ in MINIATURES.values()} | {"dukemtmc": dukemtmc.LAYOUT}

by_miniature = pytest.mark.parametrize(("layout", "miniature"), MINIATURES.values(), ids=MINIATURES)


@by_miniature
def test_a_miniature_is_read_exactly(
    layout: Layout, miniature: Callable[[Path], Mapping[str, Split]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = miniature(tmp_path)
    assert set(expected) == set(layout.splits)
    monkeypatch.setattr("PIL.Image.open", None)  # the annotation is read without opening images
    for name, split in expected.items():
        assert_same_split(layout.read(tmp_path, name), split)


@pytest.mark.parametrize(
    ("miniature", "name"), [*((miniature, layout.name) for layout, miniature in MINIATURES.values()), (duke, "dukemtmc")]
)
def test_a_miniature_is_recognized_as_what_it_is_and_nothing_else(
    miniature: Callable[[Path], object], name: str, tmp_path: Path
) -> None:
    miniature(tmp_path)
    assert [layout.name for layout in LAYOUTS.values() if layout.recognize(tmp_path)] == [name]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_empty_folder_is_nothing_and_errors_show_what_is_expected(layout: Layout, tmp_path: Path) -> None:
    assert not layout.recognize(tmp_path)
    for split in layout.splits:
        with pytest.raises(DatasetError) as caught:
            layout.read(tmp_path, split, force=True)
        assert layout.title in str(caught.value) or layout is identity_folders.LAYOUT
    with pytest.raises(DatasetError, match="is no folder") as caught:
        layout.read(tmp_path / "elsewhere", layout.splits[0], force=True)
    assert layout.tree in str(caught.value)
    with pytest.raises(ArgumentError, match=f"no split 'holdout'. It has {layout.splits[0]}"):
        layout.read(tmp_path, "holdout", force=True)


LISTED = [
    # the file that names images, and two of them in its order
    (
        "citypersons",
        "train",
        "annotations/anno_train.mat",
        [
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            "leftImg8bit/train/tubingen/tubingen_000000_000003_leftImg8bit.png",
        ],
    ),
    (
        "coco_persons",
        "train",
        "annotations/instances_train2017.json",
        ["train2017/000000000009.jpg", "train2017/000000000034.jpg"],
    ),
    ("coco_search", "test", "annotations/test.json", ["images/t1.jpg", "t2.jpg"]),
    (
        "crowdhuman",
        "train",
        "annotation_train.odgt",
        ["Images/273271,c9db000d5146c15.jpg", "Images/273278,c9db00080d9be75.jpg"],
    ),
    (
        "msmt17",
        "gallery",
        "list_gallery.txt",
        ["test/0000/0000_000_01_0303morning_0008_0.jpg", "test/0000/0000_004_15_0303noon_0011_2_ex.jpg"],
    ),
    ("widerperson", "train", "train.txt", ["Images/000041.jpg", "Images/000040.jpg"]),
    ("widerperson", "train", "train.txt", ["Annotations/000041.jpg.txt", "Annotations/000040.jpg.txt"]),
]


@pytest.mark.parametrize(("name", "split", "of", "files"), LISTED)
def test_files_that_are_not_there_are_counted_and_the_first_is_named(
    name: str, split: str, of: str, files: list[str], tmp_path: Path
) -> None:
    layout, miniature = MINIATURES[name]
    total = len(miniature(tmp_path)[split].samples)
    for file in files:
        (tmp_path / file).unlink()
    with pytest.raises(DatasetError) as caught:
        layout.read(tmp_path, split)
    assert str(caught.value).startswith(
        f"{tmp_path / files[0]} is missing: 2 of the {total} files that {tmp_path / of} names do not exist."
    )


@pytest.mark.parametrize(
    ("name", "split", "missing"),
    [
        ("citypersons", "train", "annotations/anno_train.mat"),
        ("citypersons", "val", "leftImg8bit/val"),
        ("coco_persons", "val", "annotations/instances_val2017.json"),
        ("coco_persons", "train", "train2017"),
        ("coco_search", "test", "annotations/test.json"),
        ("crowdhuman", "train", "annotation_train.odgt"),
        ("crowdhuman", "val", "Images"),
        ("cuhk03_np", "query", "detected"),
        ("cuhk03_np", "labeled-query", "labeled/query"),
        ("eurocity_persons", "day-train", "ECP/day/labels/train"),
        ("eurocity_persons", "val", "ECP/night/img/val"),
        ("identity_folders", "query", "gallery"),
        ("market1501", "train", "bounding_box_train"),
        ("market1501", "gallery", "query"),  # which it shares its numbering with
        ("msmt17", "train", "list_val.txt"),
        ("msmt17", "query", "test"),
        ("widerperson", "train", "train.txt"),
        ("widerperson", "train", "Annotations"),
    ],
)
def test_what_is_missing_is_named(name: str, split: str, missing: str, tmp_path: Path) -> None:
    layout, miniature = MINIATURES[name]
    miniature(tmp_path)
    (tmp_path / missing).rename(tmp_path / "moved away")
    with pytest.raises(DatasetError) as caught:
        layout.read(tmp_path, split)
    assert str(caught.value).startswith(
        f"{tmp_path / missing} is missing: is the archive of {layout.title} only half unpacked?"
    )
    assert layout.tree in str(caught.value)


def test_only_search_data_has_queries(tmp_path: Path) -> None:
    for layout in LAYOUTS.values():
        if layout.task != "search":
            with pytest.raises(ArgumentError, match=f"is for {layout.task}"):
                layout.read_search(tmp_path)
    coco_search_miniature.write_miniature(tmp_path)
    assert isinstance(coco_search.LAYOUT.read_search(tmp_path), SearchSet)


def test_facts_of_a_layout_fit_together() -> None:
    for layout in LAYOUTS.values():
        assert layout.terms, layout.name
        assert set(layout.counts) <= set(layout.splits), layout.name
        assert layout.splits[0] == "train", layout.name
        for counts in layout.counts.values():
            assert (counts.labelled or 0) <= (counts.boxes or counts.labelled or 0), layout.name
