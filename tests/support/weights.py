"""Weight files of the authors' exact structure, built without any of the package's own code."""

from __future__ import annotations

import io
import json
import struct
from collections import OrderedDict
from functools import cache

import torch
from torch import Tensor


def random_values(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> OrderedDict[str, Tensor]:
    """Fill shapes with random values: positive variances, counters as int64, weights scaled by their fan-in."""
    generator = torch.Generator().manual_seed(seed)
    tensors: OrderedDict[str, Tensor] = OrderedDict()
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(1234)
        elif key.endswith("running_var"):
            tensors[key] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 1:
            tensors[key] = 0.5 + 0.2 * torch.randn(shape, generator=generator)
        else:
            fan_in = torch.Size(shape[1:]).numel() or 1
            tensors[key] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return tensors


def resnet_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of torchvision's ResNet without fc: what psvis's mmdetection ResNet has."""
    import torchvision

    model = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[depth](weights=None)
    return {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith("fc.")}


def shufflenet_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of mmpretrain's ShuffleNetV1 (groups 3, 1.0x), written out from its description."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_bn(name: str, *weight: int) -> None:
        shapes[f"{name}.conv.weight"] = weight
        for entry in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{entry}"] = (weight[0],)
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    conv_bn("conv1", 24, 3, 3, 3)
    channels = 24
    for stage, (width, depth) in enumerate([(240, 4), (480, 8), (960, 4)]):
        middle = width // 4
        for unit in range(depth):
            name = f"layers.{stage}.{unit}"
            groups = 1 if (stage, unit) == (0, 0) else 3
            conv_bn(f"{name}.g_conv_1x1_compress", middle, channels // groups, 1, 1)
            conv_bn(f"{name}.depthwise_conv3x3_bn", middle, 1, 3, 3)
            conv_bn(f"{name}.g_conv_1x1_expand", width - channels if unit == 0 else width, middle // 3, 1, 1)
            channels = width
    return shapes


SHAPES = {
    "resnet50-hybrid": lambda: resnet_shapes(50),
    "resnet18-hybrid": lambda: resnet_shapes(18),
    "shufflenetv1-hybrid": shufflenet_shapes,
}
FILES = {
    "resnet50-hybrid": "resnet50-ps12.pth",
    "resnet18-hybrid": "resnet18-ps15.pth",
    "shufflenetv1-hybrid": "shufflenetv1-ps19.pth",
}
REPO = "Alice10/psvision"


@cache
def authors_tensors(name: str) -> OrderedDict[str, Tensor]:
    """Random values in the structure of one of the authors' three files."""
    return random_values(SHAPES[name]())


@cache
def authors_file(name: str) -> bytes:
    """One of the authors' three files, random values: a torch zip of {"state_dict": ...}."""
    return torch_bytes({"state_dict": authors_tensors(name)})


def safetensors_bytes(values: bytes) -> bytes:
    """The smallest file that is a checkpoint: one tensor of bytes. Its size depends on the number of values only."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def torch_bytes(value: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()
