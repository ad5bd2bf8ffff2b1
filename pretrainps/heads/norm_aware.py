"""Norm-aware embeddings: one vector whose direction says who, and whose length says whether it is anyone.

Chen et al., "Norm-Aware Embedding for Efficient Person Search", CVPR 2020; formulas of github.com/dichen-cd/NAE4PS
(faster_rcnn_norm_aware.py, faster_rcnn_pixel_wise_norm_aware.py). `UnitEmbedding` is the same without the norm branch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones.precision import matching
from pretrainps.ops.precision import to_float32

_SMALLEST_NORM = 1e-12


def _widths(dim: int, parts: int) -> list[int]:
    """Share `dim` out as evenly as it goes, the remainder to the first parts."""
    return [dim // parts + (part < dim % parts) for part in range(parts)]


def initialize_projection(linear: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Start as the originals do: weights and batch-norm scales from N(0, 0.01), biases at 0."""
    for module in (linear, norm):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class UnitEmbedding(nn.Module):
    """Project pooled maps, join them, and scale the result to length 1.

    Args:
        channels: Channels of each map, by name.
        dim: Length of the embedding; each map gives an equal part.
    """

    def __init__(self, channels: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.projectors = nn.ModuleDict()
        for (name, width_in), width in zip(channels.items(), _widths(dim, len(channels)), strict=True):
            linear, norm = nn.Linear(width_in, width), nn.BatchNorm1d(width)
            initialize_projection(linear, norm)
            self.projectors[name] = nn.Sequential(linear, norm)

    def project(self, pooled: Mapping[str, Tensor]) -> Tensor:
        """{name: (N, C)} -> (N, dim), of any length."""
        parts = [projector(matching(pooled[name], projector)) for name, projector in self.projectors.items()]
        return to_float32(torch.cat(parts, dim=1))  # lengths are taken in full precision

    def forward(self, pooled: Mapping[str, Tensor]) -> Tensor:
        """{name: (N, C)} -> (N, dim), rows of length 1."""
        return F.normalize(self.project(pooled), dim=1, eps=_SMALLEST_NORM)


class NormAwareEmbedding(UnitEmbedding):
    """Direction and length of one projected vector; batch norm turns the length into a person's logit."""

    def __init__(self, channels: Mapping[str, int], dim: int) -> None:
        super().__init__(channels, dim)
        self.rescaler = nn.BatchNorm1d(1)

    def forward(self, pooled: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """{name: (N, C)} -> unit vectors (N, dim) and logits of being a person (N,)."""
        vectors = self.project(pooled)
        norms = vectors.norm(dim=1, keepdim=True)  # (N, 1)
        logits = to_float32(self.rescaler(matching(norms, self.rescaler)))
        return vectors / norms.clamp(min=_SMALLEST_NORM), logits.squeeze(1)


class PixelNormAwareEmbedding(nn.Module):
    """NAE+: a norm-aware embedding at every pixel of a region, averaged with each pixel's probability of being a person.

    Args:
        channels: Channels of each map, by name, the coarsest last: finer ones are projected and then resized to its size.
        dim: Length of the embedding; each map gives an equal part.
    """

    def __init__(self, channels: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.coarsest = list(channels)[-1]
        self.projectors = nn.ModuleDict()
        for (name, width_in), width in zip(channels.items(), _widths(dim, len(channels)), strict=True):
            convolution, norm = nn.Conv2d(width_in, width, 1), nn.BatchNorm2d(width)
            initialize_projection(convolution, norm)
            self.projectors[name] = nn.Sequential(convolution, norm)
        self.rescaler = nn.BatchNorm2d(1)

    def forward(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """{name: (N, C, H, W)} -> embeddings (N, dim), no longer than 1, and logits of each pixel (N, h, w) of the last map."""
        size = maps[self.coarsest].shape[-2:]
        parts = []
        for name, projector in self.projectors.items():
            part = projector(matching(maps[name], projector))
            if part.shape[-2:] != size:
                part = F.interpolate(part, size, mode="bilinear", align_corners=False)
            parts.append(part)
        vectors = to_float32(torch.cat(parts, dim=1))  # (N, dim, h, w)
        norms = vectors.norm(dim=1, keepdim=True)  # (N, 1, h, w)
        logits = to_float32(self.rescaler(matching(norms, self.rescaler)))
        attended = vectors / norms.clamp(min=_SMALLEST_NORM) * logits.sigmoid()
        return attended.mean(dim=(2, 3)), logits.squeeze(1)
