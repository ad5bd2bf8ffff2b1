"""Ids of detections, "IMAGE#n": the n-th detection of an image, counted from left to right.

These are the numbers that numbered pictures, the app and the command line show. They depend only on an image and its stored
boxes, so an id keeps its meaning while other images are added, changed or removed.

    >>> detection_id("party.jpg", 2)
    'party.jpg#2'
    >>> parse_detection_id("walk.mp4#12.500#3")
    ('walk.mp4#12.500', 3)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pretrainps.errors import ArgumentError
from pretrainps.images.boxes import Box

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def detection_id(image: str, number: int) -> str:
    """Return the id of an image's n-th detection, counted from 1."""
    return f"{image}#{number}"


def parse_detection_id(text: str) -> tuple[str, int]:
    """Return the image and the number that an id names.

    The number stands after the last "#". Names of images can have a "#" themselves: those of a video's frames always do.

    Raises:
        ArgumentError: It is not an id.
    """
    image, mark, number = text.rpartition("#")
    if mark and image and _NUMBER.fullmatch(number):
        return image, int(number)
    raise ArgumentError(
        f"{text!r} is not the id of a detection. Write the image's name, '#', and the detection's number from 1, such as "
        f"{detection_id(text if text.strip('#') else 'party.jpg', 1)!r}."
    )


def left_to_right(boxes: Sequence[Box]) -> list[int]:
    """Return the places of boxes in the order in which they are numbered: by their centre, then by their upper edge."""
    return sorted(range(len(boxes)), key=lambda place: (boxes[place][0] + boxes[place][2], boxes[place][1]))
