"""Draw legs, arms and trunk with their clothes."""

from __future__ import annotations

import math

from pretrainps.synthetic.figure import Figure
from pretrainps.synthetic.palette import shade
from pretrainps.synthetic.skeleton import SIDES, Ring


def draw_leg(figure: Figure, side: int, light: float) -> None:
    """Draw a leg with its shoe, in lighter or darker colours."""
    who, scale = figure.who, figure.scale
    leg = figure.skeleton.legs[side]
    hip, knee, ankle = figure.at(leg.root), figure.at(leg.middle), figure.at(leg.end)
    left, up, forward = leg.end
    heel, toe = figure.view(left, up - 0.012, forward - 0.015), figure.view(left, up - 0.012, forward + 0.075)
    skin, cloth = shade(who.skin, light), shade(who.bottom_colour, light)
    bare = who.bottom != "trousers"
    thigh, calf = scale * 0.047 * (0.55 + 0.45 * who.girth), scale * 0.031 * (0.6 + 0.4 * who.girth)
    figure.bone(heel, toe, scale * 0.020, scale * 0.016, shade(who.shoe_colour, light))
    figure.bone(knee, ankle, calf * 0.95, calf * 0.66, skin if bare else cloth)
    if who.bottom in ("skirt", "dress"):
        figure.bone(hip, knee, thigh * 0.9, calf, skin)
    else:
        figure.bone(hip, knee, thigh, calf * (1.15 if who.bottom == "shorts" else 1.0), cloth)
    if who.leg_stripe and not bare:
        figure.draw.line([hip, knee, ankle], fill=shade(who.second_colour, light), width=figure.width(0.012))


def draw_arm(figure: Figure, side: int, light: float) -> None:
    """Draw an arm with its sleeve and hand."""
    who = figure.who
    shoulder, elbow, wrist = (figure.at(joint) for joint in figure.skeleton.arms[side])
    skin = shade(who.skin, light)
    cloth = shade(who.second_colour if who.pattern == "sleeves" else who.top_colour, light)
    thick = 1.2 if who.top in ("coat", "jacket", "hoodie") else 1.0
    radius = figure.scale * 0.027 * (0.6 + 0.4 * who.girth) * thick
    figure.disc(wrist, radius * 0.8, skin)
    if who.top == "tee":
        figure.bone(elbow, wrist, radius * 0.85, radius * 0.66, skin)
        figure.bone(shoulder, elbow, radius, radius * 0.8, skin)
        hem = (shoulder[0] + (elbow[0] - shoulder[0]) * 0.55, shoulder[1] + (elbow[1] - shoulder[1]) * 0.55)
        figure.bone(shoulder, hem, radius * 1.15, radius * 1.1, cloth)
    else:
        figure.bone(elbow, wrist, radius * 0.85, radius * 0.66, cloth)
        figure.bone(shoulder, elbow, radius * 1.05, radius * 0.9, cloth)


def draw_bottom(figure: Figure) -> None:
    """Draw the part of trousers, shorts or skirt around the hips."""
    who, body = figure.who, figure.skeleton
    hip, width, depth = body.hip, body.hip_width, body.hip_depth
    if who.bottom == "skirt":
        rings = (
            Ring(hip + 0.05, width, depth),
            Ring(hip - 0.06, width * 1.2, depth * 1.3),
            Ring(hip - 0.2, width * 1.42, depth * 1.5),
        )
    elif who.bottom == "dress":
        return  # a dress is drawn with the trunk, down to its hem
    else:
        rings = (Ring(hip + 0.05, width, depth), Ring(hip - 0.02, width, depth), Ring(hip - 0.06, width * 0.9, depth))
    figure.outline(rings, who.bottom_colour)


def draw_top(figure: Figure) -> None:
    """Draw the trunk with its pattern, logo and print."""
    who = figure.who
    figure.outline(figure.skeleton.trunk, who.top_colour)
    _draw_pattern(figure)
    if who.top in ("jacket", "coat"):  # a jacket is open, a coat has a row of buttons
        figure.patch(0.0, 1.0, -0.32, 0.32, who.inner_colour if who.top == "jacket" else shade(who.top_colour, 0.75))
    if who.logo and who.top != "coat":
        figure.patch(0.30, 0.55, -0.45, 0.45, who.second_colour)
    if who.back_print:
        figure.patch(0.25, 0.62, math.pi - 0.6, math.pi + 0.6, who.second_colour)


def _draw_pattern(figure: Figure) -> None:
    who = figure.who
    colour, repeats = who.second_colour, who.repeats
    match who.pattern:
        case "hoops":
            for row in range(repeats):
                figure.band((row + 0.5) / repeats, (row + 1) / repeats, colour)
        case "stripes":
            _draw_stripes(figure, 2 * repeats + 2, 0.5, 1.0)
        case "check":
            _draw_stripes(figure, repeats + 4, 0.3, 0.9)
            for row in range(repeats):
                figure.band((row + 0.5) / repeats, (row + 0.75) / repeats, colour)
        case "yoke":
            figure.band(0.0, 0.30 + 0.05 * (repeats % 3), colour)
        case "panels":
            for side in SIDES:
                figure.patch(0.0, 1.0, side * math.pi / 2 - 0.7, side * math.pi / 2 + 0.7, colour)
        case "dots":
            _draw_dots(figure)
        case "plain" | "sleeves":  # sleeves of another colour are drawn with the arms
            pass


def _draw_stripes(figure: Figure, count: int, share: float, light: float) -> None:
    """Draw stripes from neck to hem that cover a share of the surface."""
    colour = shade(figure.who.second_colour, light)
    for number in range(count):
        figure.patch(0.04, 1.0, math.tau * number / count, math.tau * (number + share) / count, colour, steps=1)


def _draw_dots(figure: Figure) -> None:
    rows, columns = figure.who.repeats + 1, 8
    for row in range(rows):
        for column in range(columns):
            longitude = math.tau * (column + 0.5 * (row % 2)) / columns
            if math.cos(longitude + figure.view.yaw) > 0.15:
                figure.disc(figure.surface((row + 0.5) / rows, longitude), figure.scale * 0.011, figure.who.second_colour)
