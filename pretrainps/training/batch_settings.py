"""Settings of training batches: their size, and the random changes of their images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSettings:
    """Scenes of a batch, and the random changes of them."""

    batch_size: int = 5
    """Scenes in a batch of one process, counted over all data sets."""
    flip: float = 0.5
    """Probability of mirroring."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    crop: float = 0.0
    """Probability of keeping a random part of the scene only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSettings:
    """Crops of a batch, and the random changes of them."""

    people: int = 16
    """People in a batch of one process, counted over all data sets."""
    shots: int = 4
    """Crops of each person."""
    height: int = 256
    """Height in pixels that crops are resized to."""
    width: int = 128
    """Width in pixels that crops are resized to."""
    flip: float = 0.5
    """Probability of mirroring."""
    shift: int = 10
    """Largest distance in pixels by which a crop is moved."""
    colour: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    erase: float = 0.5
    """Probability of blanking a rectangle."""
