"""Run one model over many images: read ahead, batches of equally large images, answers in the order of the images.

A caller says how an image is read (`ImageInput`, or `ImageFailure` if it cannot be) and takes the answers one by one
(`ImageDetections`, or `ImageFailure`). An image that cannot be read or computed with is reported and passed over; it never
stops the others.

    runner = ModelRunner(model, batch_size=8)
    images = read_ahead(read, paths)                     # read(path) -> ImageInput | ImageFailure
    for answer in runner.detect(images):                 # in the order of the paths
        if isinstance(answer, ImageFailure):
            print(answer.key, answer.reason)
        else:
            print(answer.key, answer.detections.boxes)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pretrainps.data.records import pixels_of
from pretrainps.detectors import PersonSearchDetector
from pretrainps.detectors.validation import check_shapes
from pretrainps.errors import ArgumentError, NonFiniteError, PretrainPSError
from pretrainps.heads import CropModel, EmbeddingHead
from pretrainps.images.pixels import Preprocess
from pretrainps.inference.detections import F32, Detections
from pretrainps.weights.unwrap import unwrap

Precision = Literal["float32", "bfloat16", "float16"]
READERS = 2
"""Threads that read images. Decoding an image lets other threads run."""
_WAITING_BATCHES = 4
"""An image waits for others of its size until this many batches of images were read after it."""
Key = TypeVar("Key")
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageInput(Generic[Key]):
    """An image that was read."""

    key: Key
    """What the caller knows the image by; it comes back with the answer."""
    pixels: Tensor = field(repr=False)
    """(3, H, W) RGB, upright: uint8 in 0..255, or float in 0..1."""
    boxes: Tensor | None = None
    """(K, 4) x1, y1, x2, y2 in pixels: what to embed, or who is searched for. None stands for the whole image."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageFailure(Generic[Key]):
    """An image that could not be read, or that the model could not compute with."""

    key: Key
    """What the caller knows the image by."""
    error: PretrainPSError
    """What went wrong: an `ImageError`, an `ArgumentError` (its shape) or a `NonFiniteError`."""

    @property
    def reason(self) -> str:
        """What went wrong, in words."""
        return str(self.error)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageDetections(Generic[Key]):
    """What a model answers for one image."""

    key: Key
    """What the caller knows the image by."""
    detections: Detections
    """A table of this one image: float32 numpy arrays on the CPU, all finite."""


class ModelRunner:
    """Runs a detector, or a model of crops, over images.

    Args:
        model: A detector, or a model of crops with an embedding head, in eval mode; wrappers are taken off.
        precision: Of a detector's optimized copy.
        batch_size: Images of one size in a forward pass.
        optimize: Compute with an optimized copy of a detector, made when the first image comes. Without it, `precision`
            has no effect and the model answers as it is: better for a single image.

    Raises:
        ArgumentError: a model of another kind, or in training mode; or a batch size below 1.
    """

    def __init__(
        self,
        model: PersonSearchDetector[Any] | CropModel,
        *,
        precision: Precision = "float32",
        batch_size: int = 1,
        optimize: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError(f"batch_size={batch_size}: it must be 1 or more.")
        model = unwrap(model)
        if not isinstance(model, PersonSearchDetector | CropModel):
            raise ArgumentError(
                f"a {type(model).__name__} neither detects nor embeds people. Take a detector, or load with head='embedding'."
            )
        if isinstance(model, CropModel) and model.head_spec.kind != "embedding":
            raise ArgumentError("this model gives no embeddings. Load it with head='embedding'.")
        if model.training:
            raise ArgumentError("the model is in training mode: call model.eval() first.")
        self.model: PersonSearchDetector[Any] | CropModel = model
        self.precision, self.batch_size = precision, batch_size
        self.device = next(model.parameters()).device
        self._optimize = optimize

    @property
    def detects(self) -> bool:
        """Whether the model detects, and does not only embed crops."""
        return isinstance(self.model, PersonSearchDetector)

    @cached_property
    def detector(self) -> PersonSearchDetector[Any]:
        """The detector that computes: the optimized copy, or the model itself."""
        assert isinstance(self.model, PersonSearchDetector)
        if not self._optimize or self.model.optimized:
            return self.model
        return self.model.optimize_for_inference(dtype=getattr(torch, self.precision))

    def detect(
        self, images: Iterable[ImageInput[Key] | ImageFailure[Key]]
    ) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
        """Yield the detections in each image.

        Raises:
            ArgumentError: a model of crops.
        """
        return self._run(images, lambda pixels, _: self.detector(pixels))

    def query_as_gallery(
        self, images: Iterable[ImageInput[Key] | ImageFailure[Key]]
    ) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
        """Yield the detections in each query image, the one box that its input gives first; no score weighs an embedding.

        Raises:
            ArgumentError: a model of crops.
        """
        return self._run(images, lambda pixels, boxes: self.detector.query_as_gallery(pixels, boxes))

    def embed(
        self, images: Iterable[ImageInput[Key] | ImageFailure[Key]]
    ) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
        """Yield the embeddings of the boxes that each input gives, in their order, with score 1. No score weighs them."""
        if isinstance(self.model, CropModel):
            return run_batches(map(self._crops, images), self._embed_crops, batch_size=self.batch_size)

        def embed(pixels: list[Tensor], boxes: list[Tensor]) -> list[dict[str, Tensor]]:
            rows = self.detector.embed(pixels, boxes)
            return [_annotated(*each) for each in zip(boxes, rows, strict=True)]

        return self._run(images, embed)

    def _run(
        self,
        images: Iterable[ImageInput[Key] | ImageFailure[Key]],
        network: Callable[[list[Tensor], list[Tensor]], Any],
    ) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
        """Run the detector on batches of pixels and boxes; it is made ready when the first batch comes."""
        if not isinstance(self.model, PersonSearchDetector):
            raise ArgumentError("a model of crops does not detect people. Use a detector.")
        max_size = self.model.config.max_size

        def compute(batch: Sequence[ImageInput[Key]]) -> Sequence[Mapping[str, Tensor]]:
            answers: Sequence[Mapping[str, Tensor]] = network([self._pixels(each) for each in batch], list(map(_boxes, batch)))
            return answers

        return run_batches((_with_checked_shape(each, max_size) for each in images), compute, batch_size=self.batch_size)

    def _pixels(self, image: ImageInput[Any]) -> Tensor:
        """Return RGB in 0..1 on the model's device; uint8 is sent there as it is, which is four times less."""
        pixels = image.pixels.to(self.device)
        return pixels if pixels.is_floating_point() else pixels.float() / 255

    def _crops(self, image: ImageInput[Key] | ImageFailure[Key]) -> ImageInput[Key] | ImageFailure[Key]:
        """Replace an image by its crops as the network wants them, (K, 3, h, w), so that images of any size share a batch."""
        if isinstance(image, ImageFailure):
            return image
        assert isinstance(self.model, CropModel)
        transform, pixels, boxes = Preprocess(self.model.spec.input), self._pixels(image), _boxes(image)
        corners = [pixels_of(box, height=pixels.shape[1], width=pixels.shape[2]) for box in boxes.numpy()]
        crops = [transform(pixels[:, y1:y2, x1:x2]) for x1, y1, x2, y2 in corners]
        stacked = torch.stack(crops) if crops else pixels.new_zeros(0, 3, *self.model.spec.input.size)
        return ImageInput(key=image.key, pixels=stacked, boxes=boxes)

    def _embed_crops(self, batch: Sequence[ImageInput[Any]]) -> Sequence[Mapping[str, Tensor]]:
        assert isinstance(self.model, CropModel) and isinstance(self.model.head, EmbeddingHead)
        crops = torch.cat([each.pixels for each in batch])
        rows = self.model(crops) if len(crops) else crops.new_zeros(0, self.model.head.dim)
        parts = rows.split([len(each.pixels) for each in batch])
        return [_annotated(_boxes(each), part) for each, part in zip(batch, parts, strict=True)]


def run_batches(
    images: Iterable[ImageInput[Key] | ImageFailure[Key]],
    network: Callable[[Sequence[ImageInput[Key]]], Sequence[Mapping[str, Tensor]]],
    *,
    batch_size: int,
) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
    """Put images of one size into batches and yield what a network answers, in the order of the images.

    An image of a rare size waits for others until four batches of images were read after it; then it goes in a smaller batch.
    Where a batch gives numbers that are not finite, its images are computed one by one, and only those at fault fail.

    Args:
        images: What was read; failures are passed on in their place.
        network: Gives `boxes`, `scores` and perhaps `embeddings` for each image of a batch, whose last three dimensions are
            equal. It runs in inference mode.
        batch_size: Images in a batch.
    """
    order: deque[_Pending[Key]] = deque()
    groups: dict[tuple[int, ...], list[_Pending[Key]]] = {}
    for image in images:
        order.append(_Pending(image))
        if isinstance(image, ImageInput):
            size = tuple(image.pixels.shape[-3:])
            groups.setdefault(size, []).append(order[-1])
            if len(groups[size]) == batch_size:
                _compute(groups.pop(size), network)
            elif len(order) >= _WAITING_BATCHES * batch_size and order[0].answer is None:
                _compute(groups.pop(order[0].size), network)
        yield from _ready(order)
    for group in groups.values():
        _compute(group, network)
    yield from _ready(order)


def read_ahead(
    read: Callable[[Item], Made], items: Iterable[Item], *, threads: int = READERS, ahead: int = 4
) -> Iterator[Made]:
    """Yield what is made of each item, in order, made in threads while the caller works.

    Args:
        read: Makes it; an exception of its reaches the caller in its item's place.
        items: Taken one by one, never further ahead than this.
        threads: How many. One where items must be made one after the other.
        ahead: Items made before they are needed. A batch and a few more keep a network busy.
    """
    queue: deque[Future[Made]] = deque()
    waiting = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            for item in waiting:
                queue.append(pool.submit(read, item))
                if len(queue) > ahead:
                    break
            if not queue:
                return
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def with_progress(answers: Iterable[Item], *, total: int, what: str, show: bool) -> Iterator[Item]:
    """Yield answers and move a bar on for each.

    Args:
        answers: Of images, in any form.
        total: How many there will be, about.
        what: What is done, in a word.
        show: Whether to show it.
    """
    with tqdm(total=total, desc=what, unit="image", disable=not show, leave=False) as bar:
        for answer in answers:
            yield answer
            bar.update()


def only(answers: Iterator[ImageDetections[Key] | ImageFailure[Key]]) -> Detections:
    """Return the answer for a single image.

    Raises:
        PretrainPSError: the image failed; what `ImageFailure.error` holds.
    """
    (answer,) = answers
    if isinstance(answer, ImageFailure):
        raise answer.error
    return answer.detections


class _Pending(Generic[Key]):
    """An image on its way: its pixels until they were computed with, and then its answer."""

    __slots__ = ("answer", "image", "size")

    def __init__(self, image: ImageInput[Key] | ImageFailure[Key]) -> None:
        self.image = image if isinstance(image, ImageInput) else None
        self.answer: ImageDetections[Key] | ImageFailure[Key] | None = None if isinstance(image, ImageInput) else image
        self.size = tuple(image.pixels.shape[-3:]) if isinstance(image, ImageInput) else ()

    def finish(self, answer: ImageDetections[Key] | ImageFailure[Key]) -> None:
        self.answer, self.image = answer, None  # pixels of many images would fill the memory


def _ready(order: deque[_Pending[Key]]) -> Iterator[ImageDetections[Key] | ImageFailure[Key]]:
    """Take the answers off the front that are there."""
    while order and order[0].answer is not None:
        answer = order.popleft().answer
        assert answer is not None
        yield answer


def _compute(
    group: Sequence[_Pending[Key]], network: Callable[[Sequence[ImageInput[Key]]], Sequence[Mapping[str, Tensor]]]
) -> None:
    """Run a network on images of one size, and finish each."""
    batch = [each.image for each in group if each.image is not None]
    try:
        with torch.inference_mode():
            results = network(batch)
    except NonFiniteError as error:
        if len(group) == 1:
            group[0].finish(ImageFailure(key=batch[0].key, error=error))
        else:  # perhaps only one of them is at fault
            for each in group:
                _compute([each], network)
        return
    for pending, image, result in zip(group, batch, results, strict=True):
        arrays = {name: _array(result[name]) for name in ("boxes", "scores", "embeddings") if name in result}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            spoiled = NonFiniteError("the model answers with numbers that are not finite.")
            pending.finish(ImageFailure(key=image.key, error=spoiled))
        else:
            pending.finish(ImageDetections(key=image.key, detections=Detections.from_images([arrays])))


def _with_checked_shape(image: ImageInput[Key] | ImageFailure[Key], max_size: int) -> ImageInput[Key] | ImageFailure[Key]:
    """Return an image, or the reason why the detector cannot take its shape."""
    if isinstance(image, ImageFailure):
        return image
    try:
        check_shapes([torch.empty(1).expand(image.pixels.shape)], max_size)
    except ArgumentError as error:
        return ImageFailure(key=image.key, error=ArgumentError(str(error).removeprefix("image 0: ")))
    return image


def _boxes(image: ImageInput[Any]) -> Tensor:
    """Return an image's boxes without infinite ends: the box of a whole image may reach to infinity."""
    height, width = image.pixels.shape[-2:]
    if image.boxes is None:
        return torch.tensor([[0.0, 0.0, width, height]])
    return torch.where(image.boxes.isinf(), image.boxes.new_tensor([width, height] * 2), image.boxes)


def _annotated(boxes: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
    return {"boxes": boxes, "scores": torch.ones(len(boxes)), "embeddings": embeddings}


def _array(values: Tensor) -> F32:
    array: F32 = values.detach().float().cpu().numpy()
    return array
