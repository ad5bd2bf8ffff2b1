"""Cameras: a fixed place, the perspective of it, and what stands there."""

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
"""Where a person would be smaller than this in a frame 320 pixels high, nothing is put up."""

_WIDEST_OBJECT = 0.6
"""In frame widths: nobody hangs a camera behind a car that it cannot see past."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Camera:
    """A camera that does not move."""

    index: int
    domain: Domain
    seed: int
    """Of the world."""
    horizon: float
    """The row of the horizon."""
    nearest: float
    """How tall a person is whose feet are at the lower edge, in pixels."""
    pitch: float
    response: Response
    light: int
    """The side from which the light comes: 1 left, -1 right."""
    shadow: float
    """How dark shadows are."""
    background: Image.Image
    posters: tuple[Box, ...]
    """Where the background shows people who are none."""
    objects: tuple[tuple[float, float, Sprite], ...]
    """What stands there: the row and the column of its foot, and its look."""

    @property
    def growth(self) -> float:
        """How many pixels a person grows with each row that he comes nearer."""
        return self.nearest / (self.domain.size[0] - self.horizon)

    def height_at(self, row: float) -> float:
        """Return how tall a person of usual height is whose feet are in a row, in pixels."""
        return self.growth * (row - self.horizon)

    def row_of(self, height: float) -> float:
        """Return the row in which the feet of a person are who is this tall in pixels."""
        return self.horizon + height / self.growth


@lru_cache(maxsize=64)
def find_camera(domain: Domain, seed: int, index: int) -> Camera:
    """Return a camera of a domain. The last ones that were asked for are kept: one takes as long as two or three scenes.

    Args:
        domain: Where it hangs.
        seed: Of the world.
        index: From 0; a domain uses as many as it says, but there is no end of them.
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
