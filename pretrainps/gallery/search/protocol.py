"""What a gallery asks of a vector index: the most similar detections, perhaps only among some of them.

Two Protocols: an index that is ready to search (`VectorIndex`), and the back end that builds and opens such indexes
(`VectorIndexType`). Exact search and faiss come with the package. Another package adds its own with `register_vector_index`. It
may be an index of the database that keeps the detections: `build` and `open` get the stored detections as that store made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.detections import F32, I64

Facts = Mapping[str, int | float | str | bool]
"""What a back end must know to open an index again, and what was measured of it. Numbers are finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionFilter:
    """Which detections may be answers. All conditions must hold. Every back end can express them in its own query language."""

    exclude_images: frozenset[str] = frozenset()
    """Detections in images of these names are no answers."""
    folder: str = ""
    """Only detections in images whose name begins with this text are answers, such as "camera 2/". "" allows all."""

    def allows(self, image: str) -> bool:
        """Return whether detections in an image may be answers."""
        return image not in self.exclude_images and image.startswith(self.folder)


class VectorIndex(Protocol):
    """Finds the most similar detections of one version of a gallery."""

    @property
    def method(self) -> str:
        """How it searches: "exact", or how answers are approximated, with the recall that was measured against exact search."""
        ...

    def search(self, vectors: F32, top: int, *, only: DetectionFilter | None = None) -> tuple[F32, I64]:
        """Return the greatest inner products and their rows.

        Args:
            vectors: (Q, D) float32, finite.
            top: How many answers for each, 1 or more.
            only: Which detections may be answers; `None` allows all.

        Returns:
            (Q, K) similarities, the greatest first, of equal ones the first row first; and (Q, K) rows, with K = `top` or fewer
            if there are not so many. Where a query has fewer answers than K, similarities are -inf and rows -1.
        """
        ...


class VectorIndexType(Protocol):
    """Builds and opens vector indexes of one kind."""

    @property
    def name(self) -> str:
        """What the manifest calls it, and what `vector_index=` is."""
        ...

    def require(self) -> None:
        """See that it can be used here. It is called before anything is indexed.

        Raises:
            MissingPackageError: A library that it needs is not installed.
        """
        ...

    def build(self, stored: StoredDetections, file: Path) -> Facts:
        """Build an index for a version, and measure it if it approximates.

        Args:
            stored: The version. It is not empty.
            file: Where to write the index. If nothing is written there, the index has no file.

        Returns:
            What `open` needs.
        """
        ...

    def open(self, stored: StoredDetections, facts: Facts, file: Path | None, *, device: torch.device | str) -> VectorIndex:
        """Open an index.

        Args:
            stored: The version that it was built for.
            facts: What `build` returned.
            file: The file that `build` wrote, unchanged; `None` if it wrote none.
            device: Where to compute, if that can be chosen.

        Raises:
            MissingPackageError: A library that it needs is not installed.
            IntegrityError: The file or the facts do not fit to the version.
        """
        ...
