"""Each layout maps both ways without loss, onto the names that its code base really uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pretrainps.backbones import build_backbone
from pretrainps.detectors.key_layouts import layout_of, layouts_of
from pretrainps.errors import LayoutError
from tests.support.weights import random_values

GOLDEN = Path(__file__).parent.parent / "golden"
ARCH = {"resnet": "resnet50", "shufflenet_v1": "shufflenetv1", "solider_swin": "solider_swin_tiny", "timm": "timm:regnety_002"}
PAIRS = [(family, layout) for family in ARCH for layout in layouts_of(family)]


def native_tensors(arch: str) -> dict[str, torch.Tensor]:
    with torch.device("cpu"):
        return random_values({k: tuple(v.shape) for k, v in build_backbone(arch).state_dict().items()})


@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_round_trip(family: str, name: str) -> None:
    layout, native = layout_of(family, name), native_tensors(ARCH[family])
    back = layout.to_native(layout.from_native(native))
    # detectron2's frozen batch norm has no counters; SeqNet's second copy of layer4 is left out on reading
    wanted = {k: v for k, v in native.items() if not (name == "detectron2" and k.endswith("num_batches_tracked"))}
    back = {k: v for k, v in back.items() if not k.startswith("roi_heads.reid_head")}
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[key], value) for key, value in wanted.items())


def keys_of(name: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / f"{name}_keys.json").read_text())


@pytest.mark.parametrize("detector", ["nae", "seqnet"])
def test_detector_names_are_those_of_the_originals_models(detector: str) -> None:
    """Every backbone key of NAE's and SeqNet's own state dict is written, with its shape, and nothing else."""
    wanted = {k: v for k, v in keys_of(detector).items() if k.startswith("backbone.") or ".layer4." in k}
    written = layout_of("resnet", detector).from_native(native_tensors("resnet50"))
    assert {k: list(v.shape) for k, v in written.items()} == wanted


@pytest.mark.parametrize("detector", ["nae", "seqnet"])
def test_a_whole_detector_gives_up_its_backbone(detector: str) -> None:
    import fnmatch

    layout = layout_of("resnet", detector)
    tensors = random_values({k: tuple(v) for k, v in keys_of(detector).items()})
    own = {k: v for k, v in tensors.items() if not any(fnmatch.fnmatchcase(k, p) for p in layout.heads)}
    native = layout.to_native(own)
    assert {k: v.shape for k, v in native.items()} == {k: v.shape for k, v in native_tensors("resnet50").items()}
    assert torch.equal(native["layer4.0.conv1.weight"], tensors["roi_heads.box_head.layer4.0.conv1.weight"])


def test_torchvision_and_timm_load_resnet_natively() -> None:
    import timm
    import torchvision

    native = native_tensors("resnet50")
    for model in (torchvision.models.resnet50(weights=None), timm.create_model("resnet50")):
        result = model.load_state_dict(native, strict=False)
        assert sorted(result.missing_keys) == ["fc.bias", "fc.weight"] and not result.unexpected_keys


def test_detectron2_names() -> None:
    """Names as detectron2's ResNet defines them: stem, res2..res5, a norm inside each convolution, a shortcut."""
    blocks = {"res2": 3, "res3": 4, "res4": 6, "res5": 3}
    convolutions = ["stem.conv1"]
    for stage, depth in blocks.items():
        for block in range(depth):
            convolutions += [f"{stage}.{block}.conv{n}" for n in (1, 2, 3)]
        convolutions.append(f"{stage}.0.shortcut")
    wanted = {f"{c}.weight" for c in convolutions}
    wanted |= {f"{c}.norm.{e}" for c in convolutions for e in ("weight", "bias", "running_mean", "running_var")}
    assert set(layout_of("resnet", "detectron2").from_native(native_tensors("resnet50"))) == wanted


def test_solider_names_are_those_of_its_checkpoints() -> None:
    """The key list was taken from SOLIDER-PersonSearch's own model."""
    keys = {k.removeprefix("backbone.swin."): v for k, v in keys_of("solider_swin_tiny").items() if k.startswith("backbone.")}
    wanted = {k: v for k, v in keys.items() if not k.endswith("relative_position_index")}
    written = layout_of("solider_swin", "solider").from_native(native_tensors("solider_swin_tiny"))
    assert {k: list(v.shape) for k, v in written.items()} == wanted


def test_solider_patch_merging_is_reordered_to_compute_the_same() -> None:
    """nn.Unfold then theirs must equal timm's slicing then ours."""
    from timm.models.swin_transformer import PatchMerging

    torch.manual_seed(0)
    theirs = {"stages.0.downsample.norm.weight": torch.rand(32), "stages.0.downsample.norm.bias": torch.rand(32)}
    theirs["stages.0.downsample.reduction.weight"] = torch.randn(16, 32)
    ours = layout_of("solider_swin", "solider").to_native(theirs)
    merge = PatchMerging(dim=8)
    merge.load_state_dict({k.removeprefix("layers.1.downsample."): v for k, v in ours.items()})
    x = torch.randn(1, 6, 4, 8)
    unfolded = torch.nn.Unfold(2, stride=2)(x.permute(0, 3, 1, 2)).transpose(1, 2)  # (1, 6, 32)
    normed = torch.nn.functional.layer_norm(
        unfolded, (32,), theirs["stages.0.downsample.norm.weight"], theirs["stages.0.downsample.norm.bias"]
    )
    expected = normed @ theirs["stages.0.downsample.reduction.weight"].T
    torch.testing.assert_close(merge(x).reshape(1, 6, 16), expected)


def test_unknown_layout_lists_the_known() -> None:
    with pytest.raises(LayoutError, match=r"native, mmdet"):
        layout_of("shufflenet_v1", "detectron2")
