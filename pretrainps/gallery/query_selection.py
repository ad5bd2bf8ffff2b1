"""Choose whom to search for: detect everyone on a photo, number them, take one by number or by a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.gallery.results import Person
from pretrainps.images.drawing import ANSWER, ASKED, draw_box, draw_label, fitted

_SHOWN = (960, 1600)
"""Least and most of a numbered picture's longer side in pixels: numbers must be read, and the whole be seen."""


def detect(model: PersonSearchDetector[Any], image: Image.Image, *, name: str = "query") -> list[Person]:
    """Return everyone a detector finds on a photo, from left to right: the order in which they are numbered.

    Args:
        model: In eval mode.
        image: RGB and upright, as `pretrainps.images.read.read_image` gives it.
        name: What the photo is called.

    Raises:
        ArgumentError: the photo is too thin for the detector, or the model is in training mode.
    """
    if model.training:
        raise ArgumentError("detecting needs the model in eval mode: call model.eval() first.")
    device = next(model.parameters()).device
    with torch.inference_mode():
        (found,) = model([pil_to_tensor(image).to(device).float() / 255])
    boxes, scores = found["boxes"].tolist(), found["scores"].tolist()
    people = [Person(image=name, box=tuple(box), score=score) for box, score in zip(boxes, scores, strict=True)]
    return from_left_to_right(people)


def from_left_to_right(people: Sequence[Person]) -> list[Person]:
    """Return people in the order in which they are numbered."""
    return sorted(people, key=lambda person: (person.box[0] + person.box[2], person.box[1]))


def numbered_picture(image: Image.Image, people: Sequence[Person], *, chosen: int | None = None) -> Image.Image:
    """Return a copy of a photo, scaled to 960 to 1600 pixels, with a box and a number from 1 on everyone.

    Args:
        image: RGB and upright.
        people: In the order in which they are numbered; boxes in the photo's pixels.
        chosen: The number of the one who is drawn in another colour.
    """
    picture = fitted(image, least=_SHOWN[0], most=_SHOWN[1]).copy()
    across, down = picture.width / image.width, picture.height / image.height
    letters = max(picture.size) // 50
    boxes = [(p.box[0] * across, p.box[1] * down, p.box[2] * across, p.box[3] * down) for p in people]
    colours = [ANSWER if number == chosen else ASKED for number in range(1, len(people) + 1)]
    for box, colour in zip(boxes, colours, strict=True):
        draw_box(picture, box, colour, width=max(2, letters // 8))
    for number, (box, colour) in enumerate(zip(boxes, colours, strict=True), start=1):  # no box may cross a number
        draw_label(picture, (box[0], box[1]), str(number), colour, size=letters)
    return picture


def choose(people: Sequence[Person], number: int | None = None) -> Person:
    """Return the person of a number, or the only one.

    Args:
        people: As `detect` returns them.
        number: From 1; `None` if there is only one.

    Raises:
        ArgumentError: there is nobody; nobody of that number; or several and no number.
    """
    if not people:
        raise ArgumentError("nobody was detected on the photo. Say where the person is, as x,y,width,height in pixels.")
    if number is None:
        if len(people) > 1:
            raise ArgumentError(f"{len(people)} people were detected on the photo. Choose one by number, 1 to {len(people)}.")
        return people[0]
    if not 1 <= number <= len(people):
        there = f"1 to {len(people)}, from left to right" if len(people) > 1 else "1 alone"
        raise ArgumentError(f"there is no person {number} on the photo. The numbers are {there}.")
    return people[number - 1]


def person_at(people: Sequence[Person], x: float, y: float) -> int | None:
    """Return the number of the person at a point, `None` where nobody is; of several the smallest, who is in front or inside.

    Args:
        people: As `detect` returns them.
        x: Pixels from the left edge of the photo.
        y: Pixels from its upper edge.
    """

    def area(place: int) -> float:
        x1, y1, x2, y2 = people[place].box
        return (x2 - x1) * (y2 - y1)

    hit = [place for place, each in enumerate(people) if each.box[0] <= x <= each.box[2] and each.box[1] <= y <= each.box[3]]
    return 1 + min(hit, key=area) if hit else None
