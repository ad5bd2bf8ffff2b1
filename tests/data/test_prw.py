"""PRW: a miniature with every difficulty, the original's order of operations, random records, and broken sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat

from pretrainps.data.layouts.prw import LAYOUT
from pretrainps.data.records import Query, SearchSet
from pretrainps.data.writers import prw as writer
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.prw import write_miniature
from tests.support.search_records import search_records, searched, shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "set")
    return tmp_path / "set"


def frame(part: str, number: int, camera: int) -> str:
    return f"c{camera}s{'12'[part == 'val']}_{number:06d}.jpg"


def test_the_miniature(root: Path) -> None:
    train = LAYOUT.read(root, "train")
    assert shown(train) == [
        ("c1s1_000151.jpg", [([10, 20, 40, 80], "3"), ([40, 2, 50, 22], None), ([5, 5, 15, 15], "3")]),
        ("c2s1_000201.jpg", [([0, 2, 20, 32], "932"), ([50, 0, 80, 60], "1")]),
        ("c6s1_000301.jpg", [([250, 200, 270, 290], "1")]),
        ("c1s2_000401.jpg", []),
    ]
    assert train.identities == ("1", "3", "932") and [sample.camera for sample in train.samples] == [1, 2, 6, 1]
    assert train.notes == ("1 boxes without width or height left out",)
    assert (train.dataset, train.name, train.task) == ("prw", "train", "search")
    assert all(sample.image == root / "frames" / sample.name and len(sample.ignore) == 0 for sample in train.samples)
    search = LAYOUT.read_search(root)
    assert shown(search.gallery) == [
        ("c3s1_000501.jpg", [([1, 2, 21, 32], "20"), ([31, 2, 41, 23], "9")]),
        ("c5s2_042630.jpg", [([12, 5, 31, 35], "9"), ([40, 4, 50, 24], None), ([2, 2, 10, 18], "9")]),
        ("c4s1_000601.jpg", [([0, 0, 20, 30], "20")]),
        ("c3s1_000502.jpg", []),
    ]
    assert shown(LAYOUT.read(root, "test")) == shown(search.gallery)
    assert search.gallery.cameras == (3, 4, 5) and search.gallery.identities == ("9", "20") and not search.lists
    assert searched(search) == [
        ("c3s1_000501.jpg", [1, 2, 21, 32], "20"),
        ("c5s2_042630.jpg", [12, 5, 32, 35], "9"),
        ("c4s1_000601.jpg", [0, 0, 14, 28], "20"),
    ]
    assert search.queries[0].sample is search.gallery.samples[0]
    assert search.gallery.notes == ("2 queries differ from the box in their frame's annotation, and are used as they are",)


@pytest.mark.parametrize("newline", ["\n", "\r\n", " \r\n\r\n"])
def test_lines_end_as_they_like(tmp_path: Path, newline: str) -> None:
    write_miniature(tmp_path / "set", newline=newline)
    raw = (tmp_path / "set/query_info.txt").read_bytes()
    assert raw.endswith(b"c4s1_000601" + newline.encode())
    (tmp_path / "set/query_info.txt").write_bytes(raw[: -len(newline)])  # and the last one need not
    assert len(LAYOUT.read_search(tmp_path / "set").queries) == 3


COORDINATES = st.one_of(st.integers(-400, 400).map(lambda number: number / 8), st.integers(-20, 60).map(float))


@settings(max_examples=15)
@given(boxes=st.lists(st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES), min_size=1, max_size=6))
@example(boxes=[(-4.5, -0.25, 10.75, 3.25)])
def test_the_originals_order_of_operations(
    tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[float, float, float, float]]
) -> None:
    root = tmp_path_factory.mktemp("set")
    write_blank([root / "frames/c1s1_000001.jpg"])
    writer.write_frames(root, "test", ["c1s1_000001"])
    writer.write_people(root, "c1s1_000001", {"box_new": [(7, *box) for box in boxes]})
    writer.write_queries(root, [(7, *box, "c1s1_000001") for box in boxes])
    rois = np.clip(np.array(boxes), 0, None)
    rois[:, 2:] += rois[:, :2]
    in_gallery = [box for box in rois.astype(np.int32).tolist() if box[2] > box[0] and box[3] > box[1]]
    as_query = [np.array([x, y, x + w, y + h]).astype(np.int32).clip(0, None).tolist() for x, y, w, h in boxes]
    search = LAYOUT.read_search(root)
    assert search.gallery.samples[0].boxes.tolist() == in_gallery
    assert [query.box.tolist() for query in search.queries] == as_query


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    root = tmp_path_factory.mktemp("set")
    train, search = search_records(seed, frame)
    writer.write(root, train, search)
    found_train, found = LAYOUT.read(root, "train"), LAYOUT.read_search(root)
    for ours, theirs in ((found_train, train), (found.gallery, search.gallery)):
        assert shown(ours) == shown(theirs) and ours.identities == theirs.identities and ours.notes == ()
        assert [sample.camera for sample in ours.samples] == [sample.camera for sample in theirs.samples]
        assert [sample.ids.tolist() for sample in ours.samples] == [sample.ids.tolist() for sample in theirs.samples]
    assert searched(found) == searched(search)
    assert {sample.pixels().size for sample in found.gallery.samples} == {(12, 8)}


def test_names_that_do_not_fit_are_numbered(tmp_path: Path) -> None:
    train, search = search_records(3, lambda part, number, camera: f"{part}/{number}")
    writer.write(tmp_path, train, search)
    found = LAYOUT.read(tmp_path, "train")
    assert [sample.name for sample in found.samples] == [
        f"c{sample.camera}s1_{number:06d}.jpg" for number, sample in enumerate(train.samples, start=1)
    ]
    assert [people for _, people in shown(found)] == [people for _, people in shown(train)]


def test_public_readers_indexing_reads_the_same(tmp_path: Path) -> None:
    train, search = search_records(11, frame)
    writer.write(tmp_path, train, search)
    names = [f"{cell[0][0]}.jpg" for cell in loadmat(tmp_path / "frame_train.mat")["img_index_train"]]
    assert names == [sample.name for sample in train.samples]
    for sample in search.gallery.samples:
        rows = loadmat(str(tmp_path / "annotations" / sample.name))["box_new"]  # scipy appends .mat, as they let it
        assert rows[:, 0].tolist() == [-2 if person < 0 else 101 + person for person in sample.ids]
        assert (rows[:, 1:3] + rows[:, 3:]).tolist() == sample.boxes[:, 2:].tolist()
    lines = (tmp_path / "query_info.txt").read_bytes().splitlines(keepends=True)
    assert [str(line, "utf-8").split(" ")[5][:-2] + ".jpg" for line in lines] == [q.sample.name for q in search.queries]


def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    train, search = search_records(5, frame)
    stranger = Query(sample=train.samples[0], box=search.queries[0].box, id=0)
    with pytest.raises(ArgumentError, match="must be in the gallery"):
        writer.write(tmp_path / "a", train, SearchSet(gallery=search.gallery, queries=[stranger]))
    halves = Query(sample=search.queries[0].sample, box=search.queries[0].box + np.float32(0.5), id=0)
    with pytest.raises(ArgumentError, match="whole pixels"):
        writer.write(tmp_path / "b", train, SearchSet(gallery=search.gallery, queries=[halves]))


def test_queries_beyond_the_gallery(root: Path) -> None:
    """A frame outside all lists is read for its query; a person in no frame gets a number after all others."""
    writer.write_frames(root, "test", ["c3s1_000501", "c3s1_000502"])
    writer.write_queries(root, [(9, 12, 5, 20, 30, "c5s2_042630.jpg"), (4, 1, 2, 3, 4, "c3s1_000502")])
    search = LAYOUT.read_search(root)
    assert search.gallery.identities == ("9", "20", "4") and [query.id for query in search.queries] == [0, 2]
    assert search.queries[0].sample.ids.tolist() == [0, -1, 0] and len(search.gallery) == 2


def replace_line(line: bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        lines = (root / "query_info.txt").read_bytes().split(b"\r\n")
        (root / "query_info.txt").write_bytes(b"\r\n".join([lines[0], line, *lines[2:]]))

    return damage


def annotate(rows: object, variable: str = "box_new", name: str = "c4s1_000601") -> Callable[[Path], None]:
    return lambda root: writer.write_people(root, name, {variable: rows})


def remove(*paths: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for path in paths:
            (root / path).unlink()

    return damage


def rename(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).rename(root / "elsewhere") and None


def cut(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-20]) and None


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (remove("frame_test.mat"), r"frame_test\.mat is missing.*frames/c1s1_000151\.jpg"),
        (remove("query_info.txt"), r"query_info\.txt is missing.*frames/c1s1_000151\.jpg"),
        (rename("frames"), r"frames is missing: is the archive of PRW only half unpacked"),
        (rename("annotations"), r"annotations is missing: is the archive of PRW only half unpacked"),
        (
            remove("frames/c5s2_042630.jpg", "frames/c4s1_000601.jpg"),
            r"frames/c5s2_042630\.jpg is missing: 2 of the 4 .*frame_test\.mat",
        ),
        (
            remove("annotations/c4s1_000601.jpg.mat"),
            r"annotations/c4s1_000601\.jpg\.mat is missing: 1 of the 4 .*frame_test\.mat",
        ),
        (cut("frame_test.mat"), r"frame_test\.mat is damaged or cut off"),
        (cut("annotations/c4s1_000601.jpg.mat"), r"c4s1_000601\.jpg\.mat is damaged or cut off"),
        (annotate([[1, 2, 3, 4, 5]], "box"), r"c4s1_000601\.jpg\.mat holds no variable box_new or anno_file or anno_previous"),
        (annotate([[1, 2, 3, 4, 5], [1.5, 2, 3, 4, 5]]), r"c4s1_000601\.jpg\.mat: row 2 has the id 1\.5, which is no whole"),
        (annotate([[1, np.nan, 3, 4, 5]]), r"c4s1_000601\.jpg\.mat: row 1 is \[1\.0, nan"),
        (annotate([[1, 2, 3, 4], [1, 2, 3, 4]]), r"c4s1_000601\.jpg\.mat: rows of 5 numbers are wanted"),
        (replace_line(b"9 12 5 20 c5s2_042630"), r"query_info\.txt, line 2: '9 12 5 20 c5s2_042630' is not person, left"),
        (replace_line(b"9.5 12 5 20 30 c5s2_042630"), r"query_info\.txt, line 2: .*9\.5"),
        (replace_line(b"9 12 5 wide 30 c5s2_042630"), r"query_info\.txt, line 2: .*wide"),
        (replace_line(b"9 12 5 nan 30 c5s2_042630"), r"query_info\.txt, line 2: .*not finite"),
        (replace_line(b"9 12 5 20 30 c5s2_000009"), r"frames/c5s2_000009\.jpg is missing: 1 of the 1 .*query_info\.txt"),
        (lambda root: (root / "query_info.txt").write_text("\n") and None, r"query_info\.txt holds no query"),
        (lambda root: (root / "query_info.txt").write_bytes(b"\xff\xfe9") and None, r"query_info\.txt is no text in UTF-8"),
    ],
)
def test_broken_sets(root: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=re.compile(match, re.DOTALL)):
        LAYOUT.read_search(root)


def test_a_query_without_annotation(root: Path) -> None:
    write_blank([root / "frames/c5s2_000009.jpg"])
    writer.write_queries(root, [(9, 12, 5, 20, 30, "c5s2_000009")])
    with pytest.raises(DatasetError, match=r"annotations/c5s2_000009\.jpg\.mat is missing: 1 of the 1 .*query_info\.txt"):
        LAYOUT.read_search(root)


def test_a_name_without_camera(root: Path) -> None:
    write_blank([root / "frames/000001.jpg"])
    writer.write_people(root, "000001", {"box_new": np.zeros((0, 5))})
    writer.write_frames(root, "train", ["000001"])
    with pytest.raises(DatasetError, match=r"the frame '000001\.jpg' does not say which camera"):
        LAYOUT.read(root, "train")


def test_recognition(root: Path, tmp_path: Path) -> None:
    assert LAYOUT.recognize(root) and not LAYOUT.recognize(tmp_path)
    assert LAYOUT.shares_people_with == ("market1501",)
    with pytest.raises(DatasetError, match=r"(?s)nowhere is no folder.*query_info"):
        LAYOUT.read(tmp_path / "nowhere", "train")
