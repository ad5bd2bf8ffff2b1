"""What a gallery asks of the place that keeps its detections.

Two Protocols: the place itself (`DetectionStore`), and one run that writes to it (`StoreWriter`). What is read from it is
`StoredDetections` (`pretrainps.gallery.storage.stored`). A folder of files is the implementation that comes with the package
(`pretrainps.gallery.storage.folder`). Another package adds its own, for a database say, with `register_detection_store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pretrainps.gallery.search.protocol import VectorIndexType
from pretrainps.gallery.storage.header import Failure, GalleryHeader, ImageRecord
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.detections import Detections


class DetectionStore(Protocol):
    """A place that keeps the detections of one gallery. Making the object must not change anything there."""

    @property
    def location(self) -> str:
        """How commands and messages name the place: a path, or a URL. It must hold no password."""
        ...

    @property
    def folder(self) -> Path | None:
        """The local folder that it takes up, which indexing must not search for images; `None` if it takes up none."""
        ...

    def open(self, *, verify: bool = True) -> StoredDetections:
        """Return the newest version.

        Args:
            verify: Check that nothing was damaged or changed, even if that means to read everything.

        Raises:
            GalleryError: There is no gallery, or it was written by a newer version of the package.
            IntegrityError: Something in it is damaged.
        """
        ...

    def write(self, *, wait: bool, rebuild: bool) -> AbstractContextManager[StoreWriter]:
        """Begin to write. Until the context ends, no other run can write there; readers keep the version that they opened.

        Args:
            wait: Wait for another run that writes there. Otherwise it is an error.
            rebuild: Begin with nothing, whatever is there, and even if that is damaged.

        Raises:
            GalleryError: Another run is writing there, or the place holds something else.
            IntegrityError: Something in it is damaged.
            CacheError: The place cannot be written to.
        """
        ...


class StoreWriter(Protocol):
    """One run that writes. What was appended and flushed must survive whatever ends the run."""

    @property
    def header(self) -> GalleryHeader | None:
        """What the run before this one wrote; `None` if there was none, or if this one begins with nothing."""
        ...

    def records(self) -> Mapping[str, ImageRecord]:
        """Return the indexed images by name. Images whose detections were damaged are left out, and indexed again."""
        ...

    def begin(self, header: GalleryHeader, kept: Mapping[str, ImageRecord]) -> None:
        """Write the header, and remove every image that is not kept, with its detections.

        Args:
            header: What is true from now on. It is not complete.
            kept: Images that stay, by name. Their records may be newer than the stored ones.
        """
        ...

    def append(self, record: ImageRecord, found: Detections) -> None:
        """Add a new image.

        Args:
            record: The image's file.
            found: A table of this one image. Its embeddings have the length that the header says.
        """
        ...

    def flush(self, failures: Sequence[Failure]) -> None:
        """Write all that was appended, and the failures until now."""
        ...

    def finish(self, failures: Sequence[Failure]) -> StoredDetections:
        """Write all that was appended, mark the run as complete, and return the new version.

        Args:
            failures: All images that could not be indexed.
        """
        ...

    def save_index(self, kind: VectorIndexType | None) -> None:
        """Have a vector index built for the present version, unless it is there already. It is called after `finish`.

        Args:
            kind: The back end. Its `build` is called with the version, if that has any detections. `None` drops any index.
        """
        ...
