"""The query and its answers in one picture: everyone in his place, in his colour, whatever his box."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pretrainps import errors
from pretrainps.gallery.view.picture import result_picture
from pretrainps.images.drawing import ANSWER, ASKED, NOTHING, RIGHT, WRONG, Colour, crop_with_margin, font, shortened, within
from tests.support.results import BOX, answered, scene

COORDINATE = st.floats(-1e4, 1e4) | st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE), st.integers(1, 60), st.integers(1, 60))
def test_whatever_a_box_says_some_of_the_picture_is_meant(
    box: tuple[float, float, float, float], width: int, height: int
) -> None:
    x1, y1, x2, y2 = within(box, (width, height))
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and min(x2 - x1, y2 - y1) >= 1 - 1e-9
    assert crop_with_margin(Image.new("RGB", (width, height)), box, (20, 30), ASKED).size == (20, 30)


def test_a_person_is_in_the_middle_of_the_frame_unless_the_picture_ends() -> None:
    image = scene((250, 0, 0), size=(400, 300))
    image.paste(image.crop((0, 0, 60, 120)), (200, 100))
    frame = np.array(crop_with_margin(image, (220, 130, 250, 210), (100, 150)))
    red = np.argwhere((frame[:, :, 0] > 200) & (frame[:, :, 1] < 60))
    assert np.abs((red.min(axis=0) + red.max(axis=0)) / 2 - (75, 50)).max() < 2
    edge = np.array(crop_with_margin(image, BOX, (100, 150)))
    assert not (edge == NOTHING).all(axis=2).any(), "the cut is moved into the picture"
    small = np.array(crop_with_margin(scene((250, 0, 0), size=(56, 120)), BOX, (100, 100)))
    assert (small[50, 0] == NOTHING).all() and (small[50, -1] == NOTHING).all() and not (small[50, 50] == NOTHING).all()


def frames(picture: Image.Image, colour: Colour) -> int:
    """Count the boxes of a colour by their upper edges: rows of it that begin where above them there is none."""
    match = (np.array(picture) == colour).all(axis=2)
    runs = 0
    for row in range(1, match.shape[0]):
        long = np.convolve(match[row], np.ones(30), "valid") == 30
        above = np.convolve(match[row - 1], np.ones(30), "valid") == 30
        starts = long & ~np.concatenate([[False], long[:-1]])
        runs += int((starts & ~above).sum())
    return runs // 2  # the lower edge is such a row, too


def test_right_and_wrong_answers_and_the_query_itself_have_their_colours() -> None:
    folder, result = answered([f"{letter}.jpg" for letter in "abcdefg"])
    picture = result_picture(
        folder, result, query_image=folder.picture("a.jpg"), correct=[True, True, False, True, False, False, False]
    )
    assert [frames(picture, colour) for colour in (ASKED, RIGHT, WRONG, ANSWER)] == [2, 2, 4, 0]
    plain = result_picture(folder, result, query_image=folder.picture("a.jpg"))
    assert [frames(plain, colour) for colour in (ASKED, RIGHT, WRONG, ANSWER)] == [2, 0, 0, 6]
    elsewhere = answered(["a.jpg", "b.jpg"], query="other.jpg")
    assert frames(result_picture(*elsewhere, query_image=scene((0, 0, 0))), ASKED) == 1


def test_answers_that_are_gone_and_searches_without_answers_are_pictures_too() -> None:
    folder, result = answered(["a.jpg", "b.jpg"])
    query = folder.images.pop("a.jpg")
    assert frames(result_picture(folder, result, query_image=query), ANSWER) == 1
    _, nobody = answered([], query="q.jpg")
    assert frames(result_picture(folder, nobody, query_image=query), ASKED) == 1


def test_there_is_a_truth_for_each_answer() -> None:
    folder, result = answered(["a.jpg", "b.jpg"])
    with pytest.raises(errors.ArgumentError, match="1 truths for 2 answers"):
        result_picture(folder, result, query_image=folder.picture("a.jpg"), correct=[True])


@given(st.text(max_size=80), st.integers(0, 200))
def test_names_are_shortened_in_the_middle(name: str, width: int) -> None:
    short = shortened(name, width, 14)
    assert short in (name, "…") or (font(14).getlength(short) <= width and short.count("…") >= 1)
    if len(short) > 3 and short != name:
        start, end = short.split("…")[0], short.split("…")[-1]
        assert name.startswith(start) and name.endswith(end)
