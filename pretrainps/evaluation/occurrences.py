"""Where the searched people appear, and which detections may stand for them.

Which boxes overlap does not depend on the query. So it is computed once for all occurrences of all people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrainps.images.boxes import iou, whole_pixels
from pretrainps.inference.detections import F32, I64, Detections, spread


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidates:
    """The detections that may be the person, among the n detections of one query's gallery."""

    detections: I64
    """(n,) row in the table of each of them."""
    places: I64
    """(C,) places, in 0..n-1, of those that overlap the person enough."""
    groups: I64
    """(C,) occurrence that each of these may stand for, ascending."""
    occurrences: int
    """Number of times that the person is in the gallery."""


class Occurrences:
    """Where people appear, in groups that belong to one query or one person, and the detections that overlap them enough.

    Args:
        groups: (E,) group of each occurrence, ascending.
        num_groups: How many groups there are.
        frames: (E,) image of each.
        boxes: (E, 4).
        table: The gallery.
    """

    def __init__(self, groups: I64, num_groups: int, frames: I64, boxes: F32, table: Detections) -> None:
        whole = whole_pixels(boxes)
        width, height = (whole[:, 2:] - whole[:, :2]).astype(np.float64).T
        enough = np.minimum(0.5, width * height / ((width + 10) * (height + 10)))
        occurrence, detection = spread(table.starts[frames], table.counts[frames])
        met = iou(table.boxes[detection], whole[occurrence]) >= enough[occurrence]
        self.frames = frames
        self.occurrence, self.detection = occurrence[met], detection[met]
        self.bounds = np.searchsorted(groups, np.arange(num_groups + 1))
        self.candidate_bounds = np.searchsorted(self.occurrence, self.bounds)

    def frames_of(self, group: int | None) -> I64:
        """Return the images of a group's occurrences; of none, none."""
        return self.frames[:0] if group is None else self.frames[self.bounds[group] : self.bounds[group + 1]]

    def candidates_of(self, group: int | None) -> tuple[I64, I64]:
        """Return the detections that overlap a group's occurrences enough, and which occurrence each overlaps."""
        part = slice(0) if group is None else slice(self.candidate_bounds[group], self.candidate_bounds[group + 1])
        return self.detection[part], self.occurrence[part]
