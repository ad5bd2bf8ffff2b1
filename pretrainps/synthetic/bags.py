"""Draw bags. A bag is drawn before or after the body, depending on its side."""

from __future__ import annotations

from pretrainps.synthetic.figure import Figure
from pretrainps.synthetic.palette import Colour, shade
from pretrainps.synthetic.skeleton import SIDES, Ring

_HANDLE: Colour = (60, 60, 60)


def draw_backpack(figure: Figure, light: float) -> None:
    """Draw a backpack; seen from behind, with its pocket."""
    body, view, colour = figure.skeleton, figure.view, figure.who.bag_colour
    width, depth = body.shoulder_width * 0.82, 0.075
    behind = -(body.chest_depth * body.puff + 0.055)
    rings = (
        Ring(body.shoulder - 0.01, width * 0.7, depth * 0.8, behind),
        Ring(body.shoulder - 0.07, width, depth, behind),
        Ring(body.hip + 0.06, width, depth * 1.1, behind),
        Ring(body.hip + 0.03, width * 0.8, depth, behind),
    )
    figure.outline(rings, shade(colour, light))
    if view.cos_yaw < 0:
        pocket = view(0.0, body.hip + 0.12, behind - depth)
        half = figure.scale * 0.03
        figure.box(pocket, figure.scale * width * 0.5 * -view.cos_yaw, half, half, shade(colour, light * 0.7))


def draw_straps(figure: Figure) -> None:
    """Draw the straps of a backpack over the chest."""
    for side in SIDES:
        line = [figure.surface(0.03, side * 0.88), figure.surface(0.55, side * 1.045)]
        figure.draw.line(line, fill=shade(figure.who.bag_colour, 0.85), width=figure.width(0.018))


def draw_shoulder_bag(figure: Figure, light: float) -> None:
    """Draw a shoulder bag at the hip."""
    body, who, scale = figure.skeleton, figure.who, figure.scale
    centre = figure.view(who.side * (body.hip_width * body.puff + 0.035), body.hip + 0.02, -0.01)
    half_width = scale * (0.035 + 0.04 * abs(figure.view.sin_yaw))
    figure.box(centre, half_width, scale * 0.06, scale * 0.06, shade(who.bag_colour, light))


def draw_shoulder_strap(figure: Figure) -> None:
    """Draw the strap of a shoulder bag across the chest, if the chest is visible."""
    if figure.view.cos_yaw > -0.2:
        line = [figure.surface(0.02, -figure.who.side), figure.surface(0.8, figure.who.side * 1.1)]
        figure.draw.line(line, fill=shade(figure.who.bag_colour, 0.8), width=figure.width(0.014))


def draw_hand_bag(figure: Figure, light: float) -> None:
    """Draw a hand bag."""
    x, y = figure.at(figure.skeleton.arms[figure.who.side].end)
    half = figure.scale * 0.055
    top, bottom = y + half * 0.6, y + half * 2.2
    corners = [(x - half, top), (x + half, top), (x + half * 1.2, bottom), (x - half * 1.2, bottom)]
    figure.draw.polygon(corners, fill=shade(figure.who.bag_colour, light))


def draw_suitcase(figure: Figure) -> None:
    """Draw a suitcase, pulled behind the person."""
    side, scale, colour = figure.who.side, figure.scale, figure.who.bag_colour
    hand = figure.at(figure.skeleton.arms[side].end)
    x, ground = figure.view(side * 0.2, 0.0, -0.12)
    half, height = scale * (0.075 + 0.03 * abs(figure.view.cos_yaw)), scale * 0.26
    figure.draw.line([figure.view(side * 0.2, 0.26, -0.12), hand], fill=_HANDLE, width=figure.width(0.012))
    figure.box((x, ground), half, height, 0.0, shade(colour, 0.95))
    seam = ground - height * 0.35
    figure.draw.line([(x - half, seam), (x + half, seam)], fill=shade(colour, 0.6), width=figure.width(0.01))
