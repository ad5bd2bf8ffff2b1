"""Fixed cameras: background, perspective, and objects in the view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from pretrainps.synthetic.background import Box, draw_background
from pretrainps.synthetic.domains import Domain
from pretrainps.synthetic.objects import draw_object
from pretrainps.synthetic.person import Sprite
from pretrainps.synthetic.photography import Response, draw_response
from pretrainps.synthetic.streams import Stream

_SMALLEST_OBJECT = 14
"""No object is placed where a person would be smaller than this, in pixels of a frame 320 pixels high."""

_WIDEST_OBJECT = 0.6
"""Largest width of an object, in frame widths: a real camera would not be placed where a car blocks the view."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """A camera that does not move."""

    index: int
    domain: Domain
    seed: int
    """Seed of the world."""
    horizon: float
    """The row of the horizon, in pixels."""
    nearest: float
    """Height of a person with feet at the lower edge, in pixels."""
    pitch: float
    response: Response
    light: int
    """The side of the light: 1 left, -1 right."""
    shadow: float
    """Darkness of shadows."""
    background: Image.Image
    posters: tuple[Box, ...]
    """Boxes of people on posters in the background."""
    objects: tuple[tuple[float, float, Sprite], ...]
    """Objects in the view: the row and the column of the foot, and the sprite."""

    @property
    def growth(self) -> float:
        """By how many pixels a person's height grows for each row nearer to the camera."""
        return self.nearest / (self.domain.size[0] - self.horizon)

    def height_at(self, row: float) -> float:
        """Return the height in pixels of an average person with feet in a row."""
        return self.growth * (row - self.horizon)

    def row_of(self, height: float) -> float:
        """Return the row of the feet of a person of this height in pixels."""
        return self.horizon + height / self.growth


@lru_cache(maxsize=64)
def find_camera(domain: Domain, seed: int, index: int) -> Camera:
    """Return a camera of a domain. Recent cameras are cached, because one takes as long as two or three scenes.

    Args:
        domain: The domain.
        seed: Seed of the world.
        index: Number of the camera, from 0; a domain uses `Domain.cameras` of them, but any number works.
    """
    stream = Stream("camera", seed, domain.name, index)
    height, width = domain.size
    horizon = stream.uniform(*domain.horizon) * height
    nearest = stream.uniform(*domain.nearest) * height
    growth = nearest / (height - horizon)
    pitch = stream.uniform(*domain.pitch)
    response = draw_response(domain, seed, stream)
    light, shadow = stream.side(), stream.uniform(0.15, 0.55)
    background, posters = draw_background(domain.size, horizon=int(horizon), unit=domain.unit, stream=stream)
    objects = []
    for _ in range(2 + stream.below(6)):
        row, column = horizon + (height - horizon) * stream.uniform(0.08, 1.02), stream.uniform(0, width)
        person = growth * (row - horizon)
        if person >= _SMALLEST_OBJECT * domain.unit:
            thing = draw_object(stream, person=person)
            if thing.mask.width <= _WIDEST_OBJECT * width:
                objects.append((row, column, thing))
    return Camera(
        index=index,
        domain=domain,
        seed=seed,
        horizon=horizon,
        nearest=nearest,
        pitch=pitch,
        response=response,
        light=light,
        shadow=shadow,
        background=background,
        posters=posters,
        objects=tuple(objects),
    )
