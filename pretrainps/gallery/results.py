"""What a gallery speaks of: a person in an image, an answer to a question, and all answers to one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pretrainps.images.boxes import Box as Box


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in an image."""

    image: str
    """Its name in the gallery: the path relative to the indexed folder, "/"-separated; "name.mp4#12.500" for a video's frame
    at 12.5 seconds. For a query from elsewhere, any name for people to read."""
    box: Box
    score: float
    """How sure the detector was, 0 to 1; 1 for a box that was drawn by hand."""

    def overlap(self, other: Person) -> float:
        """Return the intersection over union with another's box, wherever the two were seen."""
        width = min(self.box[2], other.box[2]) - max(self.box[0], other.box[0])
        height = min(self.box[3], other.box[3]) - max(self.box[1], other.box[1])
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (_area(self.box) + _area(other.box) - shared)

    def is_seen_as(self, other: Person) -> bool:
        """Return whether this is the very same sight: the same image, and boxes that overlap by more than half."""
        return self.image == other.image and self.overlap(other) > 0.5

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"image": self.image, "box": list(self.box), "score": self.score}


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer."""

    person: Person
    similarity: float
    """Cosine of query and answer, times the answer's detection score where the model is configured so."""
    rank: int
    """From 1, the best."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"rank": self.rank, "similarity": self.similarity, **self.person.to_json()}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All answers to one question, best first."""

    query: Person
    hits: tuple[Hit, ...]
    searched: int
    """People in the gallery."""
    images: int
    """Images in the gallery."""
    method: str
    """"exact", or how the answers were approximated, with the recall that was measured."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "query": self.query.to_json(), "hits": [hit.to_json() for hit in self.hits]}


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
