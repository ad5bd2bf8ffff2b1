"""What a source of images does: list what is there, compare it with what is known, and read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretrainps.gallery.storage.header import Failure, ImageRecord, SourceMark
from pretrainps.inference.runner import ImageFailure, ImageInput

KnownImages = Mapping[str, ImageRecord]
"""Indexed images by name."""
ImageKey = ImageRecord | str
"""The record of an image that was read, or the name of one that could not be read."""
ReadImage = ImageInput[ImageKey] | ImageFailure[ImageKey]
"""Pixels (3, H, W) uint8, RGB, upright; or the reason why there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a source has, compared with what is known."""

    kept: dict[str, ImageRecord]
    """Known images that are still the same. A record is renewed if its file was touched but not changed."""
    wanted: tuple[str, ...] | None
    """Images to index, in order. `None` if they show only while the source is read."""
    expected: int
    """About how many those are."""
    failures: tuple[Failure, ...] = ()
    """What could not be listed or read."""


class ImageSource(ABC):
    """Images by name.

    Attributes:
        mark: What a gallery remembers of it.
        root: The folder that names are relative to.
    """

    mark: SourceMark
    root: Path

    @abstractmethod
    def survey(self, known: KnownImages, failures: tuple[Failure, ...], *, complete: bool) -> Survey:
        """Compare what there is with what is known.

        Args:
            known: Images that were indexed before.
            failures: Images that could not be.
            complete: Whether that run came to its end.

        Raises:
            ArgumentError: There are no images.
        """

    @abstractmethod
    def read(self, survey: Survey) -> Iterator[ReadImage]:
        """Yield the wanted images, in order. An image that cannot be read is a failure with the reason."""

    @abstractmethod
    def picture(self, record: ImageRecord) -> Image.Image:
        """Read a known image again.

        Raises:
            ImageError: It is gone, damaged, or not the one that was indexed.
        """
