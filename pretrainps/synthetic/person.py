"""Draw a person: far parts first, then smoothed edges and light from one side."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pretrainps.synthetic.bags import (
    draw_backpack,
    draw_hand_bag,
    draw_shoulder_bag,
    draw_shoulder_strap,
    draw_straps,
    draw_suitcase,
)
from pretrainps.synthetic.clothes import draw_arm, draw_bottom, draw_leg, draw_top
from pretrainps.synthetic.figure import Figure
from pretrainps.synthetic.head import draw_hair_behind, draw_head
from pretrainps.synthetic.identity import Identity
from pretrainps.synthetic.pose import Pose
from pretrainps.synthetic.skeleton import SIDES, Point, View

_OVERSAMPLING = 2
"""Factor by which figures are drawn larger; averaging then smooths their edges."""
_SHADING_STEP = 8
"""Shading is cached for sizes in steps of this many pixels."""


class Sprite(NamedTuple):
    """A cut-out image to paste into another one."""

    colours: Image.Image
    """RGB."""
    mask: Image.Image
    """Opacity of each pixel, 0 to 255."""
    foot: Point
    """Its point on the ground, in its own pixels."""


def draw_person(who: Identity, pose: Pose, *, height: float, yaw: float, pitch: float = 0.12, light: int = 1) -> Sprite:
    """Draw a person as a sprite.

    Args:
        who: The person.
        pose: The pose.
        height: Height of an average person, in pixels.
        yaw: Rotation away from facing the camera, to the person's left, in radians.
        pitch: Downward angle of the camera, in radians.
        light: The side of the light in the image: 1 left, -1 right.
    """
    scale = height * _OVERSAMPLING * who.height
    width, tall = int(scale) + 4, int(scale * 1.24) + 4
    feet = (width * 0.5, tall - scale * 0.07)
    canvas = Image.new("RGBA", (width, tall), (0, 0, 0, 0))
    _draw(Figure(ImageDraw.Draw(canvas), who, pose, View(scale, feet, yaw, pitch)))
    small = canvas.reduce(_OVERSAMPLING)
    box = small.getchannel("A").getbbox() or (0, 0, *small.size)
    small = small.crop(box)
    colours = ImageChops.multiply(small.convert("RGB"), _shading(*small.size, light))
    return Sprite(colours, small.getchannel("A"), (feet[0] / _OVERSAMPLING - box[0], feet[1] / _OVERSAMPLING - box[1]))


def _draw(figure: Figure) -> None:
    """Draw all parts of a figure, the farthest first."""
    who, near = figure.who, figure.near_side
    far_arm, near_arm = _far_to_near_arms(figure)
    far_leg, near_leg = _far_to_near_legs(figure)
    if who.bag == "suitcase":
        draw_suitcase(figure)
    draw_hair_behind(figure)
    _draw_arm(figure, far_arm, light=0.8)
    if who.bag == "backpack" and not figure.seen_from_behind:
        draw_backpack(figure, light=0.8)
    if who.bag == "shoulder" and who.side != near:
        draw_shoulder_bag(figure, light=0.8)
    draw_leg(figure, far_leg, light=0.82)
    draw_leg(figure, near_leg, light=1.0)
    draw_bottom(figure)
    draw_top(figure)
    if who.bag == "backpack" and not figure.seen_from_behind:
        draw_straps(figure)
    if who.bag == "shoulder":
        draw_shoulder_strap(figure)
        if who.side == near:
            draw_shoulder_bag(figure, light=1.0)
    draw_head(figure)
    if who.bag == "backpack" and figure.seen_from_behind:
        draw_backpack(figure, light=1.0)
    _draw_arm(figure, near_arm, light=0.95)


def _draw_arm(figure: Figure, side: int, light: float) -> None:
    draw_arm(figure, side, light)
    if figure.who.bag == "hand" and side == figure.who.side:
        draw_hand_bag(figure, light)


def _far_to_near_arms(figure: Figure) -> list[int]:
    arms, nearness = figure.skeleton.arms, figure.view.nearness
    return sorted(SIDES, key=lambda side: nearness(arms[side].root) + 0.3 * nearness(arms[side].end))


def _far_to_near_legs(figure: Figure) -> list[int]:
    legs, nearness = figure.skeleton.legs, figure.view.nearness
    return sorted(SIDES, key=lambda side: nearness(legs[side].middle) + 0.2 * nearness(legs[side].root))


def _shading(width: int, height: int, light: int) -> Image.Image:
    """Return the light on each pixel of a sprite, as an image to multiply with."""
    columns, rows = math.ceil((width + 1) / _SHADING_STEP), math.ceil((height + 1) / _SHADING_STEP)
    return _ramp(columns * _SHADING_STEP, rows * _SHADING_STEP, light).crop((0, 0, width, height))


@lru_cache(maxsize=512)
def _ramp(width: int, height: int, light: int) -> Image.Image:
    across, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    share = 1.06 - 0.42 * (across if light > 0 else 1 - across) - 0.12 * down
    grey = (255 * np.clip(share, 0.4, 1.0)).astype(np.uint8)  # (H, W)
    return Image.fromarray(grey).convert("RGB")
