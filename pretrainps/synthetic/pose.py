"""The pose of a person who stands or walks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pretrainps.synthetic.streams import Stream, Weighted

Activity = Literal["walk", "stand", "phone", "wave"]

_ACTIVITIES: Weighted[Activity] = (("walk", 6), ("stand", 3), ("phone", 0.7), ("wave", 0.3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """A pose, with angles in radians."""

    activity: Activity
    phase: float
    """Phase in the cycle of two steps."""
    stride: float
    """Swing of the legs to the front and to the back."""
    lean: float
    """Distance of the shoulders in front of the hips, in body heights."""
    arm_swing: float
    """Swing of the arms, as a factor of the stride."""
    arm_spread: float
    """Angle of the arms from the body, sideways."""
    elbow: float
    """Bend of the elbows."""
    head_turn: float
    """Rotation of the head relative to the body."""


def draw_pose(stream: Stream, activity: Activity | None = None) -> Pose:
    """Draw a random pose of a given activity, or of any."""
    doing = stream.weighted(_ACTIVITIES) if activity is None else activity
    walks = doing == "walk"
    return Pose(
        activity=doing,
        phase=stream.uniform(0, math.tau),
        stride=stream.uniform(0.25, 0.6) if walks else stream.uniform(0, 0.12),
        lean=stream.normal(0.05 if walks else 0.0, 0.03),
        arm_swing=stream.uniform(0.6, 1.2),
        arm_spread=stream.uniform(0.02, 0.14),
        elbow=stream.uniform(0.1, 0.6),
        head_turn=stream.normal(0, 0.35),
    )
