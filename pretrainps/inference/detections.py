"""All detections of a set of images in one table, which is what lets the evaluators work without a loop over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.data.records import Split
from pretrainps.errors import ArgumentError

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DetectionTable:
    """Detections of image 0, then of image 1, and so on.

    >>> table = DetectionTable.from_images([{"boxes": [[0, 0, 4, 9]], "scores": [0.8], "embeddings": [[1.0, 0.0]]}])
    >>> table.num_images, len(table), table.dim
    (1, 1, 2)
    """

    boxes: F32
    """(N, 4) x1, y1, x2, y2 in pixels of the image."""
    scores: F32
    """(N,) how sure the detector is."""
    embeddings: F32
    """(N, D); D is 0 for a detector that only detects."""
    counts: I64
    """(I,) detections in each image."""
    annotated: bool = False
    """Whether the boxes are the ground truth: the upper bound of a search, with perfect detection."""
    kept_above: float | None = None
    """The detector kept only what scores higher than this; `None` if that is not known."""
    starts: I64 = field(init=False, repr=False)
    """(I,) row of each image's first detection."""
    images: I64 = field(init=False, repr=False)
    """(N,) image of each detection."""

    def __post_init__(self) -> None:
        rows = int(self.counts.sum())
        object.__setattr__(self, "starts", np.cumsum(self.counts) - self.counts)
        object.__setattr__(self, "images", np.repeat(np.arange(self.num_images), self.counts))
        for what, array, shape in (
            ("boxes", self.boxes, (rows, 4)),
            ("scores", self.scores, (rows,)),
            ("embeddings", self.embeddings, (rows, self.embeddings.shape[-1])),
        ):
            if array.shape != shape:
                raise ArgumentError(f"{what} of shape {array.shape}: the counts of {self.num_images} images ask for {shape}.")
            self._require_finite(what, array)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def num_images(self) -> int:
        """How many images were looked at, also those in which nobody was found."""
        return len(self.counts)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.embeddings.shape[1])

    @classmethod
    def from_images(cls, results: Sequence[Mapping[str, Any]]) -> DetectionTable:
        """Put together what a detector returned.

        Args:
            results: For each image `boxes` (K, 4), `scores` (K,) and perhaps `embeddings` (K, D): tensors, arrays or lists.

        Raises:
            ArgumentError: shapes that do not fit, or numbers that are not finite; names the image.
        """
        parts = [_detections(index, result) for index, result in enumerate(results)]
        widths: dict[int, int] = {}
        for index, (boxes, _, embeddings) in enumerate(parts):
            if len(boxes):
                widths.setdefault(embeddings.shape[1], index)
        if len(widths) > 1:
            said = ", ".join(f"{width} in image {index}" for width, index in widths.items())
            raise ArgumentError(f"embeddings of different lengths: {said}. One detector, one length.")
        width = next(iter(widths), 0)
        return cls(
            boxes=np.concatenate([part[0] for part in parts] or [np.zeros((0, 4), np.float32)]),
            scores=np.concatenate([part[1] for part in parts] or [np.zeros(0, np.float32)]),
            embeddings=np.concatenate([part[2] for part in parts if len(part[0])] or [np.zeros((0, width), np.float32)]),
            counts=np.array([len(part[0]) for part in parts], dtype=np.int64),
        )

    @classmethod
    def of_ground_truth(cls, split: Split, embeddings: Sequence[ArrayLike]) -> DetectionTable:
        """Take the annotated boxes for detections, each with score 1.

        Args:
            split: The gallery.
            embeddings: For each image (K, D) of its annotated boxes, as `model.embed` returns them.

        Raises:
            ArgumentError: not one row a box; names the image.
        """
        if len(embeddings) != len(split):
            raise ArgumentError(
                f"embeddings of {len(embeddings)} images for a gallery of {len(split)}. Give one array an image."
            )
        table = cls.from_images(
            [
                {"boxes": sample.boxes, "scores": np.ones(len(sample.boxes)), "embeddings": vectors}
                for sample, vectors in zip(split.samples, embeddings, strict=True)
            ]
        )
        return replace(table, annotated=True)

    def rows(self, keep: NDArray[np.bool_]) -> DetectionTable:
        """Return a table of some detections; all images stay, perhaps without any. (N,) -> table."""
        counts = np.bincount(self.images[keep], minlength=self.num_images).astype(np.int64)
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], embeddings=self.embeddings[keep], counts=counts)

    def of_images(self, images: I64) -> DetectionTable:
        """Return a table of some images, in the order asked for; one may be asked for twice."""
        counts = self.counts[images]
        _, rows = spread(self.starts[images], counts)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], embeddings=self.embeddings[rows], counts=counts)

    def normalized(self) -> DetectionTable:
        """Return the same with embeddings of length 1; one of length 0 stays."""
        return replace(self, embeddings=unit_rows(self.embeddings))

    def _require_finite(self, what: str, array: F32) -> None:
        if np.isfinite(array).all():
            return
        row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise ArgumentError(
            f"image {self.images[row]}: the {what} of detection {row - self.starts[self.images[row]]} are not finite. "
            "A network that overflowed (half precision?) or was not loaded gives such numbers."
        )


def unit_rows(rows: F32) -> F32:
    """Scale rows to length 1, as scikit-learn's `normalize`; a row of zeros stays. (N, D) -> (N, D)."""
    lengths: F32 = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    lengths[lengths == 0] = 1
    return rows / lengths


def spread(starts: I64, counts: I64) -> tuple[I64, I64]:
    """Write runs of rows out: for each row the run it belongs to, and the row itself.

    >>> spread(np.array([5, 0]), np.array([2, 1]))
    (array([0, 0, 1]), array([5, 6, 0]))
    """
    run = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return run, np.arange(len(run)) + (starts - first)[run]


def _detections(index: int, result: Mapping[str, Any]) -> tuple[F32, F32, F32]:
    missing = [key for key in ("boxes", "scores") if key not in result]
    if missing:
        raise ArgumentError(f"image {index}: no {' and no '.join(missing)}. Detectors return boxes, scores and embeddings.")
    boxes, scores = _array(result["boxes"]), _array(result["scores"])
    if boxes.size % 4 or (boxes.ndim == 2 and len(boxes) and boxes.shape[1] != 4):
        raise ArgumentError(f"image {index}: boxes of shape {boxes.shape}; expected (N, 4).")
    boxes = boxes.reshape(-1, 4)
    embeddings = _array(result["embeddings"]) if "embeddings" in result else np.zeros((len(boxes), 0), np.float32)
    if len(boxes) == 0 and embeddings.size == 0:
        embeddings = embeddings.reshape(0, embeddings.shape[1] if embeddings.ndim == 2 else 0)
    if scores.shape != (len(boxes),) or embeddings.ndim != 2 or len(embeddings) != len(boxes):
        raise ArgumentError(
            f"image {index}: {len(boxes)} boxes, scores of shape {scores.shape} and embeddings of shape {embeddings.shape}. "
            "Each box has one score and one embedding."
        )
    return boxes, scores, embeddings


def _array(value: Any) -> F32:
    """Return a tensor on any device, an array or a list as float32; torch itself is not needed for that."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    return np.asarray(value, dtype=np.float32)
