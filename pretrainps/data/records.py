"""The record types that all readers return: samples, splits, queries, gallery lists and search sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pretrainps.errors import DatasetError, ImageError
from pretrainps.images.read import image_size, read_image

FAR = 1e9
"""Coordinates must be smaller than this. It excludes infinity, and numbers that are too large for a float."""
UNLABELLED = -1
"""The id of a person without an identity."""

Task = Literal["search", "detection", "reid"]
Boxes = NDArray[np.float32]
Ids = NDArray[np.int64]


def are_coordinates(values: NDArray[np.float64]) -> bool:
    """Whether all numbers are finite and can be coordinates in an image."""
    return bool((np.abs(values) < FAR).all())  # false for NaN too


def as_boxes(rows: ArrayLike) -> Boxes:
    """Return rows x1, y1, x2, y2 as (N, 4) float32; no rows give (0, 4)."""
    return np.asarray(rows, dtype=np.float32).reshape(-1, 4)


def from_xywh(rows: ArrayLike) -> Boxes:
    """Convert left, top, width, height to x1, y1, x2, y2: (N, 4) float32.

    The sum is taken in float64: annotation files hold unsigned 8-bit and 16-bit numbers, and their sums would overflow.
    """
    left_top, size = np.hsplit(np.asarray(rows, dtype=np.float64).reshape(-1, 4), 2)
    return np.hstack([left_top, left_top + size]).astype(np.float32)


def pixels_of(box: Boxes, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the pixels that a box touches, as slice bounds x1, y1, x2, y2.

    They lie within the image and are at least one pixel, for any box.
    """
    x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height])
    left, top = min(int(x1), width - 1), min(int(y1), height - 1)
    return left, top, max(left + 1, int(np.ceil(x2))), max(top + 1, int(np.ceil(y2)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One image and the people in it.

    A re-ID crop is a sample too: its one person has the `whole` image as box.
    """

    name: str
    """The data set's name for the image; unique in its split."""
    image: Path | NDArray[np.uint8]
    """The file, or the pixels: (H, W, 3) RGB."""
    boxes: Boxes
    """(N, 4) x1, y1, x2, y2 in pixels around each whole person, as annotated: they may reach beyond the image."""
    ids: Ids
    """(N,) index into the split's `identities`, or `UNLABELLED`."""
    ignore: Boxes = field(default_factory=lambda: as_boxes(()))
    """(M, 4) regions that are neither people nor background: crowds, posters, people too small to be annotated."""
    visible: Boxes | None = None
    """(N, 4) the visible part of each person, if the data set says so."""
    camera: int | None = None
    """The camera that took it, if known. Frames of one video count as images of one camera."""
    size: tuple[int, int] | None = None
    """Height and width, if the annotation says so."""

    def __post_init__(self) -> None:
        for what, rows in (("boxes", self.boxes), ("ignore", self.ignore), ("visible", self.visible)):
            if rows is not None and (rows.dtype != np.float32 or rows.shape[1:] != (4,)):
                raise DatasetError(f"{self.name}: {what} must be (N, 4) float32, not {rows.shape} {rows.dtype}.")
        if self.ids.shape != (len(self.boxes),) or self.ids.dtype != np.int64:
            raise DatasetError(
                f"{self.name}: {len(self.boxes)} boxes need ({len(self.boxes)},) int64 ids, not {self.ids.shape}."
            )
        if self.visible is not None and len(self.visible) != len(self.boxes):
            raise DatasetError(f"{self.name}: {len(self.boxes)} boxes but {len(self.visible)} visible ones.")

    def pixels(self) -> Image.Image:
        """Return the image as RGB.

        Raises:
            ImageError: the file is missing or damaged.
        """
        return read_image(self.image) if isinstance(self.image, Path) else Image.fromarray(self.image)

    def true_size(self) -> tuple[int, int]:
        """Return height and width of the image file itself, not of the annotation.

        Raises:
            ImageError: the file is missing, or is no image.
        """
        return image_size(self.image) if isinstance(self.image, Path) else (self.image.shape[0], self.image.shape[1])

    @staticmethod
    def whole() -> Boxes:
        """Return a box for a whole image of unknown size: (1, 4), so large that clipping gives the image."""
        return as_boxes([[0, 0, np.inf, np.inf]])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """A part of a data set, such as train or test."""

    dataset: str
    """Name of the layout it was read from."""
    name: str
    task: Task
    samples: Sequence[Sample]
    identities: tuple[str, ...] = ()
    """The data set's names for the people 0, 1, 2, ... of `Sample.ids`."""
    notes: tuple[str, ...] = ()
    """What the reader left out or repaired, one line each, with counts."""

    def __len__(self) -> int:
        return len(self.samples)

    def with_sizes(self, *, skip_unreadable: bool = False) -> Split:
        """Return the split with the size of every image; sizes that the annotation lacks are read from the files.

        Args:
            skip_unreadable: Leave out files that are missing or are no image, with a note, instead of raising an error.

        Raises:
            ImageError: a file is missing, or is no image.
        """
        samples = []
        for sample in self.samples:
            try:
                samples.append(sample if sample.size else replace(sample, size=sample.true_size()))
            except ImageError:
                if not skip_unreadable:
                    raise
        left_out = len(self.samples) - len(samples)
        notes = (*self.notes, f"{left_out} images that cannot be read left out") if left_out else self.notes
        return replace(self, samples=samples, notes=notes)

    @property
    def cameras(self) -> tuple[int, ...]:
        """The cameras that took the images, in order."""
        return tuple(sorted({sample.camera for sample in self.samples if sample.camera is not None}))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Query:
    """A person to search for: one box in one image."""

    sample: Sample
    """The image with all its annotation; its name may also be in the gallery."""
    box: Boxes
    """(4,) x1, y1, x2, y2 of the person in the image."""
    id: int
    """Index into the gallery's `identities`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GalleryList:
    """The gallery of one query, for protocols that give each query its own."""

    frames: Ids
    """(G,) index into the gallery's samples, in the protocol's order. Some published protocols list one image twice."""
    boxes: Boxes
    """(G, 4) the box of the query's person in each image, in whole pixels; NaN where the person is absent."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchSet:
    """A person-search test set: a gallery of whole scenes, and the queries."""

    gallery: Split
    queries: Sequence[Query]
    lists: Mapping[int, Sequence[GalleryList]] = field(default_factory=dict)
    """Gallery size -> one gallery list for each query, for protocols that have them (CUHK-SYSU)."""


def number(names: Iterable[str]) -> dict[str, int]:
    """Number distinct names 0, 1, 2, ... in the order of first occurrence."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}
