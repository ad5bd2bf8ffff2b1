"""Your own person search in COCO's JSON: it is read exactly, errors name id and field, and what is written is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data.layouts.coco_search import LAYOUT
from pretrainps.data.records import GalleryList, Query, Sample, SearchSet, Split, as_boxes
from pretrainps.data.writers.coco_search import write
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures.coco_search import write_miniature
from tests.support.miniatures.pictures import write_blank
from tests.support.records import assert_same_search, assert_same_split

Content = dict[str, list[dict[str, Any]]]


@pytest.mark.parametrize("queries", [True, False])
def test_queries_are_read_or_chosen(queries: bool, tmp_path: Path) -> None:
    train, search = write_miniature(tmp_path, queries=queries)
    assert_same_split(LAYOUT.read(tmp_path, "train"), train)
    assert_same_split(LAYOUT.read(tmp_path, "test"), search.gallery)
    read = LAYOUT.read_search(tmp_path)
    assert_same_search(read, search)
    in_gallery = {id(sample) for sample in read.gallery.samples}
    assert [id(query.sample) in in_gallery for query in read.queries] == ([True, False, True] if queries else [True, True])


def change(annotation: int, **fields: object) -> Callable[[Content], None]:
    return lambda content: content["annotations"][annotation].update(fields)


def change_image(image: int, **fields: object) -> Callable[[Content], None]:
    return lambda content: content["images"][image].update(fields)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (change_image(1, id=1), "image 1: two images have this 'id'."),
        (change_image(1, file_name="t1.jpg"), "image 2: another image is called 't1.jpg' too."),
        (change_image(1, file_name=None), "image 2: 'file_name' must be a text, not None."),
        (
            lambda content: content["images"][1].pop("file_name"),
            "image 2: the field 'file_name' is missing. It must be a text.",
        ),
        (change_image(1, id=None), "images[1]: 'id' must be a whole number or a text, not None."),
        (change_image(1, height="40"), "image 2: 'height' must be a whole number, not '40'."),
        (change_image(1, camera="north"), "image 2: 'camera' must be a whole number, not 'north'."),
        (change(2, image_id=99), "annotation 3: 'image_id' is 99, but no image of the file has that id."),
        (change(2, image_id="1"), "annotation 3: 'image_id' is '1', but no image of the file"),
        (change(2, bbox=[1, 2, -3, 4]), "annotation 3: 'bbox' has a negative width or height: [1, 2, -3, 4]."),
        (change(2, bbox=[1, 2, 3, float("nan")]), "annotation 3: 'bbox' must be four finite numbers"),
        (change(2, bbox=None), "annotation 3: 'bbox' must be four finite numbers: left, top, width, height, not None."),
        (change(2, person_id=1.5), "annotation 3: 'person_id' must be a whole number, a text or null, not 1.5."),
        (change(2, person_id=""), "annotation 3: 'person_id' must be"),
        (change(2, person_id=True), "annotation 3: 'person_id' must be"),
        (change(2, iscrowd=2), "annotation 3: 'iscrowd' must be 0 or 1, not 2."),
        (change(2, ignore="yes"), "annotation 3: 'ignore' must be 0 or 1, not 'yes'."),
        (change(2, vis_bbox=[2, 1, 10, 20]), "annotation 1: the field 'vis_bbox' is missing."),
        (lambda content: content["annotations"][2].pop("bbox"), "annotation 3: the field 'bbox' is missing."),
        (lambda content: content["annotations"][2].pop("id") and content["annotations"][2].pop("bbox"), "annotations[2]: the"),
        (lambda content: content["annotations"].append([]), "annotations[7]: expected an object"),  # type: ignore[arg-type]
    ],
)
def test_what_is_wrong_is_told_by_id_and_field(wrong: Callable[[Content], None], complaint: str, tmp_path: Path) -> None:
    write_miniature(tmp_path)
    path = tmp_path / "annotations" / "test.json"
    content = json.loads(path.read_text())
    wrong(content)
    path.write_text(json.dumps(content))
    for read in (lambda: LAYOUT.read(tmp_path, "test"), lambda: LAYOUT.read_search(tmp_path)):
        with pytest.raises(DatasetError) as caught:
            read()
        assert complaint in str(caught.value)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("part", ["train", "test", "query"])
def test_a_file_that_is_cut_off_is_told_with_its_line(part: str, tmp_path: Path) -> None:
    write_miniature(tmp_path)
    path = tmp_path / "annotations" / f"{part}.json"
    path.write_text('{"images": [],\n "annotations": [')
    with pytest.raises(DatasetError) as caught:
        LAYOUT.read(tmp_path, "train") if part == "train" else LAYOUT.read_search(tmp_path)
    assert str(caught.value).startswith(f"{path}, line 2, column 18: no JSON")


@pytest.mark.parametrize("fields", [{"person_id": None}, {"ignore": 1}, {"bbox": [1, 1, 0, 30]}])
def test_a_query_is_somebody(fields: dict[str, object], tmp_path: Path) -> None:
    write_miniature(tmp_path)
    path = tmp_path / "annotations" / "query.json"
    content = json.loads(path.read_text())
    content["annotations"][2].update(fields)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="annotation 3: a query needs a 'person_id' and a 'bbox'"):
        LAYOUT.read_search(tmp_path)


def test_without_anybody_to_search_for_there_is_no_search(tmp_path: Path) -> None:
    write_miniature(tmp_path)
    query, test = (tmp_path / "annotations" / f"{part}.json" for part in ("query", "test"))
    query.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(DatasetError, match=r"query.json names no query."):
        LAYOUT.read_search(tmp_path)
    query.unlink()
    content = json.loads(test.read_text())
    for annotation in content["annotations"][2:]:
        annotation["person_id"] = None
    test.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"No person is in two images of .*test.json"):
        LAYOUT.read_search(tmp_path)


def test_a_root_with_a_val_file_is_somebody_elses(tmp_path: Path) -> None:
    """PoseTrack21 was also published with annotations/train.json, val.json and query.json."""
    write_miniature(tmp_path)
    (tmp_path / "annotations" / "test.json").rename(tmp_path / "annotations" / "val.json")
    assert not LAYOUT.recognize(tmp_path)


@st.composite
def scenes(draw: st.DrawFn, people: int, *, visible: bool) -> tuple[Sample, ...]:
    """Smooth images, which JPEG preserves; each person is in one scene, the first person in two."""
    samples = []
    for index in range(draw(st.integers(2, 3))):
        known = [*range(people), *[-1] * draw(st.integers(0, 2))] if index == 0 else draw(st.lists(st.integers(-1, people - 1)))
        if index == 1:
            known.append(0)
        corners = np.array([draw(st.tuples(*[st.integers(-40, 200)] * 2, *[st.integers(1, 99)] * 2)) for _ in known]).reshape(
            -1, 4
        )
        boxes = as_boxes(np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]]) / 4)
        pixels = np.full((16, 24, 3), draw(st.tuples(*[st.integers(0, 255)] * 3)), dtype=np.uint8)
        seen = boxes * np.array([1, 1, 1, 1], dtype=np.float32)
        seen[:, 3] -= np.float32(0.25)
        start, suffix = draw(st.sampled_from(["c1s1_", "sub/folder_"])), draw(st.sampled_from(["", ".jpg", ".png"]))
        samples.append(
            Sample(
                name=f"{start}{index}{suffix}",
                image=pixels,
                boxes=boxes,
                ids=np.array(known, dtype=np.int64),
                ignore=boxes[: draw(st.integers(0, 1))],
                visible=seen if visible else None,
                camera=draw(st.none() | st.integers(0, 6)),
                size=(16, 24),
            )
        )
    return tuple(samples)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Split, SearchSet]:
    """Training and test images have the same names; queries come in any order; some are in a separate image."""
    visible = draw(st.booleans())
    train_people, test_people = ("2", "10", "x"), ("7", "anna", "bob")
    train = Split(
        dataset="coco_search",
        name="train",
        task="search",
        samples=draw(scenes(len(train_people), visible=visible)),
        identities=train_people,
    )
    gallery = replace(train, name="test", samples=draw(scenes(len(test_people), visible=visible)), identities=test_people)
    rows = [(sample, row) for sample in gallery.samples for row, identity in enumerate(sample.ids.tolist()) if identity >= 0]
    queries = [
        Query(sample=sample, box=sample.boxes[row], id=int(sample.ids[row]))
        for sample, row in draw(st.lists(st.sampled_from(rows), min_size=1, max_size=5))
    ]
    if draw(st.booleans()):
        pixels = np.full((16, 24, 3), 90, dtype=np.uint8)
        boxes = as_boxes([[1, 1, 5, 9], [2, 2, 6, 9]])
        alone = Sample(name="alone.jpg", image=pixels, boxes=boxes, ids=np.array([2, 0]), size=(16, 24))
        queries += [Query(sample=alone, box=box, id=int(identity)) for box, identity in zip(boxes, alone.ids, strict=True)]
    return train, SearchSet(gallery=gallery, queries=queries)


@settings(max_examples=15)
@given(records=searches())
def test_what_is_written_is_read(records: tuple[Split, SearchSet]) -> None:
    train, search = records
    with TemporaryDirectory() as folder:
        write(Path(folder), train, search)
        assert_same_split(LAYOUT.read(folder, "train"), train)
        assert_same_search(LAYOUT.read_search(folder), search)


def test_what_has_no_place_is_not_written(tmp_path: Path) -> None:
    train, search = write_miniature(tmp_path / "miniature")
    entry = GalleryList(frames=np.zeros(1, dtype=np.int64), boxes=as_boxes([[np.nan] * 4]))
    with pytest.raises(ArgumentError, match="one gallery for all queries"):
        write(tmp_path, train, replace(search, lists={50: [entry] * 3}))
    outside = search.queries[1].sample
    crowded = replace(outside, boxes=as_boxes([*outside.boxes, [1, 1, 2, 2]]), ids=np.array([3, -1]))
    queries = [replace(query, sample=crowded) if query.sample is outside else query for query in search.queries]
    with pytest.raises(ArgumentError, match=r"q.jpg is not in the gallery, and has more annotation than its queries"):
        write(tmp_path, train, replace(search, queries=queries))


def test_other_categories_and_negative_texts(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    write_blank([tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.jpg"])
    people: list[tuple[int, object]] = [(1, "-1"), (3, "dog"), (1, "anna"), (1, "12" * 3000), (1, "7")]
    annotations = [
        {"id": place, "image_id": 1 + place % 2, "category_id": category, "bbox": [1, 2, 3, 4], "person_id": person}
        for place, (category, person) in enumerate(people)
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "train.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    split = LAYOUT.read(tmp_path, "train")
    assert split.identities == ("7", "12" * 3000, "anna")
    assert sorted(person for sample in split.samples for person in sample.ids.tolist()) == [-1, 0, 1, 2]
