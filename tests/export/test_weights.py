"""Weights for other code bases: whole, under the names and in the place they look for."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.export.weights import export_weights, layout_names
from pretrainps.heads import CropModel
from pretrainps.registry.specs import HeadSpec


def test_torchvision_loads_it(tmp_path: Path) -> None:
    import torchvision

    backbone = build_backbone("resnet50").eval()
    export_weights(backbone, "torchvision", tmp_path / "w.pth")
    theirs = torchvision.models.resnet50(weights=None).eval()
    result = theirs.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True), strict=False)
    assert sorted(result.missing_keys) == ["fc.bias", "fc.weight"] and not result.unexpected_keys
    theirs.fc = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(theirs(images), backbone(images)["c5"].mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [("resnet50", "resnet50"), ("timm:regnety_002", "regnety_002")])
def test_timm_loads_it_as_a_checkpoint(tmp_path: Path, ours: str, theirs: str) -> None:
    import timm

    backbone = build_backbone(ours).eval()
    export_weights(backbone, "timm", tmp_path / "w.safetensors")
    model = timm.create_model(theirs, num_classes=0, checkpoint_path=str(tmp_path / "w.safetensors")).eval()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.forward_features(images), backbone(images)["c5"], rtol=1e-4, atol=1e-5)


def test_detectron2_pickle(tmp_path: Path) -> None:
    backbone = build_backbone("resnet18")
    export_weights(backbone, "detectron2", tmp_path / "w.pkl")
    document = pickle.loads((tmp_path / "w.pkl").read_bytes())
    assert document["matching_heuristics"] is True and document["__author__"] == "pretrainps"
    weight = document["model"]["res2.0.conv1.norm.running_var"]
    assert type(weight).__name__ == "ndarray" and (weight == backbone.state_dict()["layer1.0.bn1.running_var"].numpy()).all()


@pytest.mark.parametrize(("layout", "wrapper"), [("mmdet", "state_dict"), ("nae", "model"), ("seqnet", "model")])
def test_tensors_lie_where_the_code_base_looks(tmp_path: Path, layout: str, wrapper: str) -> None:
    export_weights(build_backbone("resnet18"), layout, tmp_path / "w.pth")
    document = torch.load(tmp_path / "w.pth", weights_only=True)
    assert list(document) == [wrapper] and all(isinstance(v, torch.Tensor) for v in document[wrapper].values())


def test_only_the_backbone_of_a_model_with_a_head_is_written(tmp_path: Path) -> None:
    model = CropModel(build_backbone("resnet18"), HeadSpec(kind="classifier", num_classes=7))
    export_weights(model, "torchvision", tmp_path / "w.pth")
    assert set(torch.load(tmp_path / "w.pth", weights_only=True)) == set(model.backbone.state_dict())


def test_file_is_no_larger_than_its_tensors(tmp_path: Path) -> None:
    backbone = build_backbone("resnet18")
    export_weights(backbone, "torchvision", tmp_path / "w.pth")
    numbers = sum(t.numel() * t.element_size() for t in backbone.state_dict().values())
    assert (tmp_path / "w.pth").stat().st_size < 1.01 * numbers + 100_000


@pytest.mark.parametrize(
    ("arch", "layout", "file", "kind"),
    [
        ("resnet18", "nosuch", "w.pth", errors.LayoutError),
        ("shufflenetv1", "detectron2", "w.pkl", errors.LayoutError),
        ("resnet18", "torchvision", "w.pkl", errors.LayoutError),
        ("resnet18", "torchvision", "w.onnx", errors.ArgumentError),
        ("resnet18", "torchvision", "weights", errors.ArgumentError),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, arch: str, layout: str, file: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        export_weights(build_backbone(arch), layout, tmp_path / file)
    assert list(tmp_path.iterdir()) == []


def test_layout_names() -> None:
    assert {"torchvision", "timm", "mmdet", "detectron2", "nae", "seqnet"} <= set(layout_names())
