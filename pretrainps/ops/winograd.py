"""3x3 convolutions with a quarter of the multiplications.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3). A tile of 6x6 pixels gives 4x4
results through 36 products instead of 144. The main part is 36 matrix products, for which every CPU has a fast routine.
Rounding errors grow by a factor of 10 or more, to about 1e-5 of the largest value.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TILE = 4
_FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""G: from 3 weights to 6 factors. The other two matrices are written out as sums below, which saves additions."""


class WinogradConv2d(nn.Module):
    """A `Conv2d` with kernel 3, stride 1 and padding 1, computed by tiles.

    Args:
        convolution: The convolution to replace; see `can_replace`.
    """

    factors: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        transform = torch.tensor(_FILTER, dtype=torch.float64)
        weight = convolution.weight.detach().double()
        factors = torch.einsum("ai,ocij,bj->baco", transform, weight, transform)  # (6, 6, C, out)
        self.register_buffer("factors", factors.flatten(0, 1).to(convolution.weight).contiguous())
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach())

    @staticmethod
    def can_replace(module: nn.Module) -> bool:
        """Return whether a module is a plain 3x3 convolution."""
        return (
            type(module) is nn.Conv2d
            and module.kernel_size == (3, 3)
            and module.stride == module.dilation == module.padding == (1, 1)
            and module.groups == 1
            and module.padding_mode == "zeros"
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H, W), channels last."""
        n, channels, height, width = x.shape
        down, across = -(-height // _TILE), -(-width // _TILE)
        # (N, H + 2, W + 2, C), plus padding to fill the last tiles
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1 + _TILE * across - width, 1, 1 + _TILE * down - height))
        x = _factors([x[:, i : i + _TILE * down : _TILE] for i in range(6)])  # (6, N, down, W + 2, C)
        x = _factors([x[:, :, :, j : j + _TILE * across : _TILE] for j in range(6)])  # (6, 6, N, down, across, C)
        products = torch.bmm(x.view(36, n * down * across, channels), self.factors)  # (36, N * tiles, out)
        y = products.view(6, 6, n, down, across, products.shape[-1])
        y = _results(list(y.unbind(0)))  # (4, 6, N, down, across, out): a tile's columns
        y = _results(list(y.unbind(1)))  # (4, 4, N, down, across, out): its rows, then its columns
        y = y.permute(2, 3, 0, 4, 1, 5).reshape(n, _TILE * down, _TILE * across, products.shape[-1])[:, :height, :width]
        if self.bias is not None:
            y = y + self.bias
        return y.permute(0, 3, 1, 2)


def _factors(pixels: list[Tensor]) -> Tensor:
    """Multiply B^T (6, 6) with six tensors, the result stacked in front."""
    d0, d1, d2, d3, d4, d5 = pixels
    found = d0.new_empty(6, *d0.shape)
    even, odd = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    torch.add(even, odd, out=found[1])
    torch.sub(even, odd, out=found[2])
    torch.sub(d4, d2, out=even)
    torch.sub(d3, d1, out=odd)
    torch.add(even, odd, alpha=2, out=found[3])
    torch.sub(even, odd, alpha=2, out=found[4])
    torch.sub(d4, d2, alpha=5, out=found[0]).add_(d0, alpha=4)
    torch.sub(d5, d3, alpha=5, out=found[5]).add_(d1, alpha=4)
    return found


def _results(products: list[Tensor]) -> Tensor:
    """Multiply A^T (4, 6) with six tensors, the result stacked in front."""
    m0, m1, m2, m3, m4, m5 = products
    found = m0.new_empty(4, *m0.shape)
    near, near_difference, far, far_difference = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    torch.add(m0, near, out=found[0]).add_(far)
    torch.add(near_difference, far_difference, alpha=2, out=found[1])
    torch.add(near, far, alpha=4, out=found[2])
    torch.add(near_difference, far_difference, alpha=8, out=found[3]).add_(m5)
    return found
