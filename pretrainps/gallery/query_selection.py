"""Choose who is searched for: detect the people in a photo, number them, and take one by number or by a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.gallery.results import Detection, numbered
from pretrainps.images.drawing import ANSWER, ASKED, draw_box, draw_label, fitted
from pretrainps.inference.runner import ImageInput, ModelRunner, only

_SHOWN = (960, 1600)
"""Least and most of a numbered picture's longer side in pixels. Numbers must be readable, and the whole be seen at once."""


def detect(model: PersonSearchDetector[Any], image: Image.Image, *, name: str = "query") -> list[Detection]:
    """Return the people that a detector finds in a photo, numbered from left to right.

    Args:
        model: A detector in eval mode.
        image: RGB and upright, as `pretrainps.images.read.read_image` returns it.
        name: The photo's name.

    Raises:
        ArgumentError: The photo is too thin for the detector, or the model is in training mode.
        NonFiniteError: The model answers with numbers that are not finite.
    """
    runner = ModelRunner(model, optimize=False)
    found = only(runner.detect([ImageInput(key=name, pixels=pil_to_tensor(image))]))
    return from_left_to_right(
        [Detection(name, tuple(box), score) for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True)]
    )


def from_left_to_right(detections: Sequence[Detection]) -> list[Detection]:
    """Return the detections of one image numbered, in the order of their numbers."""
    return sorted(numbered(detections), key=lambda each: each.number or 0)


def numbered_picture(image: Image.Image, detections: Sequence[Detection], *, chosen: int | None = None) -> Image.Image:
    """Return a copy of a photo, scaled to 960 to 1600 pixels, with a box and a number from 1 for each detection.

    Args:
        image: RGB and upright.
        detections: In the order of their numbers. Boxes are in pixels of the photo.
        chosen: The number that is drawn in another colour.
    """
    picture = fitted(image, least=_SHOWN[0], most=_SHOWN[1]).copy()
    across, down = picture.width / image.width, picture.height / image.height
    letters = max(picture.size) // 50
    boxes = [(d.box[0] * across, d.box[1] * down, d.box[2] * across, d.box[3] * down) for d in detections]
    colours = [ANSWER if number == chosen else ASKED for number in range(1, len(detections) + 1)]
    for box, colour in zip(boxes, colours, strict=True):
        draw_box(picture, box, colour, width=max(2, letters // 8))
    for number, (box, colour) in enumerate(zip(boxes, colours, strict=True), start=1):  # no box may cross a number
        draw_label(picture, (box[0], box[1]), str(number), colour, size=letters)
    return picture


def choose(detections: Sequence[Detection], number: int | None = None) -> Detection:
    """Return the detection of a number, or the only one.

    Args:
        detections: As `detect` returns them.
        number: From 1; `None` if there is only one.

    Raises:
        ArgumentError: There is no detection, none of that number, or several and no number.
    """
    if not detections:
        raise ArgumentError("no person was detected in the photo. Say where the person is, as x,y,width,height in pixels.")
    if number is None:
        if len(detections) > 1:
            raise ArgumentError(
                f"{len(detections)} people were detected in the photo. Choose one by number, 1 to {len(detections)}."
            )
        return detections[0]
    if not 1 <= number <= len(detections):
        there = (
            f"The numbers are 1 to {len(detections)}, from left to right." if len(detections) > 1 else "The only number is 1."
        )
        raise ArgumentError(f"there is no person {number} in the photo. {there}")
    return detections[number - 1]


def person_at(detections: Sequence[Detection], x: float, y: float) -> int | None:
    """Return the number of the person at a point, or `None`. Of several it is the smallest box, which is in front or inside.

    Args:
        detections: As `detect` returns them.
        x: Pixels from the left edge of the photo.
        y: Pixels from its upper edge.
    """

    def area(place: int) -> float:
        x1, y1, x2, y2 = detections[place].box
        return (x2 - x1) * (y2 - y1)

    hit = [
        place for place, each in enumerate(detections) if each.box[0] <= x <= each.box[2] and each.box[1] <= y <= each.box[3]
    ]
    return 1 + min(hit, key=area) if hit else None
