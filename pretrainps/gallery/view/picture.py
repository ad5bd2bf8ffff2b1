"""One picture of a search: the person searched for, then the answers in order, with boxes and similarities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image, ImageDraw

from pretrainps.errors import ArgumentError, ImageError
from pretrainps.gallery.results import Hit, SearchResult
from pretrainps.images.drawing import (
    ANSWER,
    ASKED,
    FAINT,
    INK,
    NOTHING,
    PAPER,
    RIGHT,
    WRONG,
    Colour,
    crop_with_margin,
    font,
    shortened,
)

_CELL = (200, 300)
"""Width and height of an answer in pixels."""
_COLUMNS = 5
_GAP, _EDGE, _RULE = 20, 32, 10
_LINE, _SMALL = 20, 14
"""Heights of letters in pixels."""
_CAPTION = _LINE + _SMALL + 16
_HEAD = 44


class Pictures(Protocol):
    """Reads the images of a gallery: a `Gallery`, or anything like it."""

    def picture(self, name: str) -> Image.Image:
        """Return an image of the gallery, RGB and upright.

        Raises:
            ImageError: It is gone, or was changed since it was indexed.
        """
        ...


def result_picture(
    gallery: Pictures, result: SearchResult, *, query_image: Image.Image, correct: Sequence[bool] | None = None
) -> Image.Image:
    """Draw a search: the query, then the answers in rows of five.

    In the place of an image that can no longer be read stands a note.

    Args:
        gallery: Reads the answers' images.
        result: The answers.
        query_image: The image that the query's box is in, RGB and upright.
        correct: For each answer whether it is the person, if that is known. Right ones are green and wrong ones red.

    Raises:
        ArgumentError: `correct` has not one value for each answer.
    """
    if correct is not None and len(correct) != len(result.hits):
        raise ArgumentError(f"{len(correct)} truths for {len(result.hits)} answers; there must be one for each.")
    rows = max(1, -(-len(result.hits) // _COLUMNS))
    columns = max(1, min(_COLUMNS, len(result.hits)))
    cell = (_CELL[0] + _GAP, _CELL[1] + _CAPTION + _GAP)
    first = _EDGE + _CELL[0] + _GAP + _RULE + _GAP  # where the answers begin
    size = (first + columns * cell[0] - _GAP + _EDGE, _EDGE + _HEAD + rows * cell[1] - _GAP + _EDGE)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_EDGE, _EDGE), "Searched for", fill=INK, font=font(_LINE))
    answers = "No answers" if not result.hits else "Most alike, best first"
    draw.text((first, _EDGE), answers, fill=INK, font=font(_LINE))
    rule = first - _GAP - _RULE // 2
    draw.line((rule, _EDGE, rule, size[1] - _EDGE), fill=NOTHING, width=2)
    top = _EDGE + _HEAD
    sheet.paste(crop_with_margin(query_image, result.query.box, _CELL, ASKED), (_EDGE, top))
    _caption(draw, (_EDGE, top + _CELL[1]), "query", ASKED, "", result.query.id or result.query.image)
    for place, hit in enumerate(result.hits):
        corner = (first + place % _COLUMNS * cell[0], top + place // _COLUMNS * cell[1])
        truth = None if correct is None else correct[place]
        colour = ANSWER if truth is None else RIGHT if truth else WRONG
        itself = hit.detection.is_seen_as(result.query)
        sheet.paste(_answer(gallery, hit, ASKED if itself else colour), corner)
        said = "the query itself" if itself else "" if truth is None else "right" if truth else "wrong"
        mark = ASKED if itself else colour
        caption = f"{hit.rank}   {hit.similarity:.3f}"
        _caption(draw, (corner[0], corner[1] + _CELL[1]), caption, mark, said, hit.detection.id or hit.detection.image)
    return sheet


def _answer(gallery: Pictures, hit: Hit, colour: Colour) -> Image.Image:
    try:
        return crop_with_margin(gallery.picture(hit.detection.image), hit.detection.box, _CELL, colour)
    except ImageError:
        empty = Image.new("RGB", _CELL, NOTHING)
        centre = (_CELL[0] / 2, _CELL[1] / 2)
        ImageDraw.Draw(empty).text(centre, "can no longer\nbe read", fill=FAINT, font=font(_SMALL), anchor="mm", align="center")
        return empty


def _caption(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: Colour, said: str, name: str) -> None:
    """Write below a cell: what it is, a word about it at the right, and the detection's id or its image's name."""
    left, top = corner[0], corner[1] + 6
    draw.text((left, top), text, fill=INK, font=font(_LINE))
    if said:
        draw.text((left + _CELL[0], top + _LINE - _SMALL), said, fill=colour, font=font(_SMALL), anchor="ra")
    draw.text((left, top + _LINE + 5), shortened(name, _CELL[0], _SMALL), fill=FAINT, font=font(_SMALL))
