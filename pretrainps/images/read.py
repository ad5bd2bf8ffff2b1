"""Find and read image files, with EXIF rotation, and errors that name the file."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from pretrainps.errors import ArgumentError, ImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)
"""Errors of Pillow for damaged files."""


def find_images(places: Iterable[Path | str]) -> list[Path]:
    """Return the image files among files and folders, which are searched recursively, in order and each once.

    Raises:
        ArgumentError: a file or folder does not exist, or there is no image at all.
    """
    found: dict[Path, None] = {}
    for place in (Path(p).expanduser() for p in places):
        if place.is_dir():
            files = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            found.update(dict.fromkeys(files))
        elif place.exists():
            found[place] = None
        else:
            raise ArgumentError(f"{place} does not exist. Give image files, or a folder of them.")
    if not found:
        raise ArgumentError(f"no images found. Looked for {', '.join(sorted(SUFFIXES))}.")
    return list(found)


def read_image(path: Path) -> Image.Image:
    """Return an image as RGB, turned upright by its EXIF orientation.

    Raises:
        ImageError: the file is missing, is no image, or is damaged.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is no image, or of a kind that Pillow cannot read.") from error
    except _DAMAGED as error:
        raise ImageError(f"{path} is damaged ({error}).") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of the upright image, from the header of its file.

    Raises:
        ImageError: the file is missing, or is no image.
    """
    try:
        with Image.open(path) as image:
            lies = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return (image.width, image.height) if lies else (image.height, image.width)
    except _DAMAGED as error:
        raise ImageError(f"{path} cannot be read ({error}).") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; 16-bit grey is scaled, because Pillow would clip it at 255.

    Raises:
        ImageError: its pixels are floats or signed numbers of unknown range.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(f"pixels of kind {image.mode!r} have no known range. Save the image with 8 bits per channel.")
    return image.convert("RGB")
