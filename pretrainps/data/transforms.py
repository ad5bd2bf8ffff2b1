"""What is done to images before a network sees them: torchvision's v2 transforms, with boxes and ids kept in step.

Resizing and normalizing scenes is the detector's own work. Here is what is random in training, and what turns crops into a
batch.
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

    People and regions to ignore stand in one table, for some of those transforms know of one only.

    Args:
        sample: The record.
        height: Of its picture.
        width: Of its picture.

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
    """From picture and `scene_target` to bytes (3, H, W) and a detector's target.

    Scenes are large, and processes that read hand them over in shared memory, so they stay bytes until they are on the device
    that trains: `pretrainps.data.loading.fractions`.

    Boxes are cut off at the border; people left with less than `smallest` pixels of width or height leave, with their ids.

    Args:
        flip: Probability of mirroring. The papers' recipes: 0.5, and nothing else.
        colour: Strength of random brightness, contrast, saturation; 0.4 is usual.
        crop: Probability of cutting a part out that still holds people (as SSD does).
        smallest: Pixels.
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
    """`RandomIoUCrop` that also works where nobody is."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) if len(inputs[1]["boxes"]) else inputs


def crop_transform(
    height: int, width: int, *, flip: float = 0.0, shift: int = 0, colour: float = 0.0, erase: float = 0.0
) -> CropTransform:
    """Return a transform from a person's picture to (3, height, width), float in 0..1.

    Args:
        height: Pixels; 256 is usual,
        width: with 128.
        flip: Probability of mirroring; 0.5 is usual in training.
        shift: Pixels that the picture is moved by at most, in training (10 is usual); black comes in.
        colour: Strength of random brightness, contrast, saturation.
        erase: Probability of blanking a rectangle; 0.5 is usual in training.
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
