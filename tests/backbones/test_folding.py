"""Folding removes batch norms, and the output stays the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.backbones.folding import fold_batch_norms


def lively(arch: str) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(arch)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return backbone.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "shufflenetv1", "timm:mobilenetv3_small_050", "timm:regnety_002"])
def test_nothing_changes_but_the_norms_are_gone(arch: str) -> None:
    trunk, last = lively(arch).split()
    for half in (trunk, last):
        half.requires_grad_(False)
    images = torch.randn(2, 3, 64, 96)
    folded_trunk = fold_batch_norms(trunk, torch.randn(1, 3, 64, 64), trunk=True)
    c4 = trunk.trunk(images)
    folded_last = fold_batch_norms(last, c4, trunk=False)
    assert norms(folded_trunk) == norms(folded_last) == 0 and norms(trunk) > 0
    torch.testing.assert_close(folded_trunk.trunk(images), c4, rtol=1e-3, atol=1e-4 * float(c4.abs().max()))
    c5 = last.last_stage(c4)
    torch.testing.assert_close(folded_last.last_stage(c4), c5, rtol=1e-3, atol=1e-4 * float(c5.abs().max()))


def test_a_network_without_batch_norm_stays_as_it_is() -> None:
    trunk, _ = build_backbone("timm:convnext_atto").split()
    folded = fold_batch_norms(trunk, torch.randn(1, 3, 64, 64), trunk=True)
    assert folded is not trunk and folded.state_dict().keys() == trunk.state_dict().keys()


def test_a_guess_that_is_wrong_is_taken_back() -> None:
    """A norm that comes after a convolution in the module, but is computed before it."""

    class Reversed(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
            self.bn = nn.BatchNorm2d(channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.bn(x))

    trunk, _ = lively("resnet18").split()
    layer3 = trunk.get_submodule("layer3")
    layer3.append(Reversed(256))
    nn.init.uniform_(layer3[-1].bn.running_var, 0.5, 2.0)
    nn.init.normal_(layer3[-1].bn.running_mean)
    trunk.eval()
    folded = fold_batch_norms(trunk, torch.randn(1, 3, 64, 64), trunk=True)
    assert norms(folded) == norms(trunk)
