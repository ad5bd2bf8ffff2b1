"""Draw objects that occlude people: poles, bins, bushes, signs, cars and benches."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from pretrainps.synthetic.palette import PAINTS, Colour, colour, shade, vary
from pretrainps.synthetic.person import Sprite
from pretrainps.synthetic.streams import Stream, Weighted

_KINDS: Weighted[str] = (
    ("pole", 3),
    ("bin", 2),
    ("bollard", 2),
    ("bush", 2),
    ("sign", 1.6),
    ("car", 1.6),
    ("bench", 1.2),
    ("pillar", 0.8),
)
_SIZES = {
    "pole": (0.09, 1.9),
    "bin": (0.34, 0.55),
    "bollard": (0.12, 0.55),
    "bush": (0.8, 0.65),
    "sign": (0.4, 1.5),
    "car": (2.4, 0.85),
    "bench": (1.1, 0.45),
    "pillar": (0.32, 2.2),
}
"""Width and height in multiples of a person's height."""
_GLASS: Colour = (60, 72, 86)
_TYRE: Colour = (30, 30, 32)
_STEEL: Colour = (90, 90, 92)
_OVERSAMPLING = 2


class _Sheet:
    """A canvas with coordinates as shares of its width and height."""

    def __init__(self, canvas: Image.Image) -> None:
        self.width, self.height = canvas.size
        self.draw = ImageDraw.Draw(canvas)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.draw.rectangle((left * self.width, top * self.height, right * self.width, bottom * self.height), fill=fill)

    def oval(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.draw.ellipse((left * self.width, top * self.height, right * self.width, bottom * self.height), fill=fill)

    def area(self, *corners: tuple[float, float], fill: Colour) -> None:
        self.draw.polygon([(x * self.width, y * self.height) for x, y in corners], fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """Draw a disc; its radius is a share of the height."""
        radius *= self.height
        x, y = x * self.width, y * self.height
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def draw_object(stream: Stream, *, person: float) -> Sprite:
    """Draw a random object.

    Args:
        stream: Random numbers for its kind and look.
        person: Height in pixels of a person at the same place.
    """
    kind = stream.weighted(_KINDS)
    paint = vary(stream.choice(PAINTS), 14, stream)
    wide, tall = _SIZES[kind]
    width, height = max(3, int(wide * person)), max(4, int(tall * person))
    canvas = Image.new("RGBA", (width * _OVERSAMPLING, height * _OVERSAMPLING), (0, 0, 0, 0))
    _DRAW[kind](_Sheet(canvas), paint, stream)
    small = canvas.reduce(_OVERSAMPLING)
    return Sprite(small.convert("RGB"), small.getchannel("A"), (width / 2, height))


def _post(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    sheet.box(0, 0, 1, 1, paint)
    sheet.box(0.6, 0, 1, 1, shade(paint, 0.72))


def _bin(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    sheet.area((0.05, 0.1), (0.95, 0.1), (0.85, 1.0), (0.15, 1.0), fill=paint)
    sheet.oval(0, 0, 1, 0.25, shade(paint, 0.6))


def _bush(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    leaves = colour(stream.uniform(40, 80), stream.uniform(70, 120), stream.uniform(30, 60))
    for _ in range(16):
        x, y, radius = stream.uniform(0.15, 0.85), stream.uniform(0.3, 0.9), stream.uniform(0.12, 0.3)
        sheet.disc(x, y, radius, vary(shade(leaves, stream.uniform(0.7, 1.25)), 8, stream))


def _sign(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    sheet.box(0.46, 0.2, 0.54, 1, _STEEL)
    if stream.chance(0.5):
        sheet.oval(0, 0, 1, sheet.width / sheet.height, paint)
    else:
        sheet.box(0, 0, 1, 0.33, paint)


def _car(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    body = (0, 0.4 * sheet.height, sheet.width, 0.88 * sheet.height)
    sheet.draw.rounded_rectangle(body, radius=int(0.12 * sheet.height), fill=paint)
    sheet.area((0.18, 0.42), (0.3, 0.04), (0.72, 0.04), (0.86, 0.42), fill=shade(paint, 0.92))
    sheet.area((0.23, 0.40), (0.32, 0.11), (0.5, 0.11), (0.5, 0.40), fill=_GLASS)
    sheet.area((0.53, 0.40), (0.53, 0.11), (0.7, 0.11), (0.8, 0.40), fill=_GLASS)
    for x in (0.2, 0.8):
        sheet.disc(x, 0.83, 0.17, _TYRE)


def _bench(sheet: _Sheet, paint: Colour, stream: Stream) -> None:
    sheet.box(0, 0.4, 1, 0.6, paint)
    sheet.box(0, 0, 1, 0.2, shade(paint, 0.9))
    for x in (0.08, 0.86):
        sheet.box(x, 0.2, x + 0.06, 1, shade(paint, 0.6))


_DRAW: dict[str, Callable[[_Sheet, Colour, Stream], None]] = {
    "pole": _post,
    "bin": _bin,
    "bollard": _post,
    "bush": _bush,
    "sign": _sign,
    "car": _car,
    "bench": _bench,
    "pillar": _post,
}
