"""Draw a contact sheet: the images of a data set with their annotation, to check them by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pretrainps.data.records import UNLABELLED, Sample
from pretrainps.errors import ImageError

_LABELLED, _UNLABELLED, _VISIBLE, _IGNORE = (60, 220, 90), (250, 160, 40), (250, 240, 80), (235, 60, 60)
_GAP = 4
_LINE = 14


def contact_sheet(samples: Sequence[Sample], *, columns: int = 5, cell: tuple[int, int] = (240, 320)) -> Image.Image:
    """Draw images side by side with what is annotated in them.

    Green: people with an identity, and its number; orange: people without; yellow: visible parts; red: regions to ignore.

    Args:
        samples: The images, in reading order.
        columns: Images in a row.
        cell: Height and width of the space for each image.
    """
    columns = max(1, min(columns, len(samples)))
    rows = -(-len(samples) // columns)
    height, width = cell[0] + _LINE + _GAP, cell[1] + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), (24, 24, 28))
    for place, sample in enumerate(samples):
        row, column = divmod(place, columns)
        left, top = column * width + _GAP, row * height + _GAP
        sheet.paste(_drawn(sample, cell), (left, top + _LINE))
        ImageDraw.Draw(sheet).text((left, top), _caption(sample), fill=(220, 220, 220), font=_font())
    return sheet


def spread_over(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose samples at equal distances, including the first and the last."""
    places = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int))
    return [samples[place] for place in places]


def _drawn(sample: Sample, cell: tuple[int, int]) -> Image.Image:
    canvas = Image.new("RGB", (cell[1], cell[0]), (48, 48, 52))
    try:
        picture = sample.pixels()
    except ImageError:
        ImageDraw.Draw(canvas).text((8, cell[0] // 2), "cannot be read", fill=_IGNORE, font=_font())
        return canvas
    scale = min(cell[1] / picture.width, cell[0] / picture.height)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(picture)
    limit = (picture.width - 1, picture.height - 1) * 2

    def outline(box: np.ndarray[tuple[int, ...], np.dtype[np.float32]], colour: tuple[int, int, int]) -> tuple[float, ...]:
        x1, y1, x2, y2 = (float(value) for value in np.clip(box * scale, 0, limit))
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour)
        return x1, y1

    for box in sample.ignore:
        outline(box, _IGNORE)
    for box in () if sample.visible is None else sample.visible:
        outline(box, _VISIBLE)
    for box, identity in zip(sample.boxes, sample.ids, strict=True):
        x, y = outline(box, _UNLABELLED if identity == UNLABELLED else _LABELLED)
        if identity != UNLABELLED:
            draw.text((x + 2, y), str(identity), fill=_LABELLED, font=_font())
    canvas.paste(picture, ((cell[1] - picture.width) // 2, (cell[0] - picture.height) // 2))
    return canvas


def _caption(sample: Sample) -> str:
    name = sample.name if len(sample.name) <= 34 else "..." + sample.name[-31:]
    return name if sample.camera is None else f"{name}  camera {sample.camera}"


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=11)
