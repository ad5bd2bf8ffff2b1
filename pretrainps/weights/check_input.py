"""Find a network's input convention from the weights themselves.

The first batch norm of a trained network stores the mean and variance of its first convolution's output on the training
images. Ordinary images give other statistics under each possible convention; the true convention gives the statistics that are
closest to the stored ones. This holds for images like those of the training: if all of yours have the same tint or lighting,
the answer may be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pretrainps.errors import ArgumentError, ImageError, UnsupportedModelError
from pretrainps.hub.load import Model
from pretrainps.images.pixels import Preprocess, to_tensor
from pretrainps.registry.specs import Colour, InputConvention
from pretrainps.weights.unwrap import unwrap

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SCALINGS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (1.0, _IMAGENET_MEAN, _IMAGENET_STD),
    "0-255": (255.0, tuple(255 * m for m in _IMAGENET_MEAN), (1.0, 1.0, 1.0)),
    "0.5": (1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation in RGB order. "0-255" is Caffe's: minus ImageNet's mean, without division."""

STATED = "stated"
"""The name of a scaling that only the model's spec has."""
CLEAR = 1.5
"""The second-best distance must be at least this many times the best for a clear answer."""
FEW = 20
"""Below this number of images the answer includes a warning."""
COLOURFUL = 0.02
"""Least mean difference of red and blue, in 0..1, for images that can show the order of colours."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One convention, and the distance of its statistics from the stored ones (0 means equal)."""

    colour: Colour
    scaling: str
    """A key of the known scalings, or "stated" for that of the model's spec."""
    distance: float

    def __str__(self) -> str:
        return f"{self.colour.upper()}, {self.scaling}"


@dataclass(frozen=True, slots=True)
class InputCheck:
    """The candidates, the best first, and the conclusions."""

    candidates: tuple[Candidate, ...]
    images: int
    colourfulness: float
    """Mean absolute difference of red and blue in the images, 0 to 1."""
    layer: str
    stated: InputConvention
    failures: tuple[str, ...] = ()
    """Why some images could not be read."""

    @property
    def best(self) -> Candidate:
        """The convention with the closest statistics."""
        return self.candidates[0]

    @property
    def colour_settled(self) -> bool:
        """Whether the other colour order with the same scaling is clearly farther, and the images have colour at all."""
        other = next(c for c in self.candidates if c.scaling == self.best.scaling and c.colour != self.best.colour)
        return self.colourfulness > COLOURFUL and other.distance > CLEAR * self.best.distance

    @property
    def scaling_settled(self) -> bool:
        """Whether every other scaling is clearly farther."""
        others = [c.distance for c in self.candidates if c.scaling != self.best.scaling]
        return min(others) > CLEAR * self.best.distance

    @property
    def agrees(self) -> bool | None:
        """Whether the best candidate is that of the spec; `None` if the images do not decide between them."""
        stated = next(c for c in self.candidates if (c.colour, c.scaling) == _name_of(self.stated))
        if stated is self.best:
            return True
        decided = stated.distance > CLEAR * self.best.distance
        same_scaling = stated.scaling == self.best.scaling
        return False if decided and (self.colour_settled if same_scaling else self.scaling_settled) else None

    def __str__(self) -> str:
        lines = [f"{self.images} images through {self.layer}; distance of its statistics from the remembered ones:"]
        lines += [f"  {c.distance:10.4f}  {c}" for c in self.candidates]
        clear = [
            f"colour order {'clear' if self.colour_settled else 'undecided'}",
            f"scaling {'clear' if self.scaling_settled else 'undecided'}",
        ]
        lines.append(f"{self.best} fits best ({', '.join(clear)}).")
        verdict = {True: "this agrees", False: "this DISAGREES", None: "these images do not decide it"}[self.agrees]
        stated = f"The spec states {self.stated.colour.upper()} with mean {self.stated.mean} ({self.stated.status})"
        lines.append(f"{stated}: {verdict}.")
        if not (self.colour_settled and self.scaling_settled):
            lines.append("Give more images, in colour and like the training data (street scenes, people), to decide it.")
        elif self.images < FEW:
            lines.append(f"With fewer than {FEW} images, one unusual image may have decided it: give more to be sure.")
        return "\n".join(lines)


@torch.no_grad()
def check_input(model: Model, images: Sequence[Path | Tensor], *, size: tuple[int, int] = (256, 256)) -> InputCheck:
    """Compare the first batch norm's statistics with the statistics of images under each convention.

    Args:
        model: A loaded model that starts with a convolution and a batch norm.
        images: Files, or (3, H, W) tensors in RGB 0..1. A few dozen ordinary colour images are enough.
        size: Height and width for resizing the images.

    Raises:
        UnsupportedModelError: no batch norm follows the first convolution (Swin, ConvNeXt), or it was never trained.
        ArgumentError: there are no images.
        ImageError: none of the images can be read.
    """
    if not images:
        raise ArgumentError("no images to check with. Give a folder with some ordinary colour images.")
    model = unwrap(model)
    name, convolution, norm = _first_layers(model)
    pixels, failures = [], []
    for image in images:
        try:
            pixels.append(Preprocess(model.spec.input, size=size).resize(to_tensor(image)))
        except ImageError as error:
            failures.append(str(error))
    if not pixels:
        raise ImageError(f"none of the {len(images)} images can be read: {failures[0]}")
    candidates = []
    colours: tuple[Colour, Colour] = ("rgb", "bgr")
    stated = model.spec.input
    tried = [(colour, scaling, convention(colour, scaling, stated)) for scaling in _SCALINGS for colour in colours]
    if _name_of(stated)[1] == STATED:  # statistics of its own, such as LUPerson's
        swapped = replace(stated, colour=colours[stated.colour == "rgb"], mean=stated.mean[::-1], std=stated.std[::-1])
        tried += [(stated.colour, STATED, stated), (swapped.colour, STATED, swapped)]
    for colour, scaling, assumed in tried:
        candidates.append(Candidate(colour, scaling, _distance(convolution, norm, Preprocess(assumed), pixels)))
    candidates.sort(key=lambda c: c.distance)
    colourfulness = float(torch.stack([(image[0] - image[2]).abs().mean() for image in pixels]).mean())
    return InputCheck(tuple(candidates), len(pixels), colourfulness, name, stated, tuple(failures))


def convention(colour: Colour, scaling: Literal["imagenet", "0-255", "0.5"] | str, like: InputConvention) -> InputConvention:
    """Return one of the candidate conventions, with everything else as in `like`."""
    scale, mean, std = _SCALINGS[scaling]
    order = slice(None) if colour == "rgb" else slice(None, None, -1)
    r, g, b = mean[order]
    sr, sg, sb = std[order]
    return replace(like, colour=colour, scale=scale, mean=(r, g, b), std=(sr, sg, sb))


def _name_of(stated: InputConvention) -> tuple[Colour, str]:
    """Return the candidate of a stated convention. Conventions are equal if they change pixels equally, up to rounding."""
    for scaling in _SCALINGS:
        same = convention(stated.colour, scaling, stated)
        pairs = zip(_per_pixel(stated), _per_pixel(same), strict=True)
        if all(abs(a - b) <= 0.01 * abs(b) for a, b in pairs):
            return stated.colour, scaling
    return stated.colour, STATED


def _per_pixel(c: InputConvention) -> list[float]:
    """Return slope and offset of each channel for a pixel in 0..1."""
    return [v for m, s in zip(c.mean, c.std, strict=True) for v in (c.scale / s, -m / s)]


def _first_layers(model: nn.Module) -> tuple[str, nn.Conv2d, nn.BatchNorm2d]:
    convolution: nn.Conv2d | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and convolution is None:
            convolution = module
        elif isinstance(module, nn.BatchNorm2d) and convolution is not None:
            mean, variance = module.running_mean, module.running_var
            if mean is None or variance is None or (bool((mean == 0).all()) and bool((variance == 1).all())):
                raise UnsupportedModelError(
                    f"{name} holds no statistics: it was never trained, so there is nothing to compare."
                )
            return name, convolution, module
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Conv2d):
            break
    raise UnsupportedModelError("no batch norm follows the first convolution, so the weights remember no input statistics.")


def _distance(convolution: nn.Conv2d, norm: nn.BatchNorm2d, transform: Preprocess, pixels: list[Tensor]) -> float:
    """Return the mean symmetric Kullback-Leibler divergence of the channels, as Gaussians."""
    total = square = torch.zeros(convolution.out_channels, dtype=torch.float64)
    count = 0
    for image in pixels:
        response = convolution(transform.normalize(image)[None].to(convolution.weight))[0].double()  # (C, h, w)
        total = total + response.sum(dim=(1, 2)).cpu()
        square = square + response.square().sum(dim=(1, 2)).cpu()
        count += response[0].numel()
    mean = total / count
    # channels that never respond show nothing, and must not cause a division by zero
    variance = (square / count - mean.square()).clamp_min(1e-12)
    remembered_mean = norm.running_mean.double().cpu()  # type: ignore[union-attr]
    remembered = norm.running_var.double().cpu().clamp_min(1e-12)  # type: ignore[union-attr]
    gap = (mean - remembered_mean).square()
    divergence = (variance + gap) / remembered + (remembered + gap) / variance - 2
    return float((divergence / 4).log1p().mean())
