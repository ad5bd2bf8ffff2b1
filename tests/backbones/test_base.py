"""The contract of every backbone: the split, freezing, checkpointing, and building on the meta device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.errors import ArgumentError, UnknownModelError

PLAIN = ["resnet18", "resnet50", "shufflenetv1"]


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
@torch.no_grad()
def test_maps_channels_strides(arch: str) -> None:
    backbone = build_backbone(arch).eval()
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert list(maps) == list(backbone.channels) == ["c2", "c3", "c4", "c5"]
    for name, value in maps.items():
        stride = backbone.strides[name]
        assert value.shape == (1, backbone.channels[name], 64 // stride, 96 // stride)


@pytest.mark.parametrize("arch", PLAIN)
@torch.no_grad()
def test_last_stage_of_trunk_is_the_whole(arch: str) -> None:
    backbone = build_backbone(arch).eval()
    images = torch.randn(2, 3, 70, 90)
    assert torch.equal(backbone.last_stage(backbone.trunk(images)), backbone(images)["c5"])


@pytest.mark.parametrize("arch", [*PLAIN, "solider_swin_tiny", "timm:convnext_atto"])
def test_freezing_survives_train_and_can_be_undone(arch: str) -> None:
    backbone = build_backbone(arch)
    before = copy.deepcopy(backbone.state_dict())
    backbone.freeze("c3", batch_norm=True).train()
    loss = sum(m.square().mean() for m in backbone(torch.randn(2, 3, 64, 64)).values())
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    frozen = {
        p
        for name in list(backbone.segments)[: list(backbone.segments).index("c3") + 1]
        for m in backbone.segment_modules(name)
        for p in m.parameters()
    }
    for p in backbone.parameters():
        assert p.requires_grad != (
            p in frozen or any(p is q for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) for q in m.parameters())
        )
    after = backbone.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if "running" in k), "statistics must not move"
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))
    backbone.freeze().train()
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


def test_freezing_an_unknown_segment() -> None:
    with pytest.raises(ArgumentError, match="stem, c2, c3, c4, c5"):
        build_backbone("resnet18").freeze("layer1")


@pytest.mark.parametrize("arch", [*PLAIN, "timm:mobilenetv3_small_100", "solider_swin_tiny"])
def test_gradient_checkpointing_changes_nothing_but_memory(arch: str) -> None:
    """Same outputs, same gradients, and batch-norm statistics updated once, not twice."""
    torch.manual_seed(0)
    plain = build_backbone(arch).double().train()
    saving = copy.deepcopy(plain).enable_gradient_checkpointing()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for backbone in (plain, saving):
        torch.manual_seed(1)
        outputs = backbone(images)
        sum(m.square().mean() for m in outputs.values()).backward()  # type: ignore[union-attr]
    state = saving.state_dict()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-12, msg=key)
    gradients = dict(saving.named_parameters())
    for key, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[key].grad, parameter.grad, rtol=1e-7, atol=1e-10, msg=key)
    norms = [m for m in saving.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.track_running_stats for m in norms)


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(checkpointing: bool) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        backbone = build_backbone("resnet18").train().enable_gradient_checkpointing(checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone(torch.randn(1, 3, 128, 128, requires_grad=True))
        return total

    assert kept(True) < kept(False) / 2


@pytest.mark.parametrize("arch", PLAIN)
def test_building_without_memory(arch: str) -> None:
    backbone = build_backbone(arch, empty=True)
    assert all(t.is_meta for t in backbone.state_dict().values())
    assert {n for n, _ in backbone.named_buffers()} <= set(backbone.state_dict()), "nothing may stay on meta after loading"


def test_unknown_architecture_and_option() -> None:
    with pytest.raises(UnknownModelError, match="resnet50"):
        build_backbone("resnet5O")
    with pytest.raises(ArgumentError, match="arch_options"):
        build_backbone("resnet50", {"width": 2})


@pytest.mark.parametrize("arch", ["resnet_tiny", "shufflenetv1", "solider_swin_tiny"])
def test_images_that_cannot_be(arch: str) -> None:
    backbone = build_backbone(arch).eval()
    for images, message in (
        (torch.rand(3, 64, 64), r"expected images \(N, 3, height, width\), not \(3, 64, 64\)"),
        (torch.rand(2, 4, 64, 64), r"not \(2, 4, 64, 64\)"),
        (torch.rand(2, 64, 64, 3), r"permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "not torch.uint8: preprocess images first"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.int64), "not torch.int64: preprocess images first"),
    ):
        with pytest.raises(ArgumentError, match=message):
            backbone(images)


@pytest.mark.parametrize("size", [(32, 32), (16, 20), (8, 32)])
def test_a_single_small_image_in_training_says_what_to_do(size: tuple[int, int]) -> None:
    backbone = build_backbone("resnet_tiny").train()
    with pytest.raises(ArgumentError, match=r"single image of \d+x\d+ with a last map of one pixel.*drop_last=True"):
        backbone(torch.rand(1, 3, *size))
    assert backbone(torch.rand(2, 3, 32, 32))["c5"].shape[0] == backbone(torch.rand(1, 3, 64, 32))["c5"].shape[0] + 1
    assert backbone.eval()(torch.rand(1, 3, *size))["c5"].shape[-2:] == (1, 1)


@pytest.mark.parametrize("arch", ["resnet_tiny", "shufflenetv1", "solider_swin_tiny", "timm:convnext_atto"])
@torch.no_grad()
def test_halves_take_images_of_any_precision(arch: str) -> None:
    backbone, images = build_backbone(arch).eval(), torch.randn(1, 3, 64, 64)
    wanted = backbone(images)["c5"]
    half = backbone.to(torch.bfloat16)
    for pixels in (images, images.half(), images.double()):
        found = half(pixels)["c5"]
        assert found.dtype == torch.bfloat16
        assert float(torch.nn.functional.cosine_similarity(found.float().flatten(), wanted.flatten(), dim=0)) > 0.99
