"""Re-ID crops: people cut out of scenes as a detector would, drawn through a window for speed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pretrainps.synthetic.background import Box
from pretrainps.synthetic.camera import Camera, find_camera
from pretrainps.synthetic.composition import Actor, compose
from pretrainps.synthetic.domains import Domain
from pretrainps.synthetic.identity import Identity, draw_identity
from pretrainps.synthetic.pose import draw_pose
from pretrainps.synthetic.scene import find_person
from pretrainps.synthetic.streams import Stream

_HEIGHTS = (0.2, 0.47)
"""How tall people in crops stand in the frame, in frame heights."""
_COMPANY = 0.25
"""How likely another person is near."""
_MOST_OTHERS = 3
_LOOSENESS = 0.06
"""How much the detector's boxes stray in place and size, as a share of their size."""
_ENOUGH = 0.55
"""Share of the person that should be seen."""
_TRIES = 6
_GIVES_UP = 0.04
"""How likely a crop that shows less stays all the same."""


def cameras_of(domain: Domain, seed: int, number: int, count: int) -> tuple[int, ...]:
    """Return the cameras that see a person, in order: as many as are asked for, or all that there are."""
    order = Stream("cameras", seed, domain.name, number).shuffled(range(domain.cameras))
    return tuple(sorted(order[:count]))


def draw_crop(
    domain: Domain, *, seed: int, split: str, number: int, camera: int, shot: int, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Draw one crop of a person: (H, W, 3) RGB.

    Args:
        domain: Where he is.
        seed: Of the world.
        split: The part of the data set.
        number: The person's.
        camera: Which camera takes it. It sees a person mostly from one side.
        shot: Which picture of that camera.
        size: Height and width to scale it to; without, it stays as it was cut.
    """
    stream = Stream("crop", seed, domain.name, split, number, camera, shot)
    heading = Stream("heading", seed, domain.name, number, camera).uniform(-math.pi, math.pi)
    view, who = find_camera(domain, seed, camera), find_person(domain, seed, number)
    light, fraction = _look(stream, view, who, heading)
    for _ in range(_TRIES - 1):
        if fraction > _ENOUGH or stream.chance(_GIVES_UP):
            break
        light, fraction = max((light, fraction), _look(stream, view, who, heading), key=lambda look: look[1])
    image = view.response.develop(light, stream)
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image)


def _look(stream: Stream, camera: Camera, who: Identity, heading: float) -> tuple[Image.Image, float]:
    """Return what is before the camera where a detector found a person, and how much of him is seen."""
    actors, window = _draw_situation(stream, camera, who, heading)
    light, appearances = compose(camera, actors, window)
    return light, next((seen.fraction for seen in appearances if seen.actor == 0), 0.0)


def _draw_situation(stream: Stream, camera: Camera, who: Identity, heading: float) -> tuple[list[Actor], Box]:
    """Make up where a person is, who is near him (he comes first), and the box that a detector draws around him."""
    domain = camera.domain
    height, width = domain.size
    row = min(camera.row_of(stream.uniform(*_HEIGHTS) * height), 0.99 * height)
    tall = camera.height_at(row) * who.height
    farthest = camera.row_of(0.3 * tall)
    x = stream.uniform(0.12, 0.88) * width
    actors = [Actor(who=who, pose=draw_pose(stream), x=x, y=row, yaw=heading + stream.normal(0, 0.5))]
    while stream.chance(_COMPANY) and len(actors) <= _MOST_OTHERS:
        actors.append(
            Actor(
                who=draw_identity(stream, domain.style),
                pose=draw_pose(stream),
                x=x + stream.uniform(-0.5, 0.5) * tall,
                y=max(farthest, row + stream.normal(0, 0.12) * tall),
                yaw=stream.uniform(-math.pi, math.pi),
            )
        )
    return actors, _draw_window(stream, domain, x, row, tall)


def _draw_window(stream: Stream, domain: Domain, x: float, row: float, tall: float) -> Box:
    """Make up the box of a detector around a person, cut at the frame's edges."""
    height, width = domain.size
    wide, high = tall * stream.uniform(0.38, 0.50), tall * 1.06
    x += stream.normal(0, _LOOSENESS) * wide
    y = row - 0.5 * tall + stream.normal(0, 0.6 * _LOOSENESS) * high
    half = 0.5 * math.exp(stream.normal(0, _LOOSENESS))
    left, top = max(0, int(x - wide * half)), max(0, int(y - high * half))
    return left, top, min(width, int(x + wide * half)), min(height, int(y + high * half))
