"""The look of a person: build, hair, clothing and bags, the same in every image of that person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pretrainps.synthetic.palette import BAGS, BOTTOMS, HAIR, SHOES, SKIN, TOPS, Colour, distance, mute, shade, vary
from pretrainps.synthetic.streams import Stream, Weighted

Hair = Literal["short", "bob", "long", "pony", "bun", "curly", "bald"]
Top = Literal["tee", "long", "jacket", "coat", "hoodie"]
Bottom = Literal["trousers", "shorts", "skirt", "dress"]
Pattern = Literal["plain", "hoops", "stripes", "check", "yoke", "dots", "sleeves", "panels"]
Hat = Literal["cap", "beanie", "brim"]
Bag = Literal["backpack", "shoulder", "hand", "suitcase"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """The clothing style of a domain's people."""

    name: str
    tops: Weighted[Top]
    bottoms: Weighted[Bottom]
    saturation: float
    """Colour saturation of clothes; 1 is that of the palette."""
    hats: float
    """Share of people with a hat."""
    bags: float
    """Share of people with a bag."""
    scarves: float
    """Share of people with a scarf."""


MIXED = Style(
    name="mixed",
    tops=(("tee", 4), ("long", 4), ("jacket", 3), ("coat", 1.5), ("hoodie", 2)),
    bottoms=(("trousers", 7), ("shorts", 2), ("skirt", 1.6), ("dress", 1)),
    saturation=1.0,
    hats=0.14,
    bags=0.5,
    scarves=0.05,
)
SUMMER = Style(
    name="summer",
    tops=(("tee", 7), ("long", 2), ("jacket", 0.6), ("hoodie", 0.5)),
    bottoms=(("trousers", 4), ("shorts", 4), ("skirt", 2.4), ("dress", 1.6)),
    saturation=1.15,
    hats=0.16,
    bags=0.45,
    scarves=0.05,
)
WINTER = Style(
    name="winter",
    tops=(("long", 2), ("jacket", 4), ("coat", 4), ("hoodie", 2)),
    bottoms=(("trousers", 9), ("skirt", 1)),
    saturation=0.7,
    hats=0.3,
    bags=0.55,
    scarves=0.3,
)

_WOMENS_HAIR: Weighted[Hair] = (("long", 2), ("short", 1), ("bob", 1), ("pony", 1), ("bun", 1))
_MENS_HAIR: Weighted[Hair] = (("short", 6), ("bald", 1), ("curly", 1.2), ("bob", 0.6))
_PATTERNS: Weighted[Pattern] = (
    ("plain", 9),
    ("hoops", 2.2),
    ("yoke", 1.8),
    ("sleeves", 1.6),
    ("stripes", 1.4),
    ("check", 1.4),
    ("panels", 1.4),
    ("dots", 1),
)
_HATS: tuple[Hat, ...] = ("cap", "beanie", "brim")
_BAGS: Weighted[Bag] = (("backpack", 4), ("shoulder", 3), ("hand", 2), ("suitcase", 0.8))
_VISIBLE_DIFFERENCE = 110
"""Least `distance` between the two colours of a pattern; with less, the pattern would not be visible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """All permanent properties of a person. Measures of the body are factors of the average."""

    height: float
    girth: float
    shoulders: float
    legs: float
    skin: Colour
    hair: Hair
    hair_colour: Colour

    top: Top
    top_colour: Colour
    second_colour: Colour
    """Colour of the pattern, the logo, the print on the back and the stripe along the legs."""
    inner_colour: Colour
    """Colour visible under an open jacket."""
    pattern: Pattern
    repeats: int
    """Number of repetitions of the pattern from neck to hip."""
    logo: bool
    """Whether there is a logo on the chest, visible only from the front."""
    back_print: bool
    """Whether there is a print on the back, visible only from behind."""

    bottom: Bottom
    bottom_colour: Colour
    leg_stripe: bool
    shoe_colour: Colour

    hat: Hat | None
    hat_colour: Colour
    """Of a scarf too."""
    scarf: bool
    bag: Bag | None
    bag_colour: Colour
    side: int
    """The side on which bags are carried: 1 left, -1 right."""


def draw_identity(stream: Stream, style: Style) -> Identity:
    """Draw a random person in the clothing style of a domain.

    Args:
        stream: Random numbers of the person.
        style: The clothing style.
    """
    woman = stream.chance(0.5)
    top = stream.weighted(style.tops)
    bottom = stream.weighted(style.bottoms)
    if bottom in ("skirt", "dress") and not woman:
        bottom = "trousers"
    if bottom == "dress" and top == "coat":  # a coat would hide a dress
        bottom = "skirt"
    top_colour = _cloth(stream, TOPS, style)
    second_colour = _cloth(stream, TOPS, style)
    if distance(top_colour, second_colour) < _VISIBLE_DIFFERENCE:
        second_colour = shade(top_colour, 1.7 if sum(top_colour) < 330 else 0.5)
    return Identity(
        height=(0.95 if woman else 1.03) * (1 + stream.normal(0, 0.045)),
        girth=max(0.8, 1 + stream.normal(0, 0.13)),
        shoulders=(0.94 if woman else 1.06) * (1 + stream.normal(0, 0.05)),
        legs=1 + stream.normal(0, 0.03),
        skin=vary(stream.choice(SKIN), 4, stream),
        hair=stream.weighted(_WOMENS_HAIR if woman else _MENS_HAIR),
        hair_colour=vary(stream.weighted(HAIR), 6, stream),
        top=top,
        top_colour=top_colour,
        second_colour=second_colour,
        inner_colour=_cloth(stream, TOPS, style),
        pattern=stream.weighted(_PATTERNS),
        repeats=3 + stream.below(4),
        logo=stream.chance(0.22),
        back_print=stream.chance(0.15),
        bottom=bottom,
        bottom_colour=_cloth(stream, BOTTOMS, style),
        leg_stripe=stream.chance(0.12),
        shoe_colour=vary(stream.weighted(SHOES), 5, stream),
        hat=stream.choice(_HATS) if stream.chance(style.hats) else None,
        hat_colour=_cloth(stream, TOPS, style),
        scarf=stream.chance(style.scarves),
        bag=stream.weighted(_BAGS) if stream.chance(style.bags) else None,
        bag_colour=vary(stream.weighted(BAGS), 7, stream),
        side=stream.side(),
    )


def _cloth(stream: Stream, colours: Weighted[Colour], style: Style) -> Colour:
    return vary(mute(stream.weighted(colours), style.saturation), 12, stream)
