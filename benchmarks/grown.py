"""Grow a trained tiny ResNet to a ResNet-50: the same maps with the work of a ResNet-50.

A benchmark needs trained features, which separate people from background independently of rounding, but a ResNet-50 cannot be
trained in a benchmark. So the small network is embedded in the large one without a change of its function (Chen et al.,
"Net2Net", ICLR 2016). A basic block of two 3x3 convolutions becomes three bottlenecks, because each of these has one 3x3
convolution between ReLUs. A value that may be negative is stored as two channels: its positive and its negative part.

    first    h = relu(conv1(x));  s+, s- = the shortcut's parts
    second   y+, y- = the parts of conv2(h)
    third    relu(s+ - s- + y+ - y-), the block's output

Each has its own channels. Unused channels and bottlenecks hold zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.backbones.resnet import BasicBlock, Bottleneck

Place = tuple[int, int]
"""A range of channels in a map: first channel, and number of channels."""


@torch.no_grad()
def grow(small: Backbone) -> tuple[Backbone, dict[str, Place]]:
    """Embed a `resnet_tiny` in a ResNet-50.

    Returns:
        The ResNet-50, in eval mode, and the channels of its maps c4 and c5 that hold those of the small one.
    """
    large = build_backbone("resnet50").eval()
    for module in large.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_var, 1 - module.eps)  # so that it divides by 1
    weight, bias = folded(small.get_submodule("conv1"), small.get_submodule("bn1"))
    fill(large.get_submodule("conv1"), large.get_submodule("bn1"), weight, bias)
    place, places = (0, len(weight)), {}
    for stage in range(1, 5):
        blocks = iter(large.get_submodule(f"layer{stage}").children())
        for block in small.get_submodule(f"layer{stage}").children():
            place = _grow_block(block, [next(blocks) for _ in range(3)], place)
        places[f"c{stage + 1}"] = place
    return large, places


def _grow_block(small: nn.Module, large: list[nn.Module], place: Place) -> Place:
    assert isinstance(small, BasicBlock)
    one, two, three = (each for each in large if isinstance(each, Bottleneck))
    start, channels = place
    first, first_bias = folded(small.conv1, small.bn1)
    second, second_bias = folded(small.conv2, small.bn2)
    width = len(first)
    same, put_in = torch.eye(width), slice(start, start + channels)
    if one.downsample is None:  # the map keeps its channels, and the new ones follow
        parts, free = [(put_in, 1.0)], start + channels
    else:
        if small.downsample is None:
            shortcut, bias = torch.eye(channels), torch.zeros(channels)
        else:
            kernel, bias = folded(*small.downsample)
            shortcut = kernel[:, :, 0, 0]
        conv, norm = one.downsample
        for begin, sign in ((0, 1.0), (width, -1.0)):
            conv.weight[begin : begin + width, put_in, 0, 0] = sign * shortcut
            norm.bias[begin : begin + width] = sign * bias
        parts, free = [(slice(0, width), 1.0), (slice(width, 2 * width), -1.0)], 2 * width
    one.conv1.weight[:channels, put_in, 0, 0] = torch.eye(channels)
    fill(one.conv2, one.bn2, first, first_bias)
    one.conv3.weight[free : free + width, :width, 0, 0] = same
    two.conv1.weight[:width, free : free + width, 0, 0] = same
    for number, sign in enumerate((1.0, -1.0)):
        rows = slice(number * width, (number + 1) * width)
        fill(two.conv2, two.bn2, sign * second, sign * second_bias, first=rows.start)
        made = slice(free + (1 + number) * width, free + (2 + number) * width)
        two.conv3.weight[made, rows, 0, 0] = same
        parts.append((made, sign))
    for where, sign in parts:
        three.conv1.weight[:width, where, 0, 0] = sign * same
    three.conv2.weight[:width, :width, 1, 1] = same
    answer = free + 3 * width
    three.conv3.weight[answer : answer + width, :width, 0, 0] = same
    return answer, width


def folded(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution folded with its batch norm."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def fill(conv: nn.Module, norm: nn.Module, weight: Tensor, bias: Tensor, *, first: int = 0) -> None:
    """Write a weight and a bias into the first channels, from `first` on, of a convolution and its batch norm."""
    rows, columns = slice(first, first + len(weight)), slice(0, weight.shape[1])
    conv.get_parameter("weight")[rows, columns] = weight
    norm.get_parameter("bias")[rows] = bias
