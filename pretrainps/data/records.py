"""What every reader returns: images with people, the sets they form, and what is searched for in them."""

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
"""No coordinate of a picture is that far out: keeps out infinity as well as numbers that no float holds."""
UNLABELLED = -1
"""The id of a person whose identity nobody wrote down."""

Task = Literal["search", "detection", "reid"]
Boxes = NDArray[np.float32]
Ids = NDArray[np.int64]


def are_coordinates(values: NDArray[np.float64]) -> bool:
    """Whether all of some numbers are finite, and such that a picture could have them."""
    return bool((np.abs(values) < FAR).all())  # false for NaN too


def as_boxes(rows: ArrayLike) -> Boxes:
    """Return rows x1, y1, x2, y2 as (N, 4) float32, also if there are none."""
    return np.asarray(rows, dtype=np.float32).reshape(-1, 4)


def from_xywh(rows: ArrayLike) -> Boxes:
    """Turn left, top, width, height into x1, y1, x2, y2: (N, 4) float32.

    The sum is taken in float64: annotation files hold unsigned 8 and 16-bit numbers, whose sums would wrap.
    """
    left_top, size = np.hsplit(np.asarray(rows, dtype=np.float64).reshape(-1, 4), 2)
    return np.hstack([left_top, left_top + size]).astype(np.float32)


def pixels_of(box: Boxes, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the pixels that a box touches, as ends x1, y1, x2, y2 to cut them out by.

    They are in the picture and at least one, whatever the box.
    """
    x1, y1, x2, y2 = np.clip(box, 0, [width, height, width, height])
    left, top = min(int(x1), width - 1), min(int(y1), height - 1)
    return left, top, max(left + 1, int(np.ceil(x2))), max(top + 1, int(np.ceil(y2)))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sample:
    """One image and the people in it.

    A re-ID crop is a sample too, with one person whose box is the `whole` picture.
    """

    name: str
    """What the data set calls the image; unique in its split."""
    image: Path | NDArray[np.uint8]
    """The file, or the pixels: (H, W, 3) RGB."""
    boxes: Boxes
    """(N, 4) x1, y1, x2, y2 in pixels of the whole persons, as annotated: they may leave the image."""
    ids: Ids
    """(N,) index into the split's `identities`, or `UNLABELLED`."""
    ignore: Boxes = field(default_factory=lambda: as_boxes(()))
    """(M, 4) regions that are neither people nor background: crowds, posters, people too small to be annotated."""
    visible: Boxes | None = None
    """(N, 4) what of each person is not hidden, if the data set says so."""
    camera: int | None = None
    """Which camera took it, if known. Frames of one video count as one camera's."""
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
        """Return the picture as RGB.

        Raises:
            ImageError: the file is missing or damaged.
        """
        return read_image(self.image) if isinstance(self.image, Path) else Image.fromarray(self.image)

    def true_size(self) -> tuple[int, int]:
        """Return height and width of the picture itself, whatever the annotation says.

        Raises:
            ImageError: the file is missing, or is no image.
        """
        return image_size(self.image) if isinstance(self.image, Path) else (self.image.shape[0], self.image.shape[1])

    @staticmethod
    def whole() -> Boxes:
        """Return the box of a whole picture whose size is not known: clipped to the picture, it is the picture. (1, 4)."""
        return as_boxes([[0, 0, np.inf, np.inf]])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """A part of a data set: train, test, ..."""

    dataset: str
    """Name of the layout it was read from."""
    name: str
    task: Task
    samples: Sequence[Sample]
    identities: tuple[str, ...] = ()
    """What the data set calls the people 0, 1, 2, ... of `Sample.ids`."""
    notes: tuple[str, ...] = ()
    """What the reader left out or mended, one line each, with counts."""

    def __len__(self) -> int:
        return len(self.samples)

    def with_sizes(self, *, skip_unreadable: bool = False) -> Split:
        """Return the split with the size of every image; what the annotation does not say is read from the files.

        Args:
            skip_unreadable: Leave out images that are missing or none, with a note, instead of raising.

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
    """The image with everyone annotated in it; its name may also be in the gallery."""
    box: Boxes
    """(4,) x1, y1, x2, y2."""
    id: int
    """Index into the gallery's `identities`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GalleryList:
    """The gallery of one query, where a protocol gives each query its own."""

    frames: Ids
    """(G,) index into the gallery's samples, in the protocol's order. One image may be listed twice; published protocols do."""
    boxes: Boxes
    """(G, 4) where the person searched for stands, in whole pixels; NaN where he is not."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchSet:
    """What a search is tested on: a gallery of whole scenes and the people to find in it."""

    gallery: Split
    queries: Sequence[Query]
    lists: Mapping[int, Sequence[GalleryList]] = field(default_factory=dict)
    """Gallery size -> one list a query, for protocols that have them (CUHK-SYSU)."""


def number(names: Iterable[str]) -> dict[str, int]:
    """Number distinct names 0, 1, 2, ... in the order in which they first come."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}
