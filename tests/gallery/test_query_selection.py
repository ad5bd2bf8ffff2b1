"""Everyone on a photo has a number, is drawn with it, and is chosen by it or by a point."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pretrainps import errors
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery.query_selection import choose, detect, numbered_picture, person_at
from pretrainps.gallery.results import Detection
from pretrainps.images.drawing import ASKED
from tests.support.detectors import lively_detector

BOXES = ((10.0, 20.0, 40.0, 100.0), (30.0, 30.0, 90.0, 110.0), (35.0, 40.0, 38.0, 60.0))
THREE = [Detection("q", box, 0.9 - 0.1 * place) for place, box in enumerate(BOXES)]


@pytest.fixture(scope="module")
def model() -> PersonSearchDetector[Any]:
    return lively_detector("seqnet", "shufflenetv1")


def noise(width: int = 140, height: int = 100) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_everyone_the_detector_finds_is_there_from_left_to_right(model: PersonSearchDetector[Any]) -> None:
    image = noise()
    people = detect(model, image, name="a.jpg")
    (found,) = model([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255])
    assert len(people) > 1 and {person.image for person in people} == {"a.jpg"}
    assert sorted(person.box for person in people) == sorted(tuple(box) for box in found["boxes"].tolist())
    assert sorted(person.score for person in people) == sorted(found["scores"].tolist())
    middles = [person.box[0] + person.box[2] for person in people]
    assert middles == sorted(middles)


def test_a_model_in_training_detects_nobody(model: PersonSearchDetector[Any]) -> None:
    with pytest.raises(errors.ArgumentError, match=r"model\.eval\(\)"):
        detect(copy.deepcopy(model).train(), noise())


def test_choosing() -> None:
    assert choose(THREE, 2) is THREE[1] and choose(THREE[:1]) is THREE[0] and choose(THREE[:1], 1) is THREE[0]
    with pytest.raises(errors.ArgumentError, match=r"3 people.*Choose one by number, 1 to 3"):
        choose(THREE)
    for number in (0, 4, -1):
        with pytest.raises(errors.ArgumentError, match=f"no person {number} .*1 to 3"):
            choose(THREE, number)
    with pytest.raises(errors.ArgumentError, match="only number is 1"):
        choose(THREE[:1], 2)
    with pytest.raises(errors.ArgumentError, match=r"no person was detected.*x,y,width,height"):
        choose([], None)


def test_a_point_means_the_smallest_person_there() -> None:
    assert person_at(THREE, 15, 25) == 1
    assert person_at(THREE, 36, 50) == 3, "whoever is in front of, or inside, another's box"
    assert person_at(THREE, 33, 35) == 1, "of two, the smaller"
    assert person_at(THREE, 80, 100) == 2
    assert person_at(THREE, 5, 5) is None and person_at([], 5, 5) is None


@given(st.integers(1, 3), st.floats(0, 1), st.floats(0, 1))
def test_whoever_is_pointed_at_is_where_the_point_is(number: int, across: float, down: float) -> None:
    x1, y1, x2, y2 = THREE[number - 1].box
    x, y = x1 + across * (x2 - x1), y1 + down * (y2 - y1)
    found = person_at(THREE, x, y)
    assert found is not None
    box = THREE[found - 1].box
    assert box[0] <= x <= box[2] and box[1] <= y <= box[3]
    assert (box[2] - box[0]) * (box[3] - box[1]) <= (x2 - x1) * (y2 - y1)


@pytest.mark.parametrize(("size", "shown"), [((140, 120), (960, 823)), ((4000, 2000), (1600, 800)), ((1200, 900), (1200, 900))])
def test_numbers_are_drawn_on_a_copy_that_can_be_read(size: tuple[int, int], shown: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (90, 90, 90))
    picture = numbered_picture(image, THREE)
    assert picture.size == shown
    assert (np.array(image) == 90).all(), "the photo itself is left alone"
    blue = (np.array(picture) == ASKED).all(axis=2)
    scale = shown[0] / size[0]
    for person in THREE:
        left, middle = round(person.box[0] * scale), round((person.box[1] + person.box[3]) / 2 * scale)
        assert blue[middle, left : left + 2].any(), "a line at the box's left edge"
    assert (np.array(numbered_picture(image, [])) == 90).all()


def test_boxes_beyond_the_photo_are_drawn_at_its_edge() -> None:
    picture = numbered_picture(Image.new("RGB", (1000, 1000)), [Detection("q", (-50.0, -50.0, 5000.0, 5000.0), 0.5)])
    pixels = np.array(picture)
    assert (pixels[500, 0] == ASKED).all() and (pixels[500, -1] == ASKED).all() and (pixels[-1, 500] == ASKED).all()
