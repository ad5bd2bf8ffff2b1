"""Winograd convolutions equal direct convolutions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from pretrainps.ops.winograd import WinogradConv2d


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 13), st.integers(1, 13), st.booleans())
def test_equals_the_direct_convolution(n: int, channels: int, out: int, height: int, width: int, bias: bool) -> None:
    """Of any size, whether or not tiles fill it; compared in double precision."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, out, 3, padding=1, bias=bias).double().requires_grad_(False)
    x = torch.randn(n, channels, height, width, dtype=torch.float64)
    torch.testing.assert_close(WinogradConv2d(convolution)(x), convolution(x), rtol=1e-10, atol=1e-10)


def test_rounding_stays_small() -> None:
    """Allowed error in float32, as a share of the largest value. A direct convolution has a tenth of it or less."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False)
    x = torch.randn(2, 256, 14, 14).relu()
    exact = F.conv2d(x.double(), convolution.weight.double(), convolution.bias.double(), padding=1)
    assert (WinogradConv2d(convolution)(x) - exact).abs().max() < 2e-5 * exact.abs().max()


@pytest.mark.parametrize(
    "settings",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 1}, {"padding_mode": "reflect"}],
)
def test_only_plain_3x3_convolutions_are_replaced(settings: dict[str, object]) -> None:
    plain = {"kernel_size": 3, "padding": 1}
    assert WinogradConv2d.can_replace(nn.Conv2d(4, 4, **plain))
    assert not WinogradConv2d.can_replace(nn.Conv2d(4, 4, **{**plain, **settings}))
    assert not WinogradConv2d.can_replace(nn.ReLU())
