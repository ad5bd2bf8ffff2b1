"""What a training batch holds, and what is random about its images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSettings:
    """Scenes of a batch, and what is random about them."""

    batch_size: int = 5
    """Scenes in a batch of one process, of all data sets together."""
    flip: float = 0.5
    """Probability of mirroring."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    crop: float = 0.0
    """Probability of cutting a part out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSettings:
    """Crops of a batch, and what is random about them."""

    people: int = 16
    """People in a batch of one process, of all data sets together;"""
    shots: int = 4
    """and pictures of each."""
    height: int = 256
    width: int = 128
    flip: float = 0.5
    """Probability of mirroring."""
    shift: int = 10
    """Pixels that a picture is moved by at most."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    erase: float = 0.5
    """Probability of blanking a rectangle."""
