"""Crops with context, boxes that are visible on any background, and captions."""

from __future__ import annotations

import math
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from pretrainps.images.boxes import Box

Colour = tuple[int, int, int]
PillowSize = tuple[int, int]
"""Width and height in pixels, in the order of Pillow."""

ASKED: Final[Colour] = (64, 132, 245)
RIGHT: Final[Colour] = (44, 170, 92)
WRONG: Final[Colour] = (222, 66, 58)
ANSWER: Final[Colour] = (255, 190, 60)
INK: Final[Colour] = (28, 30, 34)
FAINT: Final[Colour] = (112, 116, 124)
PAPER: Final[Colour] = (250, 250, 248)
NOTHING: Final[Colour] = (226, 226, 222)
"""Colour of a frame outside the image."""
_MARGIN = 0.12
"""Share of a person's height that is shown around them."""
_SHADE: Final[Colour] = (0, 0, 0)


def within(box: Box, size: PillowSize) -> Box:
    """Return the part of a box inside an image, at least one pixel wide and high for any box."""
    width, height = size
    x1, y1, x2, y2 = (value if math.isfinite(value) else 0.0 for value in box)
    left, top = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    return left, top, min(max(x2, left + 1), width), min(max(y2, top + 1), height)


def crop_with_margin(image: Image.Image, box: Box, size: PillowSize, colour: Colour | None = None) -> Image.Image:
    """Return a person with a margin, cut out of a picture so that it fills a frame, with their box drawn.

    The cut has the frame's shape. It is moved so that it stays in the picture. What does not fit stays grey.

    Args:
        image: The whole scene, RGB.
        box: The person's box.
        size: Size of the frame.
        colour: Colour of the box; `None` draws no box.
    """
    x1, y1, x2, y2 = within(box, image.size)
    margin = 2 * _MARGIN * (y2 - y1)
    scale = min(size[0] / (x2 - x1 + margin), size[1] / (y2 - y1 + margin))
    left = _start((x1 + x2) / 2, size[0] / scale, image.width)
    top = _start((y1 + y2) / 2, size[1] / scale, image.height)
    shown = within((left, top, left + size[0] / scale, top + size[1] / scale), image.size)
    place = [round((value - start) * scale) for value, start in zip(shown, (left, top, left, top), strict=True)]
    part = (max(1, place[2] - place[0]), max(1, place[3] - place[1]))
    frame = Image.new("RGB", size, NOTHING)
    frame.paste(image.resize(part, Image.Resampling.LANCZOS, box=shown, reducing_gap=2.0), (place[0], place[1]))
    if colour is not None:
        moved = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale)
        draw_box(frame, moved, colour, width=max(2, size[0] // 80))
    return frame


def _start(centre: float, length: float, whole: int) -> float:
    """Return the start of a crop: around `centre` but inside the image, or centred on the image if the crop is longer."""
    return min(max(centre - length / 2, 0.0), whole - length) if length <= whole else (whole - length) / 2


def fitted(image: Image.Image, *, most: int, least: int = 1) -> Image.Image:
    """Return an image with its longer side resized to between `least` and `most` pixels; unchanged if it is so already."""
    longest = max(image.size)
    wanted = min(max(longest, least), most)
    if wanted == longest:
        return image
    size = (max(1, round(image.width * wanted / longest)), max(1, round(image.height * wanted / longest)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def draw_box(image: Image.Image, box: Box, colour: Colour, *, width: int) -> None:
    """Draw a box onto an image, with a second dark line, so that it is visible on any background."""
    left, top, right, bottom = (round(value) for value in within(box, image.size))
    outer = (left, top, max(left, right - 1), max(top, bottom - 1))
    draw = ImageDraw.Draw(image)
    draw.rectangle(outer, outline=_SHADE, width=width + 1)
    draw.rectangle(outer, outline=colour, width=width)


def draw_label(image: Image.Image, corner: tuple[float, float], text: str, colour: Colour, *, size: int) -> None:
    """Write a short label on a coloured patch above a box's upper left corner, or inside the box at the image's edge."""
    draw = ImageDraw.Draw(image)
    letters = font(size)
    pad = max(2, size // 4)
    width, height = math.ceil(letters.getlength(text)) + 2 * pad, size + 2 * pad
    left = min(max(0, round(corner[0])), max(0, image.width - width))
    top = min(max(0, round(corner[1]) - height), max(0, image.height - height))
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + width / 2, top + height / 2), text, fill=_on(colour), font=letters, anchor="mm")


def shortened(text: str, width: float, size: int) -> str:
    """Return a text shortened to a width in pixels. Its middle is left out, because names often differ at the end."""
    letters = font(size)
    if letters.getlength(text) <= width:
        return text
    for left_out in range(1, len(text)):
        start = (len(text) - left_out + 1) // 3
        short = text[:start] + "…" + text[start + left_out :]
        if letters.getlength(short) <= width:
            return short
    return "…"


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's default font."""
    return ImageFont.load_default(size=size)


def _on(colour: Colour) -> Colour:
    """Return a text colour that is readable on a background colour."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else (255, 255, 255)
