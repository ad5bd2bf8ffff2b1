"""The colours of clothes, skin, hair and objects, and functions that change colours."""

from __future__ import annotations

from pretrainps.synthetic.streams import Stream, Weighted

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


def colour(red: float, green: float, blue: float) -> Colour:
    """Return the nearest colour with whole values from 0 to 255."""
    return (
        0 if red < 0 else 255 if red > 255 else int(red),
        0 if green < 0 else 255 if green > 255 else int(green),
        0 if blue < 0 else 255 if blue > 255 else int(blue),
    )


def shade(base: Colour, light: float) -> Colour:
    """Return a colour in more light (factor above 1) or less light."""
    return colour(base[0] * light, base[1] * light, base[2] * light)


def vary(base: Colour, spread: float, stream: Stream) -> Colour:
    """Return a colour near another: each channel changes by about `spread`, and the whole becomes lighter or darker."""
    light = 1.0 + stream.normal(0.0, 0.006 * spread)
    return colour(*(channel * light + stream.normal(0.0, spread) for channel in base))


def mute(base: Colour, saturation: float) -> Colour:
    """Return a colour with its distance from grey multiplied by `saturation`."""
    grey = sum(base) / 3
    return colour(*(grey + (channel - grey) * saturation for channel in base))


def distance(one: Colour, other: Colour) -> int:
    """Return the distance of two colours: the sum of the absolute differences of their channels."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


SKIN: tuple[Colour, ...] = (
    (241, 205, 177),
    (224, 177, 140),
    (198, 143, 104),
    (160, 106, 72),
    (112, 72, 50),
    (78, 51, 38),
)
HAIR: Weighted[Colour] = (
    ((28, 24, 24), 5),
    ((58, 40, 28), 4),
    ((104, 72, 42), 2),
    ((176, 138, 82), 1.5),
    ((120, 118, 118), 1),
    ((140, 58, 32), 0.6),
)
TOPS: Weighted[Colour] = (
    ((30, 30, 34), 15),
    ((226, 226, 222), 11),
    ((128, 130, 134), 10),
    ((34, 44, 82), 10),
    ((168, 34, 40), 7),
    ((48, 92, 168), 7),
    ((196, 176, 140), 6),
    ((52, 104, 62), 5),
    ((104, 68, 44), 5),
    ((216, 132, 158), 4),
    ((222, 190, 60), 4),
    ((120, 156, 200), 4),
    ((84, 90, 60), 4),
    ((170, 190, 190), 4),
    ((100, 58, 128), 3),
    ((218, 112, 44), 3),
    ((42, 136, 140), 3),
    ((150, 90, 90), 3),
    ((70, 110, 90), 3),
    ((190, 170, 200), 3),
    ((20, 70, 70), 3),
    ((110, 30, 60), 3),
    ((200, 210, 120), 2),
    ((235, 170, 130), 2),
)
"""Colours of clothes; black, white, grey and navy are the most common, as in a street."""
BOTTOMS: Weighted[Colour] = (
    ((28, 28, 32), 16),
    ((44, 56, 90), 15),
    ((84, 104, 142), 9),
    ((96, 96, 100), 8),
    ((178, 160, 126), 7),
    ((74, 60, 48), 5),
    ((214, 212, 206), 4),
    ((70, 78, 56), 4),
    ((150, 150, 154), 4),
    ((200, 180, 150), 4),
    ((120, 130, 160), 4),
    ((60, 80, 70), 3),
    ((40, 60, 60), 3),
    ((130, 40, 48), 2),
    ((110, 90, 110), 2),
)
SHOES: Weighted[Colour] = (
    ((30, 28, 28), 6),
    ((224, 224, 224), 4),
    ((96, 62, 40), 3),
    ((150, 40, 40), 1),
    ((60, 80, 130), 1),
)
BAGS: Weighted[Colour] = (
    ((32, 32, 36), 5),
    ((110, 70, 42), 3),
    ((150, 36, 40), 2),
    ((44, 66, 120), 2),
    ((170, 150, 110), 2),
    ((60, 100, 66), 1),
    ((220, 170, 50), 1),
)

GROUNDS: tuple[Colour, ...] = (
    (120, 118, 114),
    (96, 98, 102),
    (150, 142, 130),
    (104, 124, 84),
    (168, 160, 150),
    (132, 110, 96),
)
WALLS: tuple[Colour, ...] = (
    (176, 170, 160),
    (140, 120, 104),
    (118, 128, 140),
    (196, 188, 176),
    (152, 96, 84),
    (92, 96, 104),
    (170, 190, 208),
    (188, 204, 220),
)
PAINTS: tuple[Colour, ...] = (
    (70, 72, 76),
    (120, 40, 40),
    (40, 70, 110),
    (150, 148, 144),
    (60, 90, 60),
    (200, 170, 60),
    (90, 70, 50),
    (220, 220, 222),
)
"""Colours of bins, posts and cars."""
