"""`Detections`: the one table of what a model found in some images, so that nothing has to loop over images.

The inference runner makes it, and galleries, evaluation and the demo read it. It holds numpy arrays and needs no torch.
"""

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
class Detections:
    """Detections of image 0, then of image 1, and so on: one row a detection.

    >>> table = Detections.from_images([{"boxes": [[0, 0, 4, 9]], "scores": [0.8], "embeddings": [[1.0, 0.0]]}])
    >>> table.num_images, len(table), table.dim
    (1, 1, 2)
    >>> table.boxes[table.rows_of(0)].tolist()
    [[0.0, 0.0, 4.0, 9.0]]
    """

    boxes: F32
    """(N, 4) x1, y1, x2, y2 in pixels of the image."""
    scores: F32
    """(N,) the detection scores."""
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
        """Number of images, also of those without a detection."""
        return len(self.counts)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self.embeddings.shape[1])

    def rows_of(self, image: int) -> slice:
        """Return the rows of one image's detections."""
        start = int(self.starts[image])
        return slice(start, start + int(self.counts[image]))

    @classmethod
    def concatenate(cls, tables: Sequence[Detections]) -> Detections:
        """Join tables of different images, in order. A table without a row may have embeddings of any length.

        The result is not `annotated`, and its `kept_above` is not known; set them with `dataclasses.replace`.

        Raises:
            ArgumentError: tables with embeddings of different lengths; names the image.
        """
        return cls._joined([(table.boxes, table.scores, table.embeddings) for table in tables], [t.counts for t in tables])

    @classmethod
    def from_images(cls, results: Sequence[Mapping[str, Any]]) -> Detections:
        """Put together what a detector returned.

        Args:
            results: For each image `boxes` (K, 4), `scores` (K,) and perhaps `embeddings` (K, D): tensors, arrays or lists.

        Raises:
            ArgumentError: shapes that do not fit, or numbers that are not finite; names the image.
        """
        parts = [_arrays_of_image(index, result) for index, result in enumerate(results)]
        return cls._joined(parts, [np.array([len(boxes)], dtype=np.int64) for boxes, _, _ in parts])

    @classmethod
    def of_ground_truth(cls, split: Split, embeddings: Sequence[ArrayLike]) -> Detections:
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

    def rows(self, keep: NDArray[np.bool_]) -> Detections:
        """Return a table of some detections; all images stay, perhaps without any. (N,) -> table."""
        counts = np.bincount(self.images[keep], minlength=self.num_images).astype(np.int64)
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], embeddings=self.embeddings[keep], counts=counts)

    def of_images(self, images: I64) -> Detections:
        """Return a table of some images, in the given order; an image may be given twice."""
        counts = self.counts[images]
        _, rows = spread(self.starts[images], counts)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], embeddings=self.embeddings[rows], counts=counts)

    def normalized(self) -> Detections:
        """Return the same with embeddings of length 1; one of length 0 stays."""
        return replace(self, embeddings=unit_rows(self.embeddings))

    @classmethod
    def _joined(cls, parts: Sequence[tuple[F32, F32, F32]], counts: Sequence[I64]) -> Detections:
        """Join boxes, scores and embeddings of different images, each part with the counts of its images."""
        widths: dict[int, int] = {}
        first = 0
        for (boxes, _, embeddings), images in zip(parts, counts, strict=True):
            if len(boxes):
                widths.setdefault(embeddings.shape[1], first)
            first += len(images)
        if len(widths) > 1:
            lengths = ", ".join(f"{width} in image {image}" for width, image in widths.items())
            raise ArgumentError(f"embeddings of different lengths: {lengths}. One detector gives one length.")
        width = next(iter(widths), max((rows.shape[1] for _, _, rows in parts), default=0))
        return cls(
            boxes=np.concatenate([boxes for boxes, _, _ in parts] or [np.zeros((0, 4), np.float32)]),
            scores=np.concatenate([scores for _, scores, _ in parts] or [np.zeros(0, np.float32)]),
            embeddings=np.concatenate([rows for boxes, _, rows in parts if len(boxes)] or [np.zeros((0, width), np.float32)]),
            counts=np.concatenate(counts or [np.zeros(0, np.int64)]),
        )

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


def _arrays_of_image(index: int, result: Mapping[str, Any]) -> tuple[F32, F32, F32]:
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
