"""What a gallery says of itself: which model looked at which images, and which of them could not be read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pretrainps.errors import ArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMark:
    """The detector that a gallery is bound to."""

    name: str
    """The name is for people to read. The fingerprint decides."""
    fingerprint: str
    """Hash of the model's tensors and settings."""
    kind: str
    """The detector's name in the registry of detectors."""
    dim: int
    """Length of an embedding."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Number format of the trunk, the proposals and the last stages while the images were indexed."""
    weighted: bool
    """Whether embeddings are multiplied by their detection scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMark:
    """Where the images come from."""

    kind: Literal["folder", "video"]
    """What `root` is."""
    root: str
    """Absolute path of the folder or of the video."""
    fps: float | None = None
    """How many frames of a video are indexed for each second of it. A folder has none."""

    def __post_init__(self) -> None:
        fits = self.fps is None if self.kind == "folder" else self.fps is not None and 0 < self.fps < math.inf
        if not fits:
            raise ArgumentError(f"a video has frames a second above 0, and a folder none; this {self.kind} has {self.fps}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An image that could not be indexed."""

    image: str
    """Its name in the gallery."""
    reason: str
    """What went wrong, as a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryHeader:
    """What is known of a gallery as a whole."""

    model: ModelMark
    """The detector that filled it."""
    source: SourceMark
    """Where its images lie."""
    failures: tuple[Failure, ...] = ()
    """Images that could not be read. The next run tries them again."""
    complete: bool = False
    """Whether the last run came to its end."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An indexed image, and how to find out whether its file is still the same."""

    name: str
    """Path relative to the folder of images, "/"-separated; or the video's name, "#" and the frame's time in seconds."""
    size: int
    """Bytes of its file, or of its video's file."""
    mtime_ns: int
    """When that file was last changed, in nanoseconds since 1970."""
    sha256: str
    """Hash of that file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexMark:
    """A vector index that was built for one version of a gallery's detections."""

    kind: str
    """Name of the back end that built it and opens it."""
    version: str
    """The version of the detections that it was built for (`StoredDetections.version`)."""
    facts: dict[str, int | float | str | bool]
    """What the back end returned when it built the index, and wants back when it opens it."""


def is_safe_name(name: str) -> bool:
    """Return whether an image's name stays within the folder of images."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts
