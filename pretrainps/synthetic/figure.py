"""A projected body on a canvas, and the primitives for drawing clothes, bags and hair on it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from PIL import ImageDraw

from pretrainps.synthetic.identity import Identity
from pretrainps.synthetic.palette import Colour
from pretrainps.synthetic.pose import Pose
from pretrainps.synthetic.skeleton import SIDES, Joint, Point, Ring, Skeleton, View

_LIMIT = 1.5
"""Largest angle to the camera's direction at which a surface is visible, in radians: slightly below a right angle."""


class Figure:
    """A person in a pose, projected to a canvas.

    Args:
        draw: The canvas.
        who: The person.
        pose: The pose.
        view: The projection.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, who: Identity, pose: Pose, view: View) -> None:
        self.draw = draw
        self.who = who
        self.pose = pose
        self.view = view
        self.scale = view.scale
        self.skeleton = Skeleton(who, pose)

    @property
    def seen_from_behind(self) -> bool:
        """Whether the back is nearer than the chest."""
        return self.view.cos_yaw <= 0

    @property
    def near_side(self) -> int:
        """The side nearer to the camera: 1 left, -1 right."""
        return max(SIDES, key=lambda side: self.view.nearness((side, 0.0, 0.0)))

    def at(self, joint: Joint) -> Point:
        """Return the position of a point of the body on the canvas."""
        return self.view(*joint)

    def surface(self, down: float, longitude: float) -> Point:
        """Return the position of a point of the top on the canvas; see `Skeleton.trunk_surface`."""
        return self.view(*self.skeleton.trunk_surface(down, longitude))

    def width(self, share: float) -> int:
        """Convert a line width from body heights to pixels."""
        return max(1, int(self.scale * share))

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Draw a disc; the radius is in pixels."""
        x, y = centre
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def oval(self, centre: Point, across: float, up: float, down: float, colour: Colour) -> None:
        """Draw an ellipse with these distances from a point to its edges, in pixels."""
        x, y = centre
        self.draw.ellipse((x - across, y - up, x + across, y + down), fill=colour)

    def box(self, centre: Point, across: float, up: float, down: float, colour: Colour) -> None:
        """Draw a rectangle with these distances from a point to its edges, in pixels."""
        x, y = centre
        self.draw.rectangle((x - across, y - up, x + across, y + down), fill=colour)

    def bone(self, start: Point, end: Point, start_radius: float, end_radius: float, colour: Colour) -> None:
        """Draw a part of a limb: two discs and the area between them. Radii are in pixels."""
        along, down = end[0] - start[0], end[1] - start[1]
        length = math.hypot(along, down) or 1.0
        x, y = -down / length, along / length  # across the limb
        self.draw.polygon(
            [
                (start[0] + x * start_radius, start[1] + y * start_radius),
                (end[0] + x * end_radius, end[1] + y * end_radius),
                (end[0] - x * end_radius, end[1] - y * end_radius),
                (start[0] - x * start_radius, start[1] - y * start_radius),
            ],
            fill=colour,
        )
        self.disc(start, start_radius, colour)
        self.disc(end, end_radius, colour)

    def outline(self, rings: Iterable[Ring], colour: Colour) -> None:
        """Fill the outline of a body given by its cross-sections."""
        left: list[Point] = []
        right: list[Point] = []
        for ring in rings:
            x, y = self.view(0.0, ring.height, ring.forward)
            half = self.scale * self.view.half_width(ring)
            left.append((x - half, y))
            right.append((x + half, y))
        self.draw.polygon(left + right[::-1], fill=colour)

    def patch(self, top: float, bottom: float, start: float, end: float, colour: Colour, steps: int = 2) -> None:
        """Paint the visible part of a piece of the top.

        Args:
            top: Its upper edge, from 0 at the neck to 1 at the hem.
            bottom: Its lower edge, on the same scale.
            start: Longitude of its first edge, in radians; see `Skeleton.trunk_surface`.
            end: Longitude of its last edge.
            colour: Colour of the paint.
            steps: Number of straight lines in its upper and lower edge.
        """
        # on the canvas x = width sin(longitude) cos(yaw) + depth cos(longitude) sin(yaw), so that the surface faces the
        # camera where cos(longitude + yaw) > 0, if width and depth do not differ much
        middle = -self.view.yaw
        first = (start - middle + math.pi) % math.tau - math.pi
        for turn in (0.0, math.tau):  # a piece that goes round the back may be visible on the other side
            low, high = max(first - turn, -_LIMIT), min(first - turn + end - start, _LIMIT)
            if high - low > 0.05:
                longitudes = [middle + low + (high - low) * step / steps for step in range(steps + 1)]
                edge = [self.surface(top, longitude) for longitude in longitudes]
                self.draw.polygon(edge + [self.surface(bottom, longitude) for longitude in reversed(longitudes)], fill=colour)

    def band(self, top: float, bottom: float, colour: Colour) -> None:
        """Paint a piece of the top all around; see `patch`."""
        self.patch(top, bottom, -math.pi, math.pi - 0.01, colour)
