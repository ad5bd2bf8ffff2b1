"""Draw whole scenes with the annotation that a human annotator would make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.records import UNLABELLED, Boxes, Ids, as_boxes
from pretrainps.synthetic.background import Box
from pretrainps.synthetic.camera import Camera, find_camera
from pretrainps.synthetic.composition import Actor, Appearance, compose
from pretrainps.synthetic.domains import Domain
from pretrainps.synthetic.identity import Identity, draw_identity
from pretrainps.synthetic.pose import draw_pose
from pretrainps.synthetic.streams import Stream

_LEAST_VISIBLE = 0.25
"""Share of a person that must be visible for an annotation."""
_NOTICED = 0.02
"""Below this visible share, a person is not annotated at all, not even as a region to ignore."""
_TRIES = 5
"""Number of attempts to draw a scene in which no required person is hidden."""
_RECOGNISABLE = 0.14
"""Least height of a labelled person, in frame heights."""

GroundPoint = tuple[float, float]
"""Column and row of a person's feet in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """An image with its annotation. Boxes are x1, y1, x2, y2 in whole pixels, inside the image."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: Boxes
    """(N, 4) boxes around whole people, including hidden parts."""
    visible: Boxes
    """(N, 4) boxes around their visible parts."""
    numbers: Ids
    """(N,) the person's world number, or `UNLABELLED`."""
    ignore: Boxes
    """(M, 4) regions to ignore: posters, and people who are too small or too much hidden."""
    camera: int


def find_person(domain: Domain, seed: int, number: int) -> Identity:
    """Return a person of a domain, the same at each call.

    Args:
        domain: The domain; the same number is another person in another domain.
        seed: Seed of the world.
        number: World number of the person, from 0.
    """
    return draw_identity(Stream("person", seed, domain.name, domain.style.name, number), domain.style)


def draw_scene(
    domain: Domain, *, seed: int, split: str, index: int, camera: int | None = None, people: Sequence[int] = ()
) -> Scene:
    """Draw a scene.

    Args:
        domain: The domain.
        seed: Seed of the world.
        split: Name of the split.
        index: Number of the scene in it.
        camera: Number of the camera; by default a random one.
        people: World numbers of people who must be visible; about one in a thousand is hidden nevertheless. All others are
        passers-by, who appear only once.
    """
    stream = Stream("scene", seed, domain.name, split, index)
    view = find_camera(domain, seed, stream.below(domain.cameras) if camera is None else camera)
    for _ in range(_TRIES):
        numbers, actors = _draw_people(stream, view, people)
        light, appearances = compose(view, actors)
        annotated = [seen for seen in appearances if _is_annotated(seen, domain)]
        if {numbers[seen.actor] for seen in annotated}.issuperset(people):
            break
    overlooked = [seen.full for seen in appearances if not _is_annotated(seen, domain) and seen.fraction > _NOTICED]
    return Scene(
        pixels=np.array(view.response.develop(light, stream)),
        boxes=as_boxes([seen.full for seen in annotated]),
        visible=as_boxes([seen.visible for seen in annotated]),
        numbers=np.array([numbers[seen.actor] for seen in annotated], dtype=np.int64),
        ignore=as_boxes([box for box in (*overlooked, *view.posters) if _is_box(box)]),
        camera=view.index,
    )


def _draw_people(stream: Stream, camera: Camera, people: Sequence[int]) -> tuple[list[int], list[Actor]]:
    """Draw the positions, poses and looks of the people in a scene.

    Returns:
        The world number of each, or `UNLABELLED`; and the actors.
    """
    domain = camera.domain
    count = round(stream.uniform(*domain.people))
    places = _draw_places(stream, camera, max(count, len(people)))
    numbers = _assign(stream, camera, places, people)
    actors = []
    for (x, y), number in zip(places, numbers, strict=True):
        who = draw_identity(stream, domain.style) if number == UNLABELLED else find_person(domain, camera.seed, number)
        yaw = stream.uniform(-math.pi, math.pi)
        actors.append(Actor(who=who, pose=draw_pose(stream), x=x, y=y, yaw=yaw))
    return numbers, actors


def _draw_places(stream: Stream, camera: Camera, count: int) -> list[GroundPoint]:
    """Distribute people over the ground; some stand in pairs."""
    domain = camera.domain
    height, width = domain.size
    farthest = camera.row_of(domain.smallest * height)
    places: list[GroundPoint] = []
    while len(places) < count:
        x = stream.uniform(-0.02, 1.02) * width
        y = farthest + (1.1 * height - farthest) * stream.uniform(0, 1) ** 0.8
        places.append((x, y))
        while stream.chance(domain.company) and len(places) < count:
            tall = camera.height_at(y)
            x += tall * stream.uniform(0.2, 0.45) * stream.side()
            y = min(1.12 * height, max(farthest, y + tall * stream.normal(0, 0.05)))
            places.append((x, y))
    return places


def _assign(stream: Stream, camera: Camera, places: list[GroundPoint], people: Sequence[int]) -> list[int]:
    """Give the labelled people the places with the best view; add places if there are too few.

    Returns:
        The world number of the person at each place, or `UNLABELLED`.
    """
    height, width = camera.domain.size
    numbers = [UNLABELLED] * len(places)
    good = [
        index
        for index, (x, y) in enumerate(places)
        if camera.height_at(y) >= _RECOGNISABLE * height and 0.04 * width < x < 0.96 * width and y < 1.02 * height
    ]
    for index, number in zip(good, people, strict=False):
        numbers[index] = number
    for number in people[len(good) :]:
        tall = stream.uniform(_RECOGNISABLE * height, min(0.47 * height, camera.nearest))
        places.append((stream.uniform(0.08, 0.92) * width, camera.row_of(tall)))
        numbers.append(number)
    return numbers


def _is_annotated(seen: Appearance, domain: Domain) -> bool:
    tall_enough = seen.full[3] - seen.full[1] >= 0.8 * domain.smallest * domain.size[0]
    return seen.fraction >= _LEAST_VISIBLE and tall_enough and _is_box(seen.full) and _is_box(seen.visible)


def _is_box(box: Box) -> bool:
    """Whether a box is at least two pixels wide and high."""
    return box[2] - box[0] >= 2 and box[3] - box[1] >= 2
