"""`Extractor`: a model's features of a data set for an evaluation, kept in a folder and continued after an interruption."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.data.records import Boxes, Query, Sample, SearchSet, Split
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, DatasetError, ImageError, NonFiniteError
from pretrainps.heads import CropModel
from pretrainps.inference.detections import Detections
from pretrainps.inference.feature_cache import Arrays, FeatureCache, digest_of_samples
from pretrainps.inference.fingerprint import fingerprint_of_model
from pretrainps.inference.runner import (
    READERS,
    ImageDetections,
    ImageFailure,
    ImageInput,
    ModelRunner,
    Precision,
    read_ahead,
)

Images = Iterable[ImageInput[int] | ImageFailure[int]]
Answers = Iterator[ImageDetections[int] | ImageFailure[int]]
_EMPTY: Arrays = {
    "boxes": np.zeros((0, 4), dtype=np.float32),
    "scores": np.zeros(0, dtype=np.float32),
    "embeddings": np.zeros((0, 0), dtype=np.float32),
}
log = logging.getLogger("pretrainps")


class Extractor:
    """Computes what an evaluation needs of a data set.

    A detector detects people and embeds them. A model of crops only embeds: with it, galleries are searched by the annotated
    boxes, which is an upper bound: what the model could reach with a perfect detector.

    Args:
        model: A detector, or a model of crops with an embedding head, in eval mode.
        folder: Where features are kept, a folder for each model and data set in it; `None` keeps none.
        batch_size: Images of one size in a forward pass.
        precision: Of a detector's optimized copy.
        on_damage: What an image that cannot be read does: "stop" raises; "skip" counts it as an image without people, and
            says so.
        progress: Whether to show bars.

    Raises:
        ArgumentError: a model of another kind, or in training mode; or a batch size below 1.
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
        self.runner = ModelRunner(model, precision=precision, batch_size=batch_size)
        model = self.runner.model
        settings: dict[str, Any] = {"precision": precision}
        self._kept_above: float | None = None
        if isinstance(model, PersonSearchDetector):
            settings |= {"kind": model.kind, "config": model.config.fingerprint_text(), "input": str(model.convention)}
            self._kept_above = model.config.score_threshold
        else:
            settings |= {"arch": model.spec.arch, "head": str(model.head_spec), "input": str(model.spec.input)}
        self.fingerprint = fingerprint_of_model(model, settings)
        self.folder, self.on_damage, self.progress = folder, on_damage, progress

    def detections(self, split: Split) -> Detections:
        """Detect the people in every image of a split.

        Raises:
            ArgumentError: the model is none that detects.
            DatasetError: an image cannot be read, with `on_damage="stop"`.
        """
        self._require_detector("does not detect people: search by the annotated boxes")
        features = self._features("detections", split.samples, self.runner.detect)
        return replace(Detections.from_images(features), kept_above=self._kept_above)

    def annotated(self, split: Split) -> Detections:
        """Embed the annotated people of every image: the gallery that a perfect detector would give.

        Raises:
            DatasetError: an image cannot be read: people in it cannot be left out.
        """
        return Detections.of_ground_truth(split, self._annotated(split))

    def crops(self, split: Split) -> NDArray[np.float32]:
        """Embed the crops of a re-ID split. (N, D).

        Raises:
            DatasetError: an image cannot be read.
        """
        return np.concatenate(self._annotated(split))

    def queries(self, search_set: SearchSet) -> NDArray[np.float32]:
        """Embed the people who are searched for. (Q, D).

        Raises:
            DatasetError: an image cannot be read.
        """
        return np.concatenate(self._embeddings("queries", *_of_queries(search_set), about=_bytes_of(search_set.queries)))

    def contexts(self, search_set: SearchSet) -> Detections:
        """Detect the people in the queries' images, the person searched for first.

        Raises:
            ArgumentError: the model is none that detects.
            DatasetError: an image cannot be read.
        """
        self._require_detector("does not detect the people around a query: context matching needs a detector")
        samples, boxes = _of_queries(search_set)
        about = _bytes_of(search_set.queries)
        features = self._features("contexts", samples, self.runner.query_as_gallery, boxes=boxes, about=about)
        return replace(Detections.from_images(features), kept_above=self._kept_above)

    def _annotated(self, split: Split) -> list[NDArray[np.float32]]:
        return self._embeddings("annotated", split.samples, [sample.boxes for sample in split.samples])

    def _embeddings(
        self, what: str, samples: Sequence[Sample], boxes: Sequence[Boxes], *, about: bytes = b""
    ) -> list[NDArray[np.float32]]:
        """Embed given boxes: for each image (K, D)."""
        features = self._features(what, samples, self.runner.embed, boxes=boxes, about=about, names=("embeddings",))
        for sample, rows, arrays in zip(samples, boxes, features, strict=True):
            if len(arrays["embeddings"]) != len(rows):
                raise DatasetError(
                    f"{sample.name} cannot be read, and the people annotated in it cannot be left out. Mend the image."
                )
        return [arrays["embeddings"] for arrays in features]

    def _features(
        self,
        what: str,
        samples: Sequence[Sample],
        run: Callable[[Images], Answers],
        *,
        boxes: Sequence[Boxes] | None = None,
        about: bytes = b"",
        names: Sequence[str] = ("boxes", "scores", "embeddings"),
    ) -> list[Arrays]:
        """Return arrays for every image: what was kept, and for the others what the model answers.

        Args:
            what: A word for them.
            samples: The images.
            run: The runner's method.
            boxes: For each image those to embed, or the one searched for.
            about: What else the arrays depend on.
            names: Which arrays.
        """
        folder = None
        if self.folder is not None:
            data = hashlib.sha256(digest_of_samples(samples).encode() + about).hexdigest()
            folder = self.folder / f"{self.fingerprint[:16]}-{data[:16]}"

        def read(image: int) -> ImageInput[int] | ImageFailure[int]:
            try:
                pixels = pil_to_tensor(samples[image].pixels())
            except ImageError as error:
                return ImageFailure(key=image, error=error)
            return ImageInput(key=image, pixels=pixels, boxes=None if boxes is None else torch.from_numpy(boxes[image]))

        def compute(images: Sequence[int]) -> Iterator[Arrays | None]:
            readings = read_ahead(read, images, ahead=self.runner.batch_size + READERS)
            for answer in run(readings):
                if isinstance(answer, ImageDetections):
                    yield {name: getattr(answer.detections, name) for name in names}
                else:
                    self._pass_over(samples[answer.key], answer)
                    yield None

        features = FeatureCache(folder, progress=self.progress).collect(what, len(samples), compute)
        empty = {name: rows[:0] for name, rows in next((each for each in features if each), _EMPTY).items()}
        return [empty if each is None else each for each in features]

    def _pass_over(self, sample: Sample, failure: ImageFailure[int]) -> None:
        """Say that an image is left out, or raise if none may be."""
        if isinstance(failure.error, NonFiniteError):  # it is the model's fault, and not the image's
            raise NonFiniteError(f"{sample.name}: {failure.reason}") from failure.error
        reason = failure.reason if isinstance(failure.error, ImageError) else f"{sample.name}: {failure.reason}"
        if self.on_damage == "stop":
            raise DatasetError(f"{reason} Mend it, or have images that cannot be read skipped.") from failure.error
        log.warning("skipped: %s", reason)

    def _require_detector(self, why: str) -> None:
        if not self.runner.detects:
            raise ArgumentError(f"a model of crops {why}.")


def _of_queries(search_set: SearchSet) -> tuple[list[Sample], list[Boxes]]:
    """Return the image of each query, and its box, (1, 4)."""
    return [query.sample for query in search_set.queries], [query.box[None] for query in search_set.queries]


def _bytes_of(queries: Sequence[Query]) -> bytes:
    return b"".join(query.box.tobytes() for query in queries)
