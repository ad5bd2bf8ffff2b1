"""Augmentation of scenes and crops: torchvision's v2 transforms, with boxes and ids kept consistent.

A detector resizes and normalizes scenes itself. This module has the random augmentation for training, and the transform
that turns crops into a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pretrainps.data.records import UNLABELLED, Sample

Target = dict[str, Any]
CropTransform = Callable[[Any], Tensor]


def scene_target(sample: Sample, height: int, width: int) -> Target:
    """Return a scene's annotation as tensors that torchvision's transforms move along with the pixels.

    People and regions to ignore are in one table, because some of those transforms accept only one.

    Args:
        sample: The record.
        height: Height of its image in pixels.
        width: Width of its image in pixels.

    Returns:
        `boxes` (N + M, 4) as `tv_tensors.BoundingBoxes`, `labels` (1 a person, 0 a region to ignore) and `ids` (N + M,).
    """
    rows = torch.from_numpy(np.concatenate([sample.boxes, sample.ignore]))
    ids = np.concatenate([sample.ids, np.full(len(sample.ignore), UNLABELLED, dtype=np.int64)])
    return {
        "boxes": tv_tensors.BoundingBoxes(rows, format="XYXY", canvas_size=(height, width)),
        "labels": (torch.arange(len(rows)) < len(sample.boxes)).long(),
        "ids": torch.from_numpy(ids),
    }


class SceneAugmentation:
    """Turns an image and its `scene_target` into bytes (3, H, W) and a detector's target.

    Scenes are large and come from worker processes through shared memory. So they stay bytes until they are on the training
    device, where `pretrainps.data.loading.fractions` makes floats of them.

    Boxes are clipped to the image. People with less than `smallest` pixels of width or height are then removed, with their ids.

    Args:
        flip: Probability of a horizontal flip. The papers' recipes use 0.5, and no other augmentation.
        colour: Strength of random brightness, contrast and saturation; 0.4 is usual.
        crop: Probability of a random crop that still holds people (as in SSD).
        smallest: Least width and height of a person's clipped box, in pixels.
    """

    def __init__(self, *, flip: float = 0.0, colour: float = 0.0, crop: float = 0.0, smallest: float = 1.0) -> None:
        self.smallest = smallest
        steps: list[Any] = [v2.ToImage()]
        if crop:
            steps.append(v2.RandomApply([_Crop()], p=crop))
        if flip:
            steps.append(v2.RandomHorizontalFlip(flip))
        if colour:
            steps.append(v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour))
        self._steps = v2.Compose([*steps, v2.ClampBoundingBoxes()])

    def __call__(self, picture: Any, target: Target) -> tuple[Tensor, Target]:
        """Return pixels and target."""
        image, moved = self._steps(picture, target)
        boxes = moved["boxes"].as_subclass(Tensor)
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= self.smallest).all(dim=1)
        people, others = keep & (moved["labels"] == 1), keep & (moved["labels"] == 0)
        found = {
            "boxes": boxes[people],
            "labels": moved["labels"][people],
            "ids": moved["ids"][people],
            "ignore": boxes[others],
        }
        return image.as_subclass(Tensor), found


class _Crop(v2.RandomIoUCrop):
    """`RandomIoUCrop` that also works on a scene without people."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) if len(inputs[1]["boxes"]) else inputs


def crop_transform(
    height: int, width: int, *, flip: float = 0.0, shift: int = 0, colour: float = 0.0, erase: float = 0.0
) -> CropTransform:
    """Return a transform from an image of a person to (3, height, width), float in 0..1.

    Args:
        height: Height of the result in pixels; 256 is usual.
        width: Width of the result in pixels; 128 is usual.
        flip: Probability of a horizontal flip; 0.5 is usual in training.
        shift: Greatest random shift in pixels, filled with black; 10 is usual in training.
        colour: Strength of random brightness, contrast and saturation.
        erase: Probability that a rectangle is erased; 0.5 is usual in training.
    """
    steps: list[Any] = [v2.ToImage(), v2.Resize((height, width), antialias=True)]
    if shift:
        steps += [v2.Pad(shift), v2.RandomCrop((height, width))]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if colour:
        steps.append(v2.ColorJitter(brightness=colour, contrast=colour, saturation=colour))
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if erase:
        steps.append(v2.RandomErasing(erase, value=0.5))
    steps.append(v2.ToPureTensor())
    return v2.Compose(steps)
