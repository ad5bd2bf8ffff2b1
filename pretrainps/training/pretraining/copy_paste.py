"""Copy-paste: people of re-ID crops are pasted into scenes of detection data, where a detector must recognize them.

A crop shows one person, always at the same size, and nothing around them. In a scene people are usually smaller, and others
stand next to them. A network that learned on crops tells the same people apart far less well in scenes, above all a network
that also learns detection (docs/training.md). Detection data show how large people are and what surrounds them; re-ID data say
who they are. So here a crop takes the size of a person in the batch's scenes, and a place among the people there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList

from pretrainps.detectors.transform import Size

_PLACES = 12
"""Number of places that are tried for a crop."""
_COVERED = 0.2
"""Largest share of the smaller of two people that the other may cover, if such a place is found."""
_SMALLEST = 16
"""Height in pixels below which a person cannot be recognized: the stride of the maps."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PastedScenes:
    """Scenes with people of crops in them."""

    images: ImageList
    """(K, 3, H, W); the scenes with crops of one data set follow those of another."""
    boxes: list[Tensor]
    """For each scene (P, 4): the places of its crops."""
    order: Tensor
    """(N,) the number of the crop in each box, over all scenes."""
    counts: list[int]
    """Number of scenes with crops of each data set."""


@torch.no_grad()
def paste(crops: Tensor, counts: Sequence[int], scenes: ImageList, people: Sequence[Tensor], *, per_scene: int) -> PastedScenes:
    """Paste crops into copies of scenes. The scene, mirroring, size and place are drawn at random.

    Neighbours in a batch are pictures of one person. They are distributed over the scenes in turn: otherwise the scene would
    show which person it is. Where there is no room, people cover each other, as in a crowd.

    Args:
        crops: (N, 3, h, w), normalized as the scenes are.
        counts: Number of crops of each data set. Crops of two data sets are never pasted into the same scene.
        scenes: At least one scene.
        people: For each scene (P, 4), the people in it, for their sizes. Without people, crops keep their size.
        per_scene: Largest number of crops in a scene.
    """
    figures = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in torch.cat(list(people)).tolist()]
    figures = [each for each in figures if each[1] >= _SMALLEST] or [(float(crops.shape[3]), float(crops.shape[2]))]
    starts = itertools.accumulate(counts, initial=0)
    portions = [_dealt(start, count, per_scene) for start, count in zip(starts, counts, strict=False)]
    pixels, sizes, boxes = [], [], []
    for numbers in itertools.chain.from_iterable(portions):
        index = _draw(len(scenes.image_sizes))
        size = scenes.image_sizes[index]
        scene = _mirrored(scenes.tensors[index], size) if _draw(2) else scenes.tensors[index].clone()
        places: list[Box] = []
        for number in numbers:
            place = x1, y1, x2, y2 = _place(figures[_draw(len(figures))], size, places)
            scene[:, y1:y2, x1:x2] = _resized(crops[number], (y2 - y1, x2 - x1))
            places.append(place)
        pixels.append(scene)
        sizes.append(size)
        boxes.append(torch.tensor(places, dtype=torch.float32, device=crops.device))
    order = [number for portion in portions for numbers in portion for number in numbers]
    return PastedScenes(
        ImageList(torch.stack(pixels), sizes),
        boxes,
        torch.tensor(order, device=crops.device),
        [len(portion) for portion in portions],
    )


def _draw(below: int) -> int:
    """Return a whole number from 0 to `below` - 1, from torch's generator, whose state a resumed run restores."""
    return int(torch.randint(below, ()))


def _dealt(start: int, count: int, most: int) -> list[range]:
    """Distribute `count` numbers in turn over as few parts as possible, each with at most `most`."""
    parts = math.ceil(count / most)
    return [range(start + part, start + count, parts) for part in range(parts)]


def _mirrored(scene: Tensor, size: Size) -> Tensor:
    """Return a copy whose picture, without the padding, is mirrored."""
    mirrored = scene.clone()
    mirrored[:, : size[0], : size[1]] = scene[:, : size[0], : size[1]].flip(-1)
    return mirrored


def _place(figure: tuple[float, float], size: Size, others: Sequence[Box]) -> Box:
    """Return a place for a person of that size with a small overlap with others, or the best of those tried."""
    height, width = size
    wide, high = (max(1, min(round(figure[0]), width)), max(1, min(round(figure[1]), height)))
    found: list[tuple[float, Box]] = []
    for _ in range(_PLACES):
        x, y = _draw(width - wide + 1), _draw(height - high + 1)
        box = x, y, x + wide, y + high
        found.append((max((_covered(box, other) for other in others), default=0.0), box))
        if found[-1][0] <= _COVERED:
            break
    return min(found)[1]


def _covered(one: Box, other: Box) -> float:
    """Return the share of the smaller box that lies in the larger one."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0, width) * max(0, height) / smaller


def _resized(crop: Tensor, size: Size) -> Tensor:
    return F.interpolate(crop[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
