"""How somebody stands or walks at one instant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pretrainps.synthetic.streams import Stream, Weighted

Activity = Literal["walk", "stand", "phone", "wave"]

_ACTIVITIES: Weighted[Activity] = (("walk", 6), ("stand", 3), ("phone", 0.7), ("wave", 0.3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pose:
    """Angles of one instant, in radians."""

    activity: Activity
    phase: float
    """Where in the cycle of two steps."""
    stride: float
    """How far the legs swing to the front and to the back."""
    lean: float
    """How far the shoulders are before the hips, in body heights."""
    arm_swing: float
    """Of the arms, as a factor on the stride."""
    arm_spread: float
    """How far the arms are from the body, sideways."""
    elbow: float
    """How much the elbows are bent."""
    head_turn: float
    """Of the head against the body."""


def draw_pose(stream: Stream, activity: Activity | None = None) -> Pose:
    """Make up a pose, of any activity or of a given one."""
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
