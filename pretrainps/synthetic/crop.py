"""Re-ID crops: people cropped as a detector would do it. Only a window of the scene is drawn, for speed."""

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
"""Range of the height of people in crops, in frame heights."""
_COMPANY = 0.25
"""Probability of another person nearby."""
_MOST_OTHERS = 3
_LOOSENESS = 0.06
"""Random error of the detector's boxes in position and size, as a share of their size."""
_ENOUGH = 0.55
"""Share of the person that should be visible."""
_TRIES = 6
_GIVES_UP = 0.04
"""Probability that a crop with less visible is kept nevertheless."""


def cameras_of(domain: Domain, seed: int, number: int, count: int) -> tuple[int, ...]:
    """Return the cameras that see a person, in order: `count` of them, or all if there are fewer."""
    order = Stream("cameras", seed, domain.name, number).shuffled(range(domain.cameras))
    return tuple(sorted(order[:count]))


def draw_crop(
    domain: Domain, *, seed: int, split: str, number: int, camera: int, shot: int, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Draw one crop of a person: (H, W, 3) RGB.

    Args:
        domain: The domain.
        seed: Seed of the world.
        split: Name of the split.
        number: World number of the person.
        camera: Number of the camera. It sees a person mostly from one side.
        shot: Number of the image by that camera.
        size: Height and width to resize it to; by default it keeps its size.
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
    """Return the camera's view in a detector's box of a person, and the person's visible share."""
    actors, window = _draw_situation(stream, camera, who, heading)
    light, appearances = compose(camera, actors, window)
    return light, next((seen.fraction for seen in appearances if seen.actor == 0), 0.0)


def _draw_situation(stream: Stream, camera: Camera, who: Identity, heading: float) -> tuple[list[Actor], Box]:
    """Draw the place of a person, the people nearby, and a detector's box. The person comes first among the actors."""
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
    """Draw a detector's box around a person, clipped to the frame."""
    height, width = domain.size
    wide, high = tall * stream.uniform(0.38, 0.50), tall * 1.06
    x += stream.normal(0, _LOOSENESS) * wide
    y = row - 0.5 * tall + stream.normal(0, 0.6 * _LOOSENESS) * high
    half = 0.5 * math.exp(stream.normal(0, _LOOSENESS))
    left, top = max(0, int(x - wide * half)), max(0, int(y - high * half))
    return left, top, min(width, int(x + wide * half)), min(height, int(y + high * half))
