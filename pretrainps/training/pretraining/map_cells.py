"""Which cells of a map show picture and no padding, and which show a person."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrainps.detectors.transform import Size


def cells_of_pictures(sizes: Sequence[Size], maps: Tensor, scale: float) -> Tensor:
    """Return where on the maps there is picture and no padding. (N, h, w).

    Args:
        sizes: Height and width of each picture, in pixels.
        maps: (N, C, h, w).
        scale: Cells per pixel.
    """
    height, width = maps.shape[-2:]
    ends = torch.tensor(sizes, device=maps.device) * scale  # (N, 2)
    rows = torch.arange(height, device=maps.device) < ends[:, :1]  # (N, h)
    columns = torch.arange(width, device=maps.device) < ends[:, 1:]  # (N, w)
    return rows[:, :, None] & columns[:, None, :]


def cells_of_boxes(boxes: Sequence[Tensor], maps: Tensor, scale: float) -> Tensor:
    """Return which cells of the maps a box touches. A box in the picture touches one cell at least. (N, h, w).

    Args:
        boxes: For each map (P, 4), in pixels.
        maps: (N, C, h, w).
        scale: Cells per pixel.
    """
    height, width = maps.shape[-2:]
    rows, columns = (torch.arange(length, device=maps.device) / scale for length in (height, width))  # where cells begin
    side = 1.0 / scale
    found = []
    for each in boxes:
        x1, y1, x2, y2 = each.T[:, :, None]  # (P, 1)
        across, down = (
            (a < first + side) & (first < b) for a, b, first in ((x1, x2, columns), (y1, y2, rows))
        )  # (P, w), (P, h)
        found.append((down[:, :, None] & across[:, None, :]).any(dim=0))
    return torch.stack(found)
