"""Our ResNets against torchvision's and timm's, tensor by tensor."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torchvision.models._utils import IntermediateLayerGetter

from pretrainps.backbones import build_backbone
from tests.support.weights import random_values, resnet_shapes

SIZES = [(64, 64), (97, 161), (256, 128)]


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_equals_torchvision(depth: int, size: tuple[int, int]) -> None:
    tensors = random_values(resnet_shapes(depth))
    ours = build_backbone(f"resnet{depth}").eval()
    ours.load_state_dict(tensors, strict=True)
    theirs = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[depth](weights=None).eval()
    theirs.load_state_dict(tensors, strict=False)
    wanted = IntermediateLayerGetter(theirs, {f"layer{i}": f"c{i + 1}" for i in (1, 2, 3, 4)})
    images = torch.randn(2, 3, *size)
    maps = ours(images)
    for name, value in wanted(images).items():
        torch.testing.assert_close(maps[name], value, rtol=1e-5, atol=1e-5)
        assert value.shape[1] == ours.channels[name]


@torch.no_grad()
def test_equals_timm() -> None:
    import timm

    tensors = random_values(resnet_shapes(50))
    ours = build_backbone("resnet50").eval()
    ours.load_state_dict(tensors)
    theirs = timm.create_model("resnet50", num_classes=0).eval()
    theirs.load_state_dict(tensors, strict=True)
    images = torch.randn(1, 3, 96, 64)
    torch.testing.assert_close(ours(images)["c5"], theirs.forward_features(images), rtol=1e-5, atol=1e-5)
