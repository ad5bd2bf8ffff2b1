"""ResNet-18 and ResNet-50, with the stride of a bottleneck in its 3x3 convolution (torchvision's "v1.5").

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Module names are torchvision's, which are also those
of timm, of mmdetection and of the published hybrid pre-training checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

from pretrainps.backbones.base import Backbone, FeatureInfo
from pretrainps.weights.key_layout import KeyLayout, Tensors, rename, renumbered


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def _conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. (N, C, H, W) -> (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + residual(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut. (N, C, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv1x1(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + residual(x))."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(_conv1x1(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))


class ResNet(Backbone):
    """A ResNet of four stages, c2 to c5.

    Args:
        arch: Name of the architecture.
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks in each stage.
        width: Channels of the stem; those of the blocks are in proportion.
    """

    def __init__(
        self, arch: str, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], width: int = 64
    ) -> None:
        super().__init__(arch, "resnet")
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width
        features = []
        for index, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(channels, width << index, stride))
                channels = (width << index) * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
            features.append(FeatureInfo(f"c{index + 2}", channels, 4 << index))
        self.feature_maps = tuple(features)
        self.segments = {
            "stem": ("conv1", "bn1", "relu", "maxpool"),
            **{feature.name: (f"layer{index + 1}",) for index, feature in enumerate(features)},
        }
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # a meta tensor needs no random numbers
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet18() -> ResNet:
    """Build a ResNet-18: maps of 64, 128, 256, 512 channels."""
    return ResNet("resnet18", BasicBlock, (2, 2, 2, 2))


def resnet_tiny() -> ResNet:
    """Build a narrow ResNet of 0.9 million parameters: maps of 24, 48, 96, 192 channels. It can be trained on a CPU."""
    return ResNet("resnet_tiny", BasicBlock, (1, 1, 2, 1), width=24)


def resnet50() -> ResNet:
    """Build a ResNet-50: maps of 256, 512, 1024, 2048 channels."""
    return ResNet("resnet50", Bottleneck, (3, 4, 6, 3))


def _to_detectron2(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            (r"^layer(\d)", renumbered("res", +1)),
            (r"^(conv|bn)1\.", r"stem.\g<1>1."),
            (r"\bbn(\d)\.", r"conv\1.norm."),
            (r"downsample\.0\.", "shortcut."),
            (r"downsample\.1\.", "shortcut.norm."),
        ),
    )
    # detectron2's FrozenBatchNorm2d does not count batches
    return {key: value for key, value in renamed.items() if not key.endswith("num_batches_tracked")}


def _from_detectron2(tensors: Tensors) -> Tensors:
    return rename(
        tensors,
        (
            (r"^res(\d)", renumbered("layer", -1)),
            (r"^stem\.", ""),
            (r"\bconv(\d)\.norm\.", r"bn\1."),
            (r"shortcut\.norm\.", "downsample.1."),
            (r"shortcut\.", "downsample.0."),
        ),
    )


KEY_LAYOUTS = (
    KeyLayout(name="torchvision", use="model.load_state_dict({state}, strict=False)  # only fc.* is missing"),
    KeyLayout(name="timm", use="timm.create_model({arch!r}, num_classes=0, checkpoint_path={file!r})"),
    KeyLayout(
        name="mmdet",
        wrapper=("state_dict",),
        use="backbone=dict(type='ResNet', depth={depth}, init_cfg=dict(type='Pretrained', checkpoint={file!r}))",
    ),
    KeyLayout(
        name="detectron2",
        to_native=_from_detectron2,
        from_native=_to_detectron2,
        wrapper=("model",),
        suffix=".pkl",
        use="MODEL.WEIGHTS {file}, MODEL.RESNETS.STRIDE_IN_1X1 False, INPUT.FORMAT RGB, with the model's mean and std * 255",
    ),
)
"""The names that other code bases give the tensors. The package's own are torchvision's, which timm and mmdetection share."""
