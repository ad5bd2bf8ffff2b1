"""Draw neck, hair, face and hat."""

from __future__ import annotations

import math

from pretrainps.synthetic.figure import Figure
from pretrainps.synthetic.palette import Colour, shade
from pretrainps.synthetic.skeleton import Point

_EYES: Colour = (40, 32, 30)
_ABOVE_SHOULDERS = 0.098
"""Distance from the shoulders to the centre of the head, in body heights."""


def draw_hair_behind(figure: Figure) -> None:
    """Draw long hair behind the neck; it is drawn before the trunk."""
    if figure.who.hair == "long" and figure.view.cos_yaw > -0.2:
        body, scale = figure.skeleton, figure.scale
        root = figure.view(0.0, body.shoulder + 0.085, body.lean - 0.03)
        half = scale * 0.062
        _draw_tress(figure, root, (half, half * 1.05), scale * 0.06, scale * 0.11, shade(figure.who.hair_colour, 0.8))


def draw_head(figure: Figure) -> None:
    """Draw the head from the neck up; it is drawn after the trunk."""
    body, scale = figure.skeleton, figure.scale
    neck = figure.view(0.0, body.shoulder + 0.01, body.lean)
    centre = figure.view(0.0, body.shoulder + _ABOVE_SHOULDERS, body.lean * 1.3)
    figure.bone(neck, centre, scale * 0.026, scale * 0.026, shade(figure.who.skin, 0.85))
    _draw_collar(figure, neck)
    turn = math.sin(figure.view.yaw + figure.pose.head_turn)
    radius = scale * 0.052
    across, up = radius * (1 + 0.08 * abs(turn)), radius * 1.25  # a head is deeper than wide
    _draw_hair(figure, centre, across, up)
    _draw_face(figure, centre, across, up)
    _draw_hair_at_the_back(figure)
    _draw_hat(figure, centre, across, up, turn)


def _draw_collar(figure: Figure, neck: Point) -> None:
    who, scale = figure.who, figure.scale
    if who.scarf:
        figure.oval(neck, scale * 0.05, scale * 0.03, scale * 0.022, shade(who.hat_colour, 0.95))
    elif who.top == "hoodie":
        figure.oval(neck, scale * 0.055, scale * 0.022, scale * 0.018, shade(who.top_colour, 0.8))


def _draw_hair(figure: Figure, centre: Point, across: float, up: float) -> None:
    who = figure.who
    volume = {"bald": 1.0, "curly": 1.22}.get(who.hair, 1.1)
    length = up * (1.25 if who.hair == "bob" else 1.0)
    figure.oval(centre, across * volume, up * volume, length, who.skin if who.hair == "bald" else who.hair_colour)


def _draw_face(figure: Figure, centre: Point, across: float, up: float) -> None:
    angle = figure.view.yaw + figure.pose.head_turn
    front, turn = math.cos(angle), math.sin(angle)
    if front <= -0.55:
        return
    half = across * (0.9 if front > 0.3 else 0.62 + 0.3 * max(0.0, front))
    x, y = centre[0] + turn * across * 0.42, centre[1]
    figure.oval((x, y), half, up * (0.9 if figure.who.hair == "bald" else 0.55), up * 1.02, figure.who.skin)
    if figure.scale > 150 and front > 0.2:  # on a smaller face the eyes would not be visible
        radius = figure.scale * 0.052
        for side in (-1, 1):
            eye = (x + side * half * 0.42 + turn * across * 0.12, y)
            figure.oval(eye, radius * 0.11, radius * 0.08, radius * 0.14, _EYES)


def _draw_hair_at_the_back(figure: Figure) -> None:
    who, body, scale = figure.who, figure.skeleton, figure.scale
    head = body.shoulder + _ABOVE_SHOULDERS
    if who.hair in ("long", "pony") and figure.view.cos_yaw < 0.3:
        half = scale * (0.058 if who.hair == "long" else 0.022)
        root = figure.view(0.0, head - 0.02, body.lean - 0.05)
        _draw_tress(figure, root, (half, half * 0.9), scale * 0.03, scale * 0.15, shade(who.hair_colour, 0.92))
    elif who.hair == "bun":
        figure.disc(figure.view(0.0, head + 0.055, body.lean - 0.04), scale * 0.025, shade(who.hair_colour, 0.9))


def _draw_tress(figure: Figure, root: Point, halves: tuple[float, float], up: float, down: float, colour: Colour) -> None:
    """Draw hanging hair, with half widths of its upper and its lower end."""
    x, y = root
    upper, lower = halves
    corners = [(x - upper, y - up), (x + upper, y - up), (x + lower, y + down), (x - lower, y + down)]
    figure.draw.polygon(corners, fill=colour)


def _draw_hat(figure: Figure, centre: Point, across: float, up: float, turn: float) -> None:
    who = figure.who
    if who.hat is None:
        return
    x, y = centre
    crown = (x - across * 1.18, y - up * 1.28, x + across * 1.18, y + up * 0.62)
    figure.draw.pieslice(crown, 180, 360, fill=who.hat_colour)
    if who.hat == "brim":
        figure.oval((x, y), across * 1.9, up * 0.45, -up * 0.12, shade(who.hat_colour, 0.85))
    elif who.hat == "cap":
        peak = x + turn * across * 1.9
        ends = (min(x, peak) - across * 0.5, y - up * 0.42, max(x, peak) + across * 0.5, y - up * 0.16)
        figure.draw.ellipse(ends, fill=shade(who.hat_colour, 0.8))
