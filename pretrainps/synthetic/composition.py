"""Compose people and objects in a camera's view, the farthest first, and measure how much of each person is visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pretrainps.synthetic.background import Box
from pretrainps.synthetic.camera import Camera
from pretrainps.synthetic.identity import Identity
from pretrainps.synthetic.palette import Colour
from pretrainps.synthetic.person import Sprite, draw_person
from pretrainps.synthetic.pose import Pose

_SOLID = 110
"""Least value of a mask for a pixel to count as covered."""
_SHADOW: Colour = (18, 18, 22)


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """A person at a place in a scene."""

    who: Identity
    pose: Pose
    x: float
    """The column and the row of the feet in the frame, in pixels."""
    y: float
    yaw: float
    """Rotation away from facing the camera, in radians."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Appearance:
    """The visible extent of an actor. Boxes are in pixels of the image."""

    actor: int
    """Index of the actor."""
    full: Box
    """Box around the whole figure, clipped to the image."""
    visible: Box
    """Box around the visible part."""
    fraction: float
    """Visible share of the figure's pixels; pixels outside the image are not visible."""


def compose(camera: Camera, actors: Sequence[Actor], window: Box | None = None) -> tuple[Image.Image, tuple[Appearance, ...]]:
    """Return the view of a camera and the visible people in it, the farthest first.

    Args:
        camera: The camera. Its response is not applied.
        actors: The people.
        window: The part of the frame to draw, by default all of it. Its pixels do not depend on the window.
    """
    height, width = camera.domain.size
    left, top, right, bottom = window or (0, 0, width, height)
    image = camera.background.crop((left, top, right, bottom))
    owner = np.zeros((bottom - top, right - left), np.uint16)  # (H, W): 0, or the number of the figure in front, from 1
    figures: list[tuple[int, Box, Sprite]] = []
    things: list[tuple[float, int]] = [(actor.y, index) for index, actor in enumerate(actors)]
    things += [(row, -1 - index) for index, (row, _, _) in enumerate(camera.objects)]
    for _, index in sorted(things, key=lambda thing: thing[0]):
        if index < 0:
            row, column, sprite = camera.objects[-1 - index]
            box = _place(sprite, column, row, (left, top))
            if _reaches(box, image.size):
                image.paste(sprite.colours, box[:2], sprite.mask)
                _cover(owner, sprite, box, 0)
            continue
        actor = actors[index]
        tall = camera.height_at(actor.y)
        sprite = draw_person(actor.who, actor.pose, height=tall, yaw=actor.yaw, pitch=camera.pitch, light=camera.light)
        box = _place(sprite, actor.x, actor.y, (left, top))
        if _reaches(box, image.size):
            _cast_shadow(image, box, camera, tall)
            image.paste(sprite.colours, box[:2], sprite.mask)
            figures.append((index, box, sprite))
            _cover(owner, sprite, box, len(figures))
    seen = (_appearance(owner, number, *figure) for number, figure in enumerate(figures, 1))
    return image, tuple(appearance for appearance in seen if appearance is not None)


def _place(sprite: Sprite, x: float, y: float, origin: tuple[int, int]) -> Box:
    """Return the box of a sprite at a position in the frame, in pixels of a window at `origin`."""
    left, top = round(x - sprite.foot[0]) - origin[0], round(y - sprite.foot[1]) - origin[1]
    return left, top, left + sprite.mask.width, top + sprite.mask.height


def _reaches(box: Box, size: tuple[int, int]) -> bool:
    return box[0] < size[0] and box[1] < size[1] and box[2] > 0 and box[3] > 0


def _clip(box: Box, shape: tuple[int, ...]) -> Box:
    """Return the part of a box inside an image of shape (H, W)."""
    return max(0, box[0]), max(0, box[1]), min(shape[1], box[2]), min(shape[0], box[3])


def _cover(owner: NDArray[np.uint16], sprite: Sprite, box: Box, number: int) -> None:
    """Record the sprite as the owner of the pixels under it."""
    x1, y1, x2, y2 = _clip(box, owner.shape)
    solid = np.asarray(sprite.mask)[y1 - box[1] : y2 - box[1], x1 - box[0] : x2 - box[0]] > _SOLID
    owner[y1:y2, x1:x2][solid] = number


def _appearance(owner: NDArray[np.uint16], number: int, actor: int, box: Box, sprite: Sprite) -> Appearance | None:
    """Return the visible extent of a figure, or `None` if all of it is hidden."""
    x1, y1, x2, y2 = _clip(box, owner.shape)
    seen = owner[y1:y2, x1:x2] == number
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    visible = (x1 + int(columns[0]), y1 + int(rows[0]), x1 + int(columns[-1]) + 1, y1 + int(rows[-1]) + 1)
    solid = np.count_nonzero(np.asarray(sprite.mask) > _SOLID)
    fraction = float(np.count_nonzero(seen) / solid)
    return Appearance(actor=actor, full=(x1, y1, x2, y2), visible=visible, fraction=fraction)


def _cast_shadow(image: Image.Image, figure: Box, camera: Camera, tall: float) -> None:
    """Darken the ground under a figure."""
    width, height = max(4, int(0.8 * (figure[2] - figure[0]))), max(3, int(0.07 * tall))
    left = (figure[0] + figure[2]) // 2 - width // 2 + int(0.22 * width * camera.light)
    top = figure[3] - height + height // 3
    image.paste(_SHADOW, (left, top), _shadow(width, height, int(255 * camera.shadow)))


@lru_cache(maxsize=1024)
def _shadow(width: int, height: int, darkness: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse((0, 0, width - 1, height - 1), fill=darkness)
    return mask
