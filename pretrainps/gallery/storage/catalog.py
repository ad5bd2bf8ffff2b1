"""Who is in a gallery: people by their rows, images by their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from torch import Tensor

from pretrainps.gallery.results import Person
from pretrainps.gallery.storage.store import DetectionShard, ImageRecord

Place = tuple[int, int]
"""Where an image is: in which part, and which of its images."""


class Contents:
    """People of several files, numbered through.

    Args:
        parts: What the files hold, in order.
    """

    def __init__(self, parts: Sequence[DetectionShard]) -> None:
        self._parts = parts
        self._starts = list(accumulate((len(part) for part in parts), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def embeddings(self) -> list[Tensor]:
        """Everyone's, (N_i, D) a file."""
        return [part.embeddings for part in self._parts]

    @cached_property
    def images(self) -> dict[str, Place]:
        """Every image by its name."""
        return {
            record.name: (place, number) for place, part in enumerate(self._parts) for number, record in enumerate(part.images)
        }

    def person(self, row: int) -> Person:
        """Return who stands in a row."""
        place = bisect_right(self._starts, row) - 1
        part, row = self._parts[place], row - self._starts[place]
        x1, y1, x2, y2 = part.boxes[row].tolist()
        return Person(image=part.images[int(part.numbers[row])].name, box=(x1, y1, x2, y2), score=float(part.scores[row]))

    def record(self, image: Place) -> ImageRecord:
        """Return what is known of an image's file."""
        place, number = image
        return self._parts[place].images[number]

    def image_of(self, row: int) -> Place:
        """Return the image that someone is in."""
        place = bisect_right(self._starts, row) - 1
        return place, int(self._parts[place].numbers[row - self._starts[place]])

    def rows_of(self, image: Place) -> range:
        """Return the rows of everyone in an image."""
        place, number = image
        rows, first = self._parts[place].rows_of(number), self._starts[place]
        return range(first + rows.start, first + rows.stop)

    def seen_in(self, image: Place) -> tuple[DetectionShard, range]:
        """Return the part that an image is in, and its people's rows there."""
        place, number = image
        return self._parts[place], self._parts[place].rows_of(number)
