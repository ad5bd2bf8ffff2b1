"""Ids of detections: read from the right, the numbers that people see, stable, and taken wherever a person is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrainps import errors
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import Detection, Gallery, parse_detection_id
from pretrainps.gallery.detection_ids import detection_id, left_to_right
from pretrainps.gallery.query_selection import from_left_to_right
from pretrainps.inference.detections import unit_rows
from tests.support.galleries import detector, indexed, noise, photos, random_shard, stored


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", lambda self, dtype: self)


@given(image=st.text(min_size=1, max_size=12), number=st.integers(1, 10**9 - 1))
def test_an_id_says_image_and_number(image: str, number: int) -> None:
    assert parse_detection_id(detection_id(image, number)) == (image, number)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("party.jpg#2", ("party.jpg", 2)),
        ("walk.mp4#12.500#3", ("walk.mp4#12.500", 3)),
        ("a#1.jpg#10", ("a#1.jpg", 10)),
        ("day 2/#1/##7", ("day 2/#1/#", 7)),
    ],
)
def test_the_number_is_read_from_the_right(text: str, found: tuple[str, int]) -> None:
    assert parse_detection_id(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "#", "#1", "party.jpg", "party.jpg#", "party.jpg#0", "a.jpg#-1", "a.jpg#1.0", "walk.mp4#12.500", "a.jpg#\u0662"],
)
def test_what_is_not_an_id(text: str) -> None:
    with pytest.raises(errors.ArgumentError, match=r"is not the id of a detection.*such as '(.*)'") as caught:
        parse_detection_id(text)
    example = str(caught.value).rpartition("such as ")[2].strip("'.")
    assert parse_detection_id(example)[1] == 1, "what the message proposes is an id"


def test_numbers_go_from_left_to_right() -> None:
    boxes = [(50.0, 0.0, 60.0, 9.0), (0.0, 5.0, 10.0, 9.0), (0.0, 1.0, 10.0, 9.0), (20.0, 0.0, 22.0, 9.0)]
    assert left_to_right(boxes) == [2, 1, 3, 0]
    shown = from_left_to_right([Detection("a.jpg", box, 0.5) for box in boxes])
    assert [each.id for each in shown] == ["a.jpg#1", "a.jpg#2", "a.jpg#3", "a.jpg#4"] and shown[0].box == boxes[2]


def test_every_detection_of_a_gallery_has_one(tmp_path: Path) -> None:
    stored(tmp_path, [random_shard([3, 0, 5]), random_shard([2], seed=1, first=3)])
    gallery = Gallery.open(tmp_path)
    found = [gallery.detection(row) for row in range(len(gallery))]
    assert len({each.id for each in found}) == 10
    assert all(gallery.detection(each.id or "") == each for each in found)
    for image in gallery.image_names:
        shown = from_left_to_right(gallery.detections_of(image))
        assert [each.number for each in shown] == list(range(1, len(shown) + 1))
        assert [each.box[0] for each in shown] == sorted(each.box[0] for each in shown)


@pytest.mark.parametrize("number", [0, 4, 99])
def test_ids_that_are_not_there(tmp_path: Path, number: int) -> None:
    stored(tmp_path, [random_shard([3, 0])])
    gallery = Gallery.open(tmp_path)
    for ask in (gallery.detection, lambda text: gallery.search(detection=text)):
        with pytest.raises(errors.ArgumentError, match=r"no image 'gone\.jpg'"):
            ask("gone.jpg#1")
        with pytest.raises(errors.ArgumentError, match="numbers are 1 to 3" if number else "is not the id"):
            ask(f"0.jpg#{number}")
        with pytest.raises(errors.ArgumentError, match="It has none"):
            ask("1.jpg#1")


def test_searching_by_an_id_uses_the_stored_vector(tmp_path: Path) -> None:
    """Neither the images nor the model are there, and unweighted queries are compared with weighted answers."""
    shard = random_shard([4, 3, 5])
    shard.embeddings.mul_(shard.scores[:, None])
    stored(tmp_path, [shard])
    gallery = Gallery.open(tmp_path)
    vectors = shard.embeddings.numpy()
    for row in (0, 5, 11):
        asked = gallery.detection(row)
        result = gallery.search(detection=asked.id, top=12)
        similarities = vectors @ unit_rows(vectors)[row]
        assert [hit.similarity for hit in result.hits] == pytest.approx(sorted(similarities.tolist(), reverse=True), abs=1e-6)
        assert result.query == asked and result.hits == gallery.search(detection=asked, top=12).hits
        others = gallery.search(detection=asked, top=12, exclude_query_image=True)
        assert len(others.hits) == 12 - len(gallery.detections_of(asked.image))
        assert asked.image not in {hit.detection.image for hit in others.hits}
        assert result.to_json()["hits"][0]["id"] == result.hits[0].detection.id


def test_an_id_with_context_answers_as_its_box_does(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    folder, store = photos(tmp_path / "photos"), tmp_path / "g"
    indexed(folder, store)
    gallery, model = Gallery.open(store), detector()
    asked = gallery.detections_of("0.png")[0]
    by_id = gallery.search(detection=asked, top=5, rerank=True)
    by_box = gallery.search(model, folder / "0.png", asked.box, top=5, rerank=True)
    assert "context matching" in by_id.method and len(by_id.hits) == len(by_box.hits) == 5
    first = by_id.hits[0].similarity
    assert first >= gallery.search(detection=asked, top=1).hits[0].similarity - 1e-6, "matching only raises similarities"


def test_an_id_keeps_its_meaning_while_others_come_and_go(tmp_path: Path) -> None:
    folder, store = photos(tmp_path / "photos", 3), tmp_path / "g"
    indexed(folder, store)
    kept = {each.id: each for each in Gallery.open(store).detections_of("trip/1.png")}
    noise(folder / "a first.png", 70)
    (folder / "0.png").unlink()
    indexed(folder, store)
    gallery = Gallery.open(store)
    assert {key: gallery.detection(key or "") for key in kept} == kept


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image": "0.png"},
        {"image": "0.png", "box": (1, 2, 30, 40)},
        {"detection": "0.jpg#1", "box": (1, 2, 30, 40)},
        {"detection": "0.jpg#1", "image": "0.png"},
        {"detection": Detection("0.jpg", (1.0, 2.0, 30.0, 40.0), 1.0)},
    ],
)
def test_a_search_says_who_in_one_way(tmp_path: Path, options: dict[str, Any]) -> None:
    stored(tmp_path, [random_shard([3])])
    with pytest.raises(errors.ArgumentError, match=r"give a model, an image and a box|has no id"):
        Gallery.open(tmp_path).search(**options)
