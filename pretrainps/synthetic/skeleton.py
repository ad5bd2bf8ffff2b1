"""The joints of a body in space, and their projection to a canvas.

A body's axes are left, up and forward, with the origin between its feet; lengths are in body heights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pretrainps.synthetic.identity import Identity
from pretrainps.synthetic.pose import Pose

Point = tuple[float, float]
"""x, y on the canvas in pixels."""
Joint = tuple[float, float, float]
"""A point of the body: left, up, forward in body heights."""

LEFT, RIGHT = 1, -1
SIDES = (LEFT, RIGHT)

_SOLE = 0.03
"""Distance from the ankle to the ground, in body heights."""
_LOOSE = {"tee": 1.0, "long": 1.0, "hoodie": 1.12, "jacket": 1.14, "coat": 1.16}
"""Extra width of a top over the body in it, as a factor."""


class Limb(NamedTuple):
    """A leg or an arm."""

    root: Joint
    middle: Joint
    """Knee or elbow."""
    end: Joint
    """Ankle or wrist."""


class Ring(NamedTuple):
    """A cross-section of the trunk: an ellipse."""

    height: float
    width: float
    """Half of the width."""
    depth: float
    """Half of the depth."""
    forward: float = 0.0


class View:
    """Parallel projection of a rotated body, seen from above.

    Args:
        scale: Pixels for each body height.
        feet: Position of the feet on the canvas.
        yaw: Rotation away from facing the camera, to the body's left, in radians.
        pitch: Downward angle of the camera, in radians.
    """

    __slots__ = ("_cos_pitch", "_sin_pitch", "_x", "_y", "cos_yaw", "scale", "sin_yaw", "yaw")

    def __init__(self, scale: float, feet: Point, yaw: float, pitch: float) -> None:
        self.scale = scale
        self.yaw = yaw
        self.cos_yaw, self.sin_yaw = math.cos(yaw), math.sin(yaw)
        self._cos_pitch, self._sin_pitch = math.cos(pitch), math.sin(pitch)
        self._x, self._y = feet

    def __call__(self, left: float, up: float, forward: float) -> Point:
        """Project a point in space to the canvas."""
        near = forward * self.cos_yaw - left * self.sin_yaw
        return (
            self._x + self.scale * (left * self.cos_yaw + forward * self.sin_yaw),
            self._y - self.scale * (up * self._cos_pitch - near * self._sin_pitch),
        )

    def nearness(self, joint: Joint) -> float:
        """Return by how much a point is nearer to the camera than the body's axis, in body heights."""
        return joint[2] * self.cos_yaw - joint[0] * self.sin_yaw

    def half_width(self, ring: Ring) -> float:
        """Return half of the projected width of a cross-section, in body heights."""
        return math.hypot(ring.width * self.cos_yaw, ring.depth * self.sin_yaw)


class Skeleton:
    """The joints of a person in a pose, standing on the ground."""

    def __init__(self, who: Identity, pose: Pose) -> None:
        self.puff = _LOOSE[who.top]
        self.lean = pose.lean
        girth = who.girth
        self.shoulder_width = 0.118 * who.shoulders * (0.85 + 0.15 * girth)
        self.chest_depth = 0.062 * girth
        self.hip_width, self.hip_depth = 0.094 * (0.6 + 0.4 * girth), 0.066 * girth
        legs = {side: _leg(0.49 * who.legs, 0.245 * who.legs, side, pose) for side in SIDES}
        lift = _SOLE - min(leg.end[1] for leg in legs.values())  # the lower foot stands on the ground
        self.legs = {side: Limb(*((left, up + lift, forward) for left, up, forward in leg)) for side, leg in legs.items()}
        self.hip = 0.49 * who.legs + lift
        self.shoulder = self.hip + 0.325
        self.arms = {side: self._arm(side, who, pose) for side in SIDES}
        self.trunk = self._trunk(who)

    def _arm(self, side: int, who: Identity, pose: Pose) -> Limb:
        swing, bend, spread = -side * pose.stride * math.sin(pose.phase) * pose.arm_swing, pose.elbow, pose.arm_spread
        if side == who.side and pose.activity == "phone":
            swing, bend = 0.5, 2.0
        if side == who.side and pose.activity == "wave":
            swing, bend, spread = 2.4, 0.5, 0.5
        shoulder = (side * self.shoulder_width * 0.96, self.shoulder - 0.02, self.lean * 0.8)
        elbow = (
            shoulder[0] + side * 0.16 * math.sin(spread),
            shoulder[1] - 0.165 * math.cos(swing) * math.cos(spread),
            shoulder[2] + 0.165 * math.sin(swing),
        )
        wrist = (
            elbow[0] + side * 0.05 * math.sin(spread),
            elbow[1] - 0.15 * math.cos(swing + bend),
            elbow[2] + 0.15 * math.sin(swing + bend),
        )
        return Limb(shoulder, elbow, wrist)

    def _trunk(self, who: Identity) -> tuple[Ring, ...]:
        """Return the cross-sections under the top, from the neck down."""
        puff, lean, hip, shoulder = self.puff, self.lean, self.hip, self.shoulder
        hip_width, hip_depth = self.hip_width * puff, self.hip_depth * puff
        hem = (hip - 0.2, 1.12) if who.top == "coat" else (hip - 0.03, 1.0)
        rings = [
            Ring(shoulder + 0.012, self.shoulder_width * 0.62 * puff, self.chest_depth * 0.8 * puff, lean),
            Ring(shoulder - 0.015, self.shoulder_width * puff, self.chest_depth * puff, lean * 0.9),
            Ring((shoulder + hip) / 2 + 0.02, 0.095 * who.girth * puff, 0.066 * who.girth * puff, lean * 0.45),
            Ring(hip, hip_width, hip_depth),
            Ring(hem[0], hip_width * hem[1], hip_depth * hem[1]),
        ]
        if who.bottom == "dress" and who.top in ("tee", "long"):
            rings += [
                Ring(hip - 0.12, self.hip_width * 1.3, self.hip_depth * 1.35),
                Ring(hip - 0.22, self.hip_width * 1.5, self.hip_depth * 1.5),
            ]
        return tuple(rings)

    def trunk_surface(self, down: float, longitude: float) -> Joint:
        """Return a point on the surface of the top.

        Args:
            down: Position from 0 at the neck to 1 at the hem.
            longitude: Angle from 0 in front over pi / 2 on the left to pi at the back.
        """
        place = down * (len(self.trunk) - 1)
        index = min(len(self.trunk) - 2, int(place))
        share = place - index
        above, below = self.trunk[index], self.trunk[index + 1]
        height, width, depth, forward = (a + (b - a) * share for a, b in zip(above, below, strict=True))
        return width * math.sin(longitude), height, forward + depth * math.cos(longitude)


def _leg(hip_height: float, thigh: float, side: int, pose: Pose) -> Limb:
    """Return a leg with the hip at its usual height; the foot may be anywhere."""
    swing = side * pose.stride * math.sin(pose.phase)
    half_a_cycle = 0 if side == LEFT else math.pi
    bend = 0.05 + max(0.0, 1.5 * pose.stride * math.sin(pose.phase + half_a_cycle - 1.2))
    knee = (side * 0.054, hip_height - thigh * math.cos(swing), thigh * math.sin(swing))
    shin = 0.97 * thigh
    ankle = (side * 0.05, knee[1] - shin * math.cos(swing - bend), knee[2] + shin * math.sin(swing - bend))
    return Limb((side * 0.052, hip_height, 0.0), knee, ankle)
