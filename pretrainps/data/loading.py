"""PyTorch data sets and loaders: scenes with targets, crops with ids, and a policy for images that cannot be read."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from pretrainps.data.batching import BatchSampler, Draw
from pretrainps.data.records import Sample, Split, pixels_of
from pretrainps.data.transforms import CropTransform, SceneAugmentation, Target, scene_target
from pretrainps.errors import DatasetError, ImageError

T = TypeVar("T")
B = TypeVar("B")
log = logging.getLogger("pretrainps")


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """An image that could not be read."""

    name: str
    reason: str


class Scenes(Dataset[Any]):
    """A search or detection split: (3, H, W) bytes, and a target with boxes, labels, ids, ignore and the image's name.

    Args:
        split: The images and their annotation.
        transform: Augmentation of each image and its target.
    """

    def __init__(self, split: Split, transform: SceneAugmentation) -> None:
        self.samples, self.transform = split.samples, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Target] | ReadFailure:
        sample = self.samples[draw.item]

        def ready(picture: Image.Image) -> tuple[Tensor, Target]:
            image, target = self.transform(picture, scene_target(sample, picture.height, picture.width))
            return image, {**target, "name": sample.name}

        return _seeded(sample, draw.seed, ready)


class Crops(Dataset[Any]):
    """A re-ID split, or the people of a search split: (3, h, w) float, the id and the camera (-1: unknown).

    Args:
        split: The images and their annotation.
        transform: Augmentation of each crop, from `crop_transform`.
        boxes: (P, 2) the people to use: index of the sample and of the box in it; by default, everyone.
    """

    def __init__(self, split: Split, transform: CropTransform, boxes: np.ndarray[Any, Any] | None = None) -> None:
        self.samples, self.transform = split.samples, transform
        if boxes is None:
            boxes = np.array([(i, j) for i, sample in enumerate(split.samples) for j in range(len(sample.boxes))])
        self.boxes = boxes.reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, int] | ReadFailure:
        place, person = (int(each) for each in self.boxes[draw.item])
        sample = self.samples[place]

        def ready(picture: Image.Image) -> tuple[Tensor, int, int]:
            camera = -1 if sample.camera is None else sample.camera
            ends = pixels_of(sample.boxes[person], height=picture.height, width=picture.width)
            return self.transform(picture.crop(ends)), int(sample.ids[person]), camera

        return _seeded(sample, draw.seed, ready)


def _seeded(sample: Sample, seed: int, ready: Callable[[Image.Image], T]) -> T | ReadFailure:
    try:
        picture = sample.pixels()
    except ImageError as error:
        return ReadFailure(sample.name, str(error))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also records a stack for each absent GPU: slow
        return ready(picture)


def scenes_together(items: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Collate scenes into a batch of lists, since each has its own size."""
    return [image for image, _ in items], [target for _, target in items]


def fractions(pixels: Tensor) -> Tensor:
    """Return bytes as float32 in 0..1, and other types unchanged."""
    return F.to_dtype(pixels, torch.float32, scale=True) if pixels.dtype == torch.uint8 else pixels


def crops_together(items: list[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Collate crops into a batch: (N, 3, h, w), ids (N,), cameras (N,)."""
    images, ids, cameras = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(ids), torch.tensor(cameras)


class Loader(Generic[B]):
    """Batches read by worker processes. A broken image is either left out, with one warning, or raises an error.

    Args:
        dataset: `Scenes`, `Crops`, or another that takes `Draw`s and returns `ReadFailure` for what it cannot read.
        batches: The batch sampler.
        together: How to collate a batch: `scenes_together` or `crops_together`.
        workers: Number of worker processes; 0 reads in this process.
        on_damage: "skip" leaves a broken image out, "stop" raises an error.
        pin_memory: See `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: BatchSampler,
        together: Callable[[list[Any]], B],
        *,
        workers: int = 0,
        on_damage: Literal["skip", "stop"] = "skip",
        pin_memory: bool = False,
    ) -> None:
        self.batches, self.on_damage = batches, on_damage
        self.damaged: dict[str, str] = {}
        self._loader = DataLoader(
            dataset,
            batch_sampler=cast(Any, batches),
            num_workers=workers,
            collate_fn=_Apart(together),
            worker_init_fn=_outlive_termination,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[B | None]:
        """Return batches. A batch without any readable image is `None`, so that the count of batches stays right.

        Raises:
            DatasetError: a broken image, with `on_damage="stop"`.
        """
        return self._reported(iter(self._loader))  # the processes start now, not with the first batch

    def _reported(self, read: Iterator[tuple[B | None, list[ReadFailure]]]) -> Iterator[B | None]:
        for batch, damaged in read:
            for each in damaged:
                self._report(each)
            yield batch

    def _report(self, each: ReadFailure) -> None:
        if self.on_damage == "stop":
            raise DatasetError(f"{each.name}: {each.reason} Repair or remove it, or leave such images out: on_damage='skip'.")
        if each.name not in self.damaged:
            self.damaged[each.name] = each.reason
            log.warning("left out %s: %s", each.name, each.reason)


def _outlive_termination(worker: int) -> None:
    """Ignore SIGTERM: schedulers send it to every process, and the training process must still finish its step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Apart(Generic[B]):
    """Collates a batch apart from its broken images. It is a class because worker processes receive it by pickle."""

    def __init__(self, together: Callable[[list[Any]], B]) -> None:
        self.together = together

    def __call__(self, items: list[Any]) -> tuple[B | None, list[ReadFailure]]:
        whole = [item for item in items if not isinstance(item, ReadFailure)]
        return self.together(whole) if whole else None, [item for item in items if isinstance(item, ReadFailure)]
