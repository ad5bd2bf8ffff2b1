"""timm models as backbones: the same numbers, split at stride 16, or a clear error."""

from __future__ import annotations

import pytest
import timm
import torch

from pretrainps.backbones import build_backbone
from pretrainps.backbones.timm_adapter import timm_spec
from pretrainps.errors import UnknownModelError, UnsupportedModelError

MODELS = [
    "resnet18",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_100",
    "regnety_002",
    "efficientnet_b0",
    "pvt_v2_b0",
    "vgg11_bn",
]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_maps_are_those_of_features_only(name: str) -> None:
    ours = build_backbone(f"timm:{name}").eval()
    theirs = timm.create_model(name, features_only=True, pretrained=False).eval()
    theirs.load_state_dict(_flattened(ours.state_dict(), theirs), strict=True)
    images = torch.randn(1, 3, 224, 224)
    by_stride = dict(zip(theirs.feature_info.reduction(), theirs(images), strict=True))
    for feature in ours.feature_maps:
        value = by_stride[feature.stride]
        if value.shape[1] != feature.channels:
            value = value.permute(0, 3, 1, 2)
        torch.testing.assert_close(ours(images)[feature.name], value, rtol=1e-4, atol=1e-4)


def _flattened(state: dict[str, torch.Tensor], wrapped: torch.nn.Module) -> dict[str, torch.Tensor]:
    """timm's feature wrapper joins a stage's name and number with an underscore, layers.0 -> layers_0."""
    ours = {key.replace(".", "_"): value for key, value in state.items()}
    return {key: ours[key.replace(".", "_")] for key in wrapped.state_dict()}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_split_and_keys(name: str) -> None:
    ours = build_backbone(f"timm:{name}").eval()
    images = torch.randn(2, 3, 96, 64)
    maps = ours(images)
    assert torch.equal(ours.last_stage(ours.trunk(images)), maps["c5"])
    for feature in ours.feature_maps:
        assert maps[feature.name].shape == (2, feature.channels, 96 // feature.stride, 64 // feature.stride)
    assert set(ours.state_dict()) <= set(timm.create_model(name, num_classes=0).state_dict())
    assert not any(key.startswith(pattern.removesuffix("*")) for pattern in ours.dropped_keys for key in ours.state_dict())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hrnet_w18_small"])
def test_models_that_cannot_be_split(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=name):
        build_backbone(f"timm:{name}")


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="timm:resnet50"):
        build_backbone("timm:resnet5O")


def test_spec_from_timms_records() -> None:
    spec = timm_spec("resnet18.a1_in1k")
    assert spec.name == "timm:resnet18.a1_in1k"
    assert str(spec.sources[0]) == "hub timm/resnet18.a1_in1k/model.safetensors@main"
    assert spec.licence.id in ("apache-2.0", "other"), "older timm versions keep no licence"
    with pytest.raises(UnknownModelError, match="no weights"):
        timm_spec("resnet18.no_such_tag")
