"""Regions that are whole images, against RoIAlign."""

from __future__ import annotations

import pytest
import torch

from pretrainps.backbones import build_backbone
from pretrainps.detectors.region.roi_stage import RoIStage


@pytest.mark.parametrize("size", [(96, 48), (100, 41), (16, 16), (7, 200)])
@pytest.mark.parametrize(("side", "sampling"), [(8, 0), (14, 0), (14, 2)])
def test_a_region_that_is_a_whole_image_is_what_roialign_cuts(size: tuple[int, int], side: int, sampling: int) -> None:
    torch.manual_seed(0)
    stage = RoIStage(build_backbone("resnet_tiny").split()[1], size=side, sampling=sampling).double().eval()
    maps = torch.randn(2, 96, -(-size[0] // 16), -(-size[1] // 16), dtype=torch.float64, requires_grad=True)
    boxes = [torch.tensor([[0.0, 0.0, size[1], size[0]]])] * 2
    found, expected = stage.whole(maps, size), stage(maps, boxes, with_c4=True)
    for name in ("c4", "c5"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    slopes = [torch.autograd.grad(each.c5.square().sum(), maps)[0] for each in (found, expected)]
    torch.testing.assert_close(*slopes)
