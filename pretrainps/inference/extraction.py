"""Run a model over a data set: detections of the gallery, embeddings of queries, people around them; kept and gone on with."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.data.records import Boxes, Query, Sample, SearchSet, Split, pixels_of
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, DatasetError, ImageError
from pretrainps.heads import CropModel, EmbeddingHead
from pretrainps.images.pixels import Preprocess
from pretrainps.inference.detections import Detections
from pretrainps.inference.feature_cache import Arrays, Shards, fingerprint_of_model, fingerprint_of_samples
from pretrainps.weights.unwrap import unwrap

Precision = Literal["float32", "bfloat16", "float16"]
Found = dict[str, Tensor]
"""What a model found in one image."""
_READERS = 2
"""Threads that read the next images while the network is busy with these."""
_NOTHING: Arrays = {
    "boxes": np.zeros((0, 4), dtype=np.float32),
    "scores": np.zeros(0, dtype=np.float32),
    "embeddings": np.zeros((0, 0), dtype=np.float32),
}
log = logging.getLogger("pretrainps")


class Extractor:
    """Takes what an evaluation needs from a model and a data set.

    A detector finds people and embeds them. A model of crops only embeds: with it, galleries are searched by the annotated
    boxes, which bounds what it could reach behind a perfect detector.

    Args:
        model: A detector, or a model of crops with an embedding head, in eval mode.
        folder: Where results are kept, a folder for each model and data set in it; `None` keeps none.
        batch_size: Images a forward pass.
        precision: Of a detector's trunk, proposals and last stages.
        on_damage: What an image that cannot be read does: "stop" raises; "skip" takes it for one without anybody, and says so.
        progress: Whether to show bars.
    """

    def __init__(
        self,
        model: PersonSearchDetector[Any] | CropModel,
        *,
        folder: Path | None = None,
        batch_size: int = 1,
        precision: Precision = "float32",
        on_damage: Literal["stop", "skip"] = "stop",
        progress: bool = True,
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
        settings: dict[str, Any] = {"precision": precision}
        if isinstance(model, PersonSearchDetector):
            settings |= {"kind": model.kind, "config": str(model.config), "input": str(model.convention)}
        else:
            settings |= {"arch": model.spec.arch, "head": str(model.head_spec), "input": str(model.spec.input)}
        self.fingerprint = fingerprint_of_model(model, settings)
        self.folder, self.batch_size, self.on_damage, self.progress = folder, batch_size, on_damage, progress
        self.device = next(model.parameters()).device
        self._detector: PersonSearchDetector[Any] | None = None
        self._crops: CropModel | None = None
        self._kept_above: float | None = None
        if isinstance(model, PersonSearchDetector):
            self._kept_above = model.config.score_threshold
            self._detector = model if model.optimized else model.optimize_for_inference(dtype=getattr(torch, precision))
        else:
            self._crops = model

    def detections(self, split: Split) -> Detections:
        """Detect everyone in every image of a split.

        Raises:
            ArgumentError: the model is none that detects.
            DatasetError: an image cannot be read, with `on_damage="stop"`.
        """
        detector = self._require_detector("detects nobody: search by the annotated boxes")
        found = self._find("detections", split.samples, lambda images, _: detector(images))
        return replace(Detections.from_images(found), kept_above=self._kept_above)

    def annotated(self, split: Split) -> Detections:
        """Embed the annotated people of every image: a gallery behind a perfect detector.

        Raises:
            DatasetError: an image cannot be read: people in it cannot be left out.
        """
        return Detections.of_ground_truth(split, self._people(split))

    def crops(self, split: Split) -> NDArray[np.float32]:
        """Embed the crops of a re-ID split. (N, D).

        Raises:
            DatasetError: an image cannot be read.
        """
        return np.concatenate(self._people(split))

    def _people(self, split: Split) -> list[NDArray[np.float32]]:
        """Embed everyone annotated: for each image (K, D)."""

        def find(images: list[Tensor], places: list[int]) -> list[Found]:
            return self._embed(images, [split.samples[place].boxes for place in places])

        found = self._find("annotated", split.samples, find)
        _require_everybody(split.samples, [len(sample.boxes) for sample in split.samples], found)
        return [each["embeddings"] for each in found]

    def queries(self, search_set: SearchSet) -> NDArray[np.float32]:
        """Embed the people who are searched for. (Q, D).

        Raises:
            DatasetError: an image cannot be read.
        """
        queries = search_set.queries

        def find(images: list[Tensor], places: list[int]) -> list[Found]:
            return self._embed(images, [queries[place].box[None] for place in places])

        found = self._find("queries", [query.sample for query in queries], find, about=_boxes_of(queries))
        _require_everybody([query.sample for query in queries], [1] * len(queries), found)
        return np.concatenate([each["embeddings"] for each in found])

    def contexts(self, search_set: SearchSet) -> Detections:
        """Detect everyone in the queries' images, the person searched for first.

        Raises:
            ArgumentError: the model is none that detects.
            DatasetError: an image cannot be read.
        """
        queries = search_set.queries
        detector = self._require_detector("sees nobody around a query: context matching needs a detector")

        def find(images: list[Tensor], places: list[int]) -> list[Found]:
            return detector.query_as_gallery(images, [torch.from_numpy(queries[place].box[None]) for place in places])

        found = self._find("contexts", [query.sample for query in queries], find, about=_boxes_of(queries))
        return replace(Detections.from_images(found), kept_above=self._kept_above)

    def _embed(self, images: list[Tensor], boxes: Sequence[Boxes]) -> list[Found]:
        if self._detector is not None:
            whole = [_finite(rows, image) for rows, image in zip(boxes, images, strict=True)]
            return [{"embeddings": rows} for rows in self._detector.embed(images, whole)]
        assert self._crops is not None
        return [{"embeddings": _crop_vectors(self._crops, *each)} for each in zip(images, boxes, strict=True)]

    def _find(
        self,
        what: str,
        samples: Sequence[Sample],
        find: Callable[[list[Tensor], list[int]], list[Found]],
        *,
        about: bytes = b"",
    ) -> list[Arrays]:
        """Find something in every image, batch by batch, or take it from what was kept.

        Args:
            what: In a word.
            samples: The images.
            find: From pixels, (3, H, W) in 0..1 each, and the places of their samples.
            about: What else the result depends on.
        """
        folder = None
        if self.folder is not None:
            data = hashlib.sha256(fingerprint_of_samples(samples).encode() + about).hexdigest()
            folder = self.folder / f"{self.fingerprint[:16]}-{data[:16]}"

        def compute(images: range) -> Iterator[Arrays | None]:
            waiting: list[tuple[int, Tensor | None]] = []
            for place, pixels in zip(images, self._pictures([samples[place] for place in images]), strict=True):
                waiting.append((place, pixels))
                if sum(each is not None for _, each in waiting) == self.batch_size:
                    yield from self._batch(waiting, find)
                    waiting = []
            yield from self._batch(waiting, find)

        found = Shards(folder, progress=self.progress).collect(what, len(samples), compute)
        nothing = {name: rows[:0] for name, rows in next((each for each in found if each), _NOTHING).items()}
        return [nothing if each is None else each for each in found]

    def _batch(
        self, waiting: list[tuple[int, Tensor | None]], find: Callable[[list[Tensor], list[int]], list[Found]]
    ) -> Iterator[Arrays | None]:
        """Yield what is found in each image, None for those that could not be read."""
        readable = [(place, pixels.to(self.device).float() / 255) for place, pixels in waiting if pixels is not None]
        with torch.inference_mode():
            results = find([pixels for _, pixels in readable], [place for place, _ in readable]) if readable else []
        found = {place: result for (place, _), result in zip(readable, results, strict=True)}
        for place, pixels in waiting:
            if pixels is None:
                yield None
            else:
                yield {name: rows.float().cpu().numpy() for name, rows in found[place].items() if name != "labels"}

    def _pictures(self, samples: Sequence[Sample]) -> Iterator[Tensor | None]:
        """Yield pixels (3, H, W) uint8, read ahead; None for a picture that cannot be read."""

        def read(sample: Sample) -> Tensor | ImageError:
            try:
                return pil_to_tensor(sample.pixels())
            except ImageError as error:
                return error

        ahead: deque[Future[Tensor | ImageError]] = deque()
        with ThreadPoolExecutor(_READERS) as pool:
            for place in range(len(samples)):
                while len(ahead) <= self.batch_size + _READERS and place + len(ahead) < len(samples):
                    ahead.append(pool.submit(read, samples[place + len(ahead)]))
                pixels = ahead.popleft().result()
                if isinstance(pixels, Tensor):
                    yield pixels
                elif self.on_damage == "stop":
                    raise DatasetError(f"{pixels} Mend it, or have images that cannot be read skipped.")
                else:
                    log.warning("skipped: %s", pixels)
                    yield None

    def _require_detector(self, why: str) -> PersonSearchDetector[Any]:
        if self._detector is None:
            raise ArgumentError(f"a model of crops {why}.")
        return self._detector


def _require_everybody(samples: Sequence[Sample], people: Sequence[int], found: Sequence[Arrays]) -> None:
    for sample, count, each in zip(samples, people, found, strict=True):
        if len(each["embeddings"]) != count:
            raise DatasetError(f"{sample.name} cannot be read, and who is annotated in it cannot be left out. Mend the image.")


def _boxes_of(queries: Sequence[Query]) -> bytes:
    return b"".join(query.box.tobytes() for query in queries)


def _finite(boxes: Boxes, image: Tensor) -> Tensor:
    """Return boxes without infinite ends: the box of a whole picture reaches to infinity."""
    rows = torch.from_numpy(boxes)
    limit = rows.new_tensor([image.shape[2], image.shape[1]] * 2)
    return torch.where(rows.isinf(), limit, rows)


def _crop_vectors(model: CropModel, image: Tensor, boxes: Boxes) -> Tensor:
    """Embed people by a model of crops. (3, H, W), (N, 4) -> (N, D)."""
    transform = Preprocess(model.spec.input)
    crops = []
    for box in boxes:
        x1, y1, x2, y2 = pixels_of(box, height=image.shape[1], width=image.shape[2])
        crops.append(transform(image[:, y1:y2, x1:x2]))
    if not crops:
        assert isinstance(model.head, EmbeddingHead)
        return image.new_zeros(0, model.head.dim)
    return model(torch.stack(crops))  # type: ignore[no-any-return]
