"""One version of a gallery's detections, as searching reads it.

Detections have **rows**: 0 to N-1 within one version, those of one image next to each other and in the detector's order. Rows
change from version to version. What stays the same is an image's name, and with it the id "IMAGE#n" of a detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pretrainps.gallery.storage.header import GalleryHeader, ImageRecord, IndexMark
from pretrainps.inference.detections import Detections


class StoredDetections(Protocol):
    """One version of a gallery's detections. It never changes, whatever is written meanwhile."""

    @property
    def header(self) -> GalleryHeader:
        """What is known of the gallery as a whole."""
        ...

    @property
    def version(self) -> str:
        """A text that is equal only for the same detections in the same rows."""
        ...

    @property
    def index(self) -> IndexMark | None:
        """The vector index that was saved last, also if it belongs to another version; `None` if there is none."""
        ...

    @property
    def image_names(self) -> Sequence[str]:
        """Names of all indexed images, also of those without detections."""
        ...

    def __len__(self) -> int:
        """Return the number of detections."""
        ...

    def __contains__(self, image: object) -> bool:
        """Return whether an image of this name was indexed."""
        ...

    def record(self, image: str) -> ImageRecord:
        """Return what is known of an image's file. The image must be there."""
        ...

    def rows_of(self, image: str) -> range:
        """Return the rows of an image's detections. The image must be there."""
        ...

    def image_of(self, row: int) -> str:
        """Return the name of the image that a row's detection is in."""
        ...

    def table(self, images: Sequence[str]) -> Detections:
        """Return all detections of some images: those of the first image, then those of the second, and so on."""
        ...

    def embeddings(self) -> Sequence[Tensor]:
        """Return all embeddings in the order of rows, in blocks (N_i, D) float32 that may be mapped from files."""
        ...

    def index_file(self) -> Path | None:
        """Return the file that belongs to `index`, known to be unchanged; `None` if the index has no file.

        Raises:
            IntegrityError: It was changed or cut off.
        """
        ...
