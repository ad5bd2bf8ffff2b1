"""`check_input` finds the convention of networks with a known convention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pretrainps import errors
from pretrainps.backbones import Backbone, build_backbone
from pretrainps.images.pixels import Preprocess
from pretrainps.registry import find_spec
from pretrainps.weights.check_input import check_input, convention

SPEC = find_spec("resnet18-hybrid")
CONVENTIONS = [(colour, scaling) for colour in ("rgb", "bgr") for scaling in ("imagenet", "0-255", "0.5")]


def street(seed: int, count: int = 8) -> list[torch.Tensor]:
    """Images with the colours of outdoor scenes: blue above, brown below, smooth, with detail."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(count):
        height = torch.linspace(0, 1, 96).view(1, 96, 1)
        sky, ground = torch.tensor([0.45, 0.55, 0.75]), torch.tensor([0.45, 0.38, 0.30])
        base = sky.view(3, 1, 1) * (1 - height) + ground.view(3, 1, 1) * height
        coarse = torch.rand(3, 12, 12, generator=generator) - 0.5
        detail = torch.nn.functional.interpolate(coarse[None], (96, 96), mode="bilinear", align_corners=False)[0]
        grain = 0.05 * torch.randn(1, 96, 96, generator=generator)
        images.append((base + 0.6 * detail + grain).clamp(0, 1))
    return images


def trained(arch: str, colour: str, scaling: str) -> Backbone:
    """A network with batch-norm statistics of images under one convention."""
    torch.manual_seed(3)
    backbone = build_backbone(arch)
    backbone.spec = SPEC
    remember(backbone, Preprocess(convention(colour, scaling, SPEC.input), size="scene"))  # type: ignore[arg-type]
    return backbone


def remember(backbone: Backbone, transform: Preprocess) -> None:
    """Update the batch-norm statistics with images under a convention."""
    batch = torch.stack([transform.normalize(image) for image in street(seed=1, count=16)])
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # remember this one batch, whole
    backbone.train()
    with torch.no_grad():
        backbone.trunk_maps(batch)
    backbone.eval()


@pytest.mark.parametrize(("colour", "scaling"), CONVENTIONS)
def test_finds_the_truth_on_other_pictures(colour: str, scaling: str) -> None:
    result = check_input(trained("resnet18", colour, scaling), street(seed=2), size=(96, 96))
    assert (result.best.colour, result.best.scaling) == (colour, scaling)
    assert result.colour_settled and result.scaling_settled
    assert result.agrees is ((colour, scaling) == ("rgb", "imagenet"))
    assert f"{colour.upper()}, {scaling} fits best" in str(result)


def test_shufflenet_too() -> None:
    result = check_input(trained("shufflenetv1", "bgr", "imagenet"), street(seed=2), size=(96, 96))
    assert (result.best.colour, result.best.scaling) == ("bgr", "imagenet") and result.agrees is False
    assert "DISAGREES" in str(result)


def test_grey_pictures_cannot_tell_colour_orders_apart() -> None:
    grey = [image.mean(dim=0, keepdim=True).expand(3, -1, -1).contiguous() for image in street(seed=2)]
    result = check_input(trained("resnet18", "rgb", "imagenet"), grey, size=(96, 96))
    assert not result.colour_settled
    assert "colour order undecided" in str(result) and "Give more images" in str(result)


def test_what_is_undecided_is_not_called_a_disagreement() -> None:
    backbone = trained("resnet18", "bgr", "imagenet")
    grey = [image.mean(dim=0, keepdim=True).expand(3, -1, -1).contiguous() for image in street(seed=1, count=16)]
    result = check_input(backbone, grey, size=(96, 96))
    assert result.agrees is not False and "DISAGREES" not in str(result)


def test_statistics_of_their_own_can_agree() -> None:
    """LUPerson's mean and deviation are none of the usual three; stated and true, they must win."""
    backbone = build_backbone("resnet18")
    backbone.spec = find_spec("resnet50-luperson")
    remember(backbone, Preprocess(backbone.spec.input, size="scene"))
    result = check_input(backbone, street(seed=2), size=(96, 96))
    assert result.best.scaling == "stated" and result.best.colour == "rgb" and result.agrees is True


def test_the_same_statistics_in_another_unit_agree() -> None:
    backbone = trained("resnet18", "rgb", "imagenet")
    backbone.spec = replace(SPEC, input=find_spec("shufflenetv1-imagenet").input)
    assert check_input(backbone, street(seed=2), size=(96, 96)).agrees


def test_networks_that_remember_nothing() -> None:
    for arch in ("timm:convnext_atto", "solider_swin_tiny"):
        backbone = build_backbone(arch)
        backbone.spec = SPEC
        with pytest.raises(errors.UnsupportedModelError, match="no batch norm"):
            check_input(backbone, street(1, 1))
    untrained = build_backbone("resnet18")
    untrained.spec = SPEC
    with pytest.raises(errors.UnsupportedModelError, match="never trained"):
        check_input(untrained, street(1, 1))


def test_no_pictures() -> None:
    backbone = trained("resnet18", "rgb", "imagenet")
    with pytest.raises(errors.ArgumentError):
        check_input(backbone, [])
    with pytest.raises(errors.ImageError):
        check_input(backbone, [Path("/no/such.jpg")])
