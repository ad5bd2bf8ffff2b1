"""Backgrounds without people: walls, trees, the ground, and posters that show people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pretrainps.synthetic.identity import MIXED, draw_identity
from pretrainps.synthetic.palette import GROUNDS, WALLS, Colour, colour, shade, vary
from pretrainps.synthetic.person import draw_person
from pretrainps.synthetic.pose import draw_pose
from pretrainps.synthetic.streams import Stream, Weighted

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""

_MARKINGS: Weighted[str] = (("tiles", 3), ("lanes", 2), ("none", 2), ("zebra", 1.2))
_PAINT: Colour = (212, 210, 204)
_TRUNK: Colour = (84, 66, 50)
_FRAME: Colour = (60, 60, 64)


class _Backdrop:
    """A background while it is painted; `unit` is the size of a pixel of a frame 320 pixels high."""

    def __init__(self, size: tuple[int, int], horizon: int, unit: float, stream: Stream) -> None:
        self.height, self.width = size
        self.horizon = horizon
        self.unit = unit
        self.stream = stream
        self.image = Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image)

    def ramp(self, top: int, bottom: int, base: Colour, lights: tuple[float, float]) -> None:
        """Fill rows with a colour that becomes lighter downwards."""
        for y in range(top, bottom):
            light = lights[0] + (lights[1] - lights[0]) * (y - top) / max(1, bottom - top)
            self.draw.line((0, y, self.width, y), fill=shade(base, light))


def draw_background(size: tuple[int, int], *, horizon: int, unit: float, stream: Stream) -> tuple[Image.Image, tuple[Box, ...]]:
    """Paint a background without people.

    Args:
        size: Height and width of the image.
        horizon: The row of the horizon.
        unit: Scale of the drawing: 1 for an image 320 pixels high.
        stream: Random numbers of the place.

    Returns:
        The image, and the boxes of the people on posters.
    """
    backdrop = _Backdrop(size, horizon, unit, stream)
    ground = stream.choice(GROUNDS)
    backdrop.ramp(0, horizon, stream.choice(WALLS), (0.85, 1.15))
    backdrop.ramp(horizon, size[0], ground, (0.8, 1.15))
    _draw_buildings(backdrop)
    for _ in range(stream.below(7)):
        _draw_tree(backdrop)
    _draw_markings(backdrop, shade(ground, stream.uniform(0.8, 0.92)))
    posters = (_draw_poster(backdrop),) if stream.chance(0.45) else ()
    return _weathered(backdrop), posters


def _draw_buildings(backdrop: _Backdrop) -> None:
    stream, unit = backdrop.stream, backdrop.unit
    left = int(-20 * unit)
    while left < backdrop.width:
        width, height = int(stream.uniform(30, 130) * unit), int(stream.uniform(0.2, 1.1) * backdrop.horizon)
        if stream.chance(0.75):
            _draw_building(backdrop, left, width, height)
        left += width + int(stream.uniform(-6, 40) * unit)


def _draw_building(backdrop: _Backdrop, left: int, width: int, height: int) -> None:
    stream, draw, unit, horizon = backdrop.stream, backdrop.draw, backdrop.unit, backdrop.horizon
    wall = vary(stream.choice(WALLS), 14, stream)
    top, foot = horizon - height, horizon + 3 * unit
    draw.rectangle((left, top, left + width, foot), fill=wall)
    margin, tall = int(5 * unit), int(stream.uniform(5, 14) * unit)
    glass = shade(wall, stream.uniform(0.45, 1.2))
    for y in range(top + margin, horizon - margin, tall + margin + 1):
        for x in range(left + margin, left + width - margin, tall + margin):
            if stream.chance(0.8):
                draw.rectangle((x, y, x + tall // 1.6, y + tall), fill=glass)
    if stream.chance(0.5):  # doors and shop windows: upright, with the height of people
        for _ in range(1 + stream.below(3)):
            edge, door = left + stream.uniform(0, max(1.0, width - 12 * unit)), stream.uniform(18, 52) * unit
            draw.rectangle((edge, horizon - door, edge + 0.42 * door, foot), fill=shade(wall, stream.uniform(0.3, 0.9)))


def _draw_tree(backdrop: _Backdrop) -> None:
    stream, draw, foot = backdrop.stream, backdrop.draw, backdrop.horizon
    x, size = stream.uniform(0, backdrop.width), stream.uniform(14, 50) * backdrop.unit
    leaves = colour(stream.uniform(36, 90), stream.uniform(70, 120), stream.uniform(30, 70))
    draw.rectangle((x - 0.07 * size, foot - 0.9 * size, x + 0.07 * size, foot + 4 * backdrop.unit), fill=_TRUNK)
    for _ in range(7):
        across, up = x + stream.normal(0, 0.35 * size), foot - stream.normal(1.25 * size, 0.3 * size)
        radius = size * stream.uniform(0.25, 0.5)
        corners = (across - radius, up - radius, across + radius, up + radius)
        draw.ellipse(corners, fill=shade(leaves, stream.uniform(0.75, 1.25)))


def _draw_markings(backdrop: _Backdrop, line: Colour) -> None:
    """Draw tiles or painted lanes towards a point on the horizon."""
    stream, draw, unit = backdrop.stream, backdrop.draw, backdrop.unit
    width, height, horizon = backdrop.width, backdrop.height, backdrop.horizon
    kind = stream.weighted(_MARKINGS)
    vanishing = stream.uniform(0.2, 0.8) * width
    if kind == "tiles":
        for number in range(-24, 25):
            draw.line((vanishing, horizon, vanishing + 0.12 * number * width, height), fill=line)
        y, step = float(height), 30.0 * unit
        while y > horizon + 4 * unit:
            draw.line((0, y, width, y), fill=line)
            step *= 0.84
            y -= max(2 * unit, step)
    elif kind == "lanes":
        _draw_stripes(backdrop, vanishing, count=3, spacing=0.75, wide=0.03, rows=(0.05, 1.0))
    elif kind == "zebra":
        _draw_stripes(backdrop, vanishing, count=11, spacing=0.16, wide=0.07, rows=(0.35, 0.75))


def _draw_stripes(
    backdrop: _Backdrop, vanishing: float, *, count: int, spacing: float, wide: float, rows: tuple[float, float]
) -> None:
    """Draw stripes towards a vanishing point; offsets are shares of the width, rows are shares of the way from the horizon."""

    def at(offset: float, row: float) -> tuple[float, float]:
        depth = backdrop.height - backdrop.horizon
        return vanishing + offset * backdrop.width * row, backdrop.horizon + depth * row

    first, last = rows
    for number in range(count):
        left = (number - count / 2) * spacing
        corners = [at(left, first), at(left + wide, first), at(left + wide, last), at(left, last)]
        backdrop.draw.polygon(corners, fill=_PAINT)


def _draw_poster(backdrop: _Backdrop) -> Box:
    """Draw a poster of a person, which is a region to ignore: neither a positive nor a negative example for a detector."""
    stream, unit = backdrop.stream, backdrop.unit
    height = int(stream.uniform(30, 62) * unit)
    width = int(0.6 * height)
    left = int(stream.uniform(10 * unit, backdrop.width - 60 * unit))
    top = max(2, int(backdrop.horizon - height - stream.uniform(0, 14) * unit))
    who, pose = draw_identity(stream, MIXED), draw_pose(stream, "stand")
    person = draw_person(who, pose, height=0.82 * height, yaw=stream.uniform(-0.5, 0.5), pitch=0.0)
    box = (left, top, left + width, top + height)
    backdrop.draw.rectangle(box, fill=vary(stream.choice(WALLS), 20, stream), outline=_FRAME)
    place = (left + (width - person.mask.width) // 2, top + height - person.mask.height - 2)
    backdrop.image.paste(person.colours, place, person.mask)
    return box


def _weathered(backdrop: _Backdrop) -> Image.Image:
    """Return the image with stains of several sizes and softer edges."""
    source, unit = backdrop.stream.array_source(), backdrop.unit
    size = (backdrop.height, backdrop.width)
    grain = source.standard_normal(size).astype(np.float32) * 3
    stains = _stains(source, size, int(40 * unit), 9) + _stains(source, size, max(2, int(9 * unit)), 4) + grain
    pixels = np.asarray(backdrop.image, dtype=np.float32) + stains[:, :, None]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(0.6 * unit))


def _stains(source: np.random.RandomState, size: tuple[int, int], cell: int, strength: float) -> NDArray[np.float32]:
    """Return smooth random noise, (H, W), with a grid of one value every `cell` pixels."""
    height, width = size
    coarse = source.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32) * strength
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
