"""ShuffleNetV1 against a computation written from its description alone, without any module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import build_backbone
from tests.support.weights import random_values, shufflenet_shapes

WIDTHS, DEPTHS, GROUPS = (240, 480, 960), (4, 8, 4), 3


def conv_bn(x: Tensor, w: dict[str, Tensor], name: str, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
    x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=padding, groups=groups)
    mean, var = w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"]
    scale = w[f"{name}.bn.weight"] / (var + 1e-5).sqrt()
    return x * scale.view(1, -1, 1, 1) + (w[f"{name}.bn.bias"] - mean * scale).view(1, -1, 1, 1)


def shuffled(x: Tensor) -> Tensor:
    """Output channel k is input channel (k mod groups) * (C / groups) + k div groups."""
    channels = x.shape[1]
    return x[:, [(k % GROUPS) * (channels // GROUPS) + k // GROUPS for k in range(channels)]]


def by_formula(x: Tensor, w: dict[str, Tensor]) -> dict[str, Tensor]:
    x = conv_bn(x, w, "conv1", stride=2, padding=1).clamp_min(0)
    x = F.max_pool2d(x, 3, 2, 1)
    maps = {"c2": x}
    for stage, depth in enumerate(DEPTHS):
        for unit in range(depth):
            name = f"layers.{stage}.{unit}"
            down = unit == 0
            y = conv_bn(x, w, f"{name}.g_conv_1x1_compress", groups=1 if (stage, unit) == (0, 0) else GROUPS).clamp_min(0)
            y = conv_bn(y, w, f"{name}.depthwise_conv3x3_bn", stride=2 if down else 1, padding=1, groups=y.shape[1])
            y = conv_bn(shuffled(y), w, f"{name}.g_conv_1x1_expand", groups=GROUPS)
            if down:
                ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype) / 9  # an average that counts the padding
                x = torch.cat([F.conv2d(x, ones, stride=2, padding=1, groups=x.shape[1]), y.clamp_min(0)], 1)
            else:
                x = (x + y).clamp_min(0)
        maps[f"c{stage + 3}"] = x
    return maps


@pytest.mark.parametrize("size", [(64, 64), (97, 161), (256, 128)])
@torch.no_grad()
def test_equals_the_formulas(size: tuple[int, int]) -> None:
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in random_values(shufflenet_shapes()).items()}
    ours = build_backbone("shufflenetv1").double().eval()
    ours.load_state_dict(tensors, strict=True)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted, found = by_formula(images, tensors), ours(images)
    assert list(found) == list(wanted) == ["c2", "c3", "c4", "c5"]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


def test_keys_are_those_of_the_description() -> None:
    state = build_backbone("shufflenetv1").state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == shufflenet_shapes()
    assert len(state) == 294
