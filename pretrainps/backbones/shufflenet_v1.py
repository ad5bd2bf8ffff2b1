"""ShuffleNetV1 with 3 groups and width 1.0x, as in mmpretrain and in the hybrid pre-training checkpoints.

Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", CVPR 2018. Two points
follow mmpretrain rather than the paper: channels are shuffled after the depthwise convolution instead of before it, and
the first unit's compressing convolution has no groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones.base import Backbone, FeatureInfo
from pretrainps.weights.key_layout import KeyLayout

GROUPS = 3
_WIDTHS = (240, 480, 960)
_DEPTHS = (4, 8, 4)


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, and optionally ReLU."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels_out, H / stride, W / stride)."""
        y: Tensor = self.bn(self.conv(x))
        return F.relu(y, inplace=True) if self.relu else y


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the groups' channels: (N, groups * C, H, W), channel g * C + c -> c * groups + g."""
    n, channels, height, width = x.shape
    x = x.view(n, groups, channels // groups, height, width)  # (N, groups, C, H, W)
    return x.transpose(1, 2).reshape(n, channels, height, width)


class ShuffleUnit(nn.Module):
    """One ShuffleNet unit.

    With stride 1 the residual is added to the input; with stride 2 it is appended to the average-pooled input, so it has
    only `channels_out - channels_in` channels itself.
    """

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, first: bool) -> None:
        super().__init__()
        self.stride = stride
        bottleneck = channels_out // 4
        expanded = channels_out - channels_in if stride == 2 else channels_out
        self.g_conv_1x1_compress = ConvBN(channels_in, bottleneck, 1, groups=1 if first else GROUPS, relu=True)
        self.depthwise_conv3x3_bn = ConvBN(bottleneck, bottleneck, 3, stride=stride, groups=bottleneck)
        self.g_conv_1x1_expand = ConvBN(bottleneck, expanded, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride)."""
        y = self.depthwise_conv3x3_bn(self.g_conv_1x1_compress(x))
        y = self.g_conv_1x1_expand(channel_shuffle(y, GROUPS))
        if self.stride == 1:
            return F.relu(x + y)
        return torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), F.relu(y)], dim=1)


class ShuffleNetV1(Backbone):
    """ShuffleNetV1 1.0x with 3 groups: c2 is the 24-channel stem, c3 to c5 have 240, 480, 960 channels."""

    def __init__(self) -> None:
        super().__init__("shufflenetv1", "shufflenet_v1")
        self.conv1 = ConvBN(3, 24, 3, stride=2, relu=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList()
        channels = 24
        features = [FeatureInfo("c2", channels, 4)]
        for stage, (width, depth) in enumerate(zip(_WIDTHS, _DEPTHS, strict=True)):
            units = nn.Sequential()
            for position in range(depth):
                units.append(ShuffleUnit(channels, width, stride=2 if position == 0 else 1, first=stage == 0 and position == 0))
                channels = width
            self.layers.append(units)
            features.append(FeatureInfo(f"c{stage + 3}", width, 8 << stage))
        self.feature_maps = tuple(features)
        self.segments = {
            "c2": ("conv1", "maxpool"),
            **{f"c{stage + 3}": (f"layers.{stage}",) for stage in range(len(_WIDTHS))},
        }


def shufflenetv1() -> ShuffleNetV1:
    """Build a ShuffleNetV1 1.0x with 3 groups."""
    return ShuffleNetV1()


KEY_LAYOUTS = (
    KeyLayout(
        name="mmdet",
        wrapper=("state_dict",),
        use="backbone=dict(type='ShuffleNetV1', groups=3, init_cfg=dict(type='Pretrained', checkpoint={file!r}))",
    ),
)
"""The names that other code bases give the tensors. The package's own are mmpretrain's, which psvis uses too."""
