"""Preprocessing of images for a network: conversion to tensors, resizing and normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor

from pretrainps.errors import ArgumentError
from pretrainps.images.read import read_image, to_rgb
from pretrainps.registry.specs import InputConvention

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = Image.Image | Tensor | NDArray[np.uint8] | Path | str

Size = Literal["crop", "scene"] | tuple[int, int]
_LOWEST, _HIGHEST = -0.5, 1.5
"""Limits for pixels in 0..1, with room for the overshoot of bicubic resizing; numbers beyond are of another range."""


class Preprocess:
    """Turns images into a network's input.

    Args:
        convention: Colour order, scale, mean and standard deviation.
        size: "crop" resizes to the convention's crop size, "scene" keeps the size of each image (for detectors), and
        (height, width) resizes to that size in pixels.

    Example:
        >>> from PIL import Image
        >>> import pretrainps
        >>> transform = pretrainps.preprocess("resnet50-hybrid")
        >>> tuple(transform(Image.new("RGB", (60, 160))).shape)
        (3, 256, 128)
    """

    def __init__(self, convention: InputConvention, *, size: Size = "crop") -> None:
        pair = isinstance(size, tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        if size not in ("crop", "scene") and not pair:
            raise ArgumentError(f"size must be 'crop', 'scene' or (height, width), not {size!r}.")
        self.convention = convention
        self.size = None if size == "scene" else convention.size if isinstance(size, str) else size

    def __call__(self, picture: Picture) -> Tensor:
        """Return one image as the network's input.

        Args:
            picture: A PIL image, an image file's path, an (H, W, 3) uint8 array, or a (3, H, W) tensor in RGB order,
                uint8 in 0..255 or float in 0..1.

        Returns:
            (3, height, width) float32.

        Raises:
            ImageError: the file cannot be read.
            ArgumentError: an array or tensor of another shape, type or range.
        """
        return self.normalize(self.resize(to_tensor(picture)))

    def resize(self, pixels: Tensor) -> Tensor:
        """(3, H, W) in 0..1 -> (3, height, width) in 0..1, antialiased."""
        if self.size is None or tuple(pixels.shape[-2:]) == self.size:
            return pixels
        resized = torch.nn.functional.interpolate(
            pixels[None], self.size, mode=self.convention.interpolation, align_corners=False, antialias=True
        )
        return resized[0].clamp(0, 1)  # bicubic interpolation overshoots

    def normalize(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) RGB in 0..1 -> the network's colour order and scale, normalized with its mean and deviation."""
        c = self.convention
        if c.colour == "bgr":
            pixels = pixels.flip(-3)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (c.mean, c.std))
        return (pixels * c.scale - mean) / std

    def describe(self) -> str:
        """Describe the steps in words, and the evidence for them."""
        c = self.convention
        steps = [
            f"resize to {self.size[0]}x{self.size[1]} (height x width, {c.interpolation}, antialiased)"
            if self.size
            else "keep the image's size",
            f"{c.colour.upper()} in 0..{c.scale:g}",
            f"subtract {_numbers(c.mean)}",
            f"divide by {_numbers(c.std)}",
        ]
        return f"{'; '.join(steps)}\n{c.status}: {c.evidence}"

    def __repr__(self) -> str:
        c = self.convention
        return f"Preprocess({c.colour}, scale={c.scale:g}, mean={c.mean}, std={c.std}, size={self.size}, {c.status})"


def to_tensor(picture: Picture) -> Tensor:
    """Return an image as (3, H, W) float32 RGB in 0..1.

    Raises:
        ImageError: the file cannot be read.
        ArgumentError: an array or tensor of another shape, type or range.
    """
    if isinstance(picture, str | Path):
        picture = read_image(Path(picture))
    if isinstance(picture, Image.Image):
        import numpy as np

        picture = np.asarray(to_rgb(picture))
    if not isinstance(picture, Tensor):
        if not hasattr(picture, "__array_interface__"):
            raise ArgumentError(f"expected an image (PIL image, path, array or tensor), not {type(picture).__name__}.")
        array = torch.from_numpy(picture.copy())
        if array.dtype != torch.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ArgumentError(f"expected an (H, W, 3) uint8 array, not {tuple(array.shape)} {array.dtype}.")
        picture = array.permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ArgumentError(f"expected a (3, H, W) tensor, not {tuple(picture.shape)}.")
    if picture.dtype == torch.uint8:
        return picture.float() / 255
    if not picture.is_floating_point():
        raise ArgumentError(f"expected a uint8 or float tensor, not {picture.dtype}.")
    require_fractions([picture], "the tensor")
    return picture.float()


def require_fractions(pictures: Sequence[Tensor], name: str) -> None:
    """Check that float pixels are in 0..1, so that they are not normalized already. It waits for a GPU only once.

    Args:
        pictures: Float tensors, on one device.
        name: Name of the argument for the message; "{}" in it is replaced by the position of an image.

    Raises:
        ArgumentError: the pixels are in 0..255, normalized, or not finite.
    """
    filled = [(place, picture) for place, picture in enumerate(pictures) if picture.numel()]
    if not filled:
        return
    ends = torch.stack([torch.stack(torch.aminmax(picture.detach())).float() for _, picture in filled])
    for (place, _), (low, high) in zip(filled, ends.tolist(), strict=True):
        if low >= _LOWEST and high <= _HIGHEST:
            continue
        if not math.isfinite(low + high):
            found = "holds numbers that are not finite"
            remedy = "Check the code that read or computed it."
        else:
            found = f"holds numbers from {low:.3g} to {high:.3g}"
            remedy = "Divide by 255." if low >= 0 else "Give them without normalization: it is applied later."
        raise ArgumentError(f"{name.format(place)} {found}; expected RGB pixels in 0..1. {remedy}")


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
