"""What a gallery answers: a detection in an image, a hit of a search, and all hits of one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pretrainps.gallery.detection_ids import detection_id, left_to_right
from pretrainps.images.boxes import Box as Box


@dataclass(frozen=True, slots=True)
class Detection:
    """A person in an image: where, and how sure the detector was."""

    image: str
    """The image's name in the gallery: its path relative to the indexed folder, "/"-separated. The frame of a video at 12.5
    seconds is called "name.mp4#12.500". For a query from elsewhere it is any name for people to read."""
    box: Box
    """x1, y1, x2, y2 in pixels of the upright image."""
    score: float
    """How sure the detector was, 0 to 1. A box that was drawn by hand has 1."""
    number: int | None = None
    """The detection's number in its image, counted from left to right from 1. A box that was drawn by hand has none."""

    @property
    def id(self) -> str | None:
        """The detection's id, "IMAGE#n", which does not change while other images do. A box drawn by hand has none."""
        return None if self.number is None else detection_id(self.image, self.number)

    def overlap(self, other: Detection) -> float:
        """Return the intersection over union with another box, whichever images the two are in."""
        width = min(self.box[2], other.box[2]) - max(self.box[0], other.box[0])
        height = min(self.box[3], other.box[3]) - max(self.box[1], other.box[1])
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (_area(self.box) + _area(other.box) - shared)

    def is_seen_as(self, other: Detection) -> bool:
        """Return whether both show the same person in the same image: their boxes overlap by more than half."""
        return self.image == other.image and self.overlap(other) > 0.5

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"id": self.id, "image": self.image, "box": list(self.box), "score": self.score}


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search."""

    detection: Detection
    """Who was found, and where."""
    similarity: float
    """Cosine of query and answer, times the answer's detection score where the model is configured so."""
    rank: int
    """The answer's place, from 1, the best."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"rank": self.rank, "similarity": self.similarity, **self.detection.to_json()}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All answers of a search, the best first."""

    query: Detection
    """Who was searched for."""
    hits: tuple[Hit, ...]
    """The answers."""
    searched: int
    """Number of detections in the gallery."""
    images: int
    """Number of images in the gallery."""
    method: str
    """"exact", or how the answers were approximated, with the recall that was measured."""
    seconds: float
    """How long the search took."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "query": self.query.to_json(), "hits": [hit.to_json() for hit in self.hits]}


def numbered(detections: Sequence[Detection]) -> list[Detection]:
    """Return the detections of one image with their numbers, in the given order."""
    numbers = {place: number for number, place in enumerate(left_to_right([each.box for each in detections]), start=1)}
    return [replace(each, number=numbers[place]) for place, each in enumerate(detections)]


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
