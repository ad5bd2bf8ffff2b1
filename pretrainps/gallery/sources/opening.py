"""A folder or a video by its path, as a source of images."""

from __future__ import annotations

from pathlib import Path

from pretrainps.errors import ArgumentError
from pretrainps.gallery.sources.base import ImageSource
from pretrainps.gallery.sources.folder import FolderSource
from pretrainps.gallery.sources.video import VideoSource
from pretrainps.images.read import SUFFIXES


def open_source(place: Path | str, *, fps: float | None = None, without: Path | None = None) -> ImageSource:
    """Return a folder of images, or a video, as a source.

    Args:
        place: The folder or the video.
        fps: How many frames of a video are indexed for each second of it; by default 1.
        without: A folder to skip.

    Raises:
        ArgumentError: There is no such place, it is a single image, or `fps` is given for a folder.
        MissingPackageError: It is a video, and PyAV is not installed.
        ImageError: It is not a video, or is damaged.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise ArgumentError(f"{path} does not exist. Give a folder of images, or a video.")
    if path.is_dir():
        if fps is not None:
            raise ArgumentError(f"frames a second (fps={fps:g}) are for videos; {path} is a folder.")
        return FolderSource(path, without=without)
    if path.suffix.lower() in SUFFIXES:
        raise ArgumentError(f"{path} is one image. Give the folder it lies in, or a video.")
    return VideoSource(path, fps=1.0 if fps is None else fps)
