"""Crop heads: unit vectors and class scores."""

from __future__ import annotations

import pytest
import torch

from pretrainps.backbones import build_backbone
from pretrainps.errors import ArgumentError, RegistryError
from pretrainps.heads import CropModel
from pretrainps.registry.specs import HeadSpec


@pytest.mark.parametrize("dim", [None, 64])
@torch.no_grad()
def test_embeddings_are_unit_vectors(dim: int | None) -> None:
    model = CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="embedding", embedding_dim=dim)).eval()
    vectors = model(torch.randn(3, 3, 64, 32))
    assert vectors.shape == (3, dim or 960)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_plain_embedding_is_the_normalized_mean_of_the_last_map() -> None:
    backbone = build_backbone("resnet18").eval()
    model = CropModel(backbone, HeadSpec(kind="embedding")).eval()
    images = torch.randn(2, 3, 64, 64)
    pooled = torch.nn.functional.adaptive_avg_pool2d(backbone(images)["c5"], 1).flatten(1)
    torch.testing.assert_close(model(images), torch.nn.functional.normalize(pooled))
    assert len(model.state_dict()) == len(backbone.state_dict()), "nothing to learn before it can be used"


def test_classifier() -> None:
    model = CropModel(build_backbone("resnet18"), HeadSpec(kind="classifier", num_classes=751))
    assert model(torch.randn(2, 3, 64, 32)).shape == (2, 751)


@pytest.mark.parametrize(
    "bad",
    [{"kind": "classifier"}, {"kind": "embedding", "num_classes": 3}, {"kind": "x"}, {"kind": "embedding", "embedding_dim": 0}],
)
def test_impossible_heads(bad: dict[str, object]) -> None:
    with pytest.raises(RegistryError):
        HeadSpec(**bad)  # type: ignore[arg-type]


def test_a_single_crop_in_training_says_what_to_do() -> None:
    model = CropModel(build_backbone("resnet_tiny"), HeadSpec(kind="embedding", embedding_dim=8)).train()
    with pytest.raises(ArgumentError, match=r"nothing to measure in a single crop\. Give two or more.*drop_last=True"):
        model(torch.rand(1, 3, 64, 32))
    with pytest.raises(ArgumentError, match="in no crop"):
        model(torch.rand(0, 3, 64, 32))
    assert model(torch.rand(2, 3, 64, 32)).shape == (2, 8)
    model.head.eval()
    assert model(torch.rand(1, 3, 64, 32)).shape == (1, 8)
    plain = CropModel(build_backbone("resnet_tiny"), HeadSpec(kind="embedding")).train()
    assert plain(torch.rand(1, 3, 64, 64)).shape[0] == 1, "no batch norm in its head"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("spec", [HeadSpec(kind="embedding", embedding_dim=8), HeadSpec(kind="classifier", num_classes=5)])
@torch.no_grad()
def test_models_of_another_precision_take_preprocessed_crops(dtype: torch.dtype, spec: HeadSpec) -> None:
    model, crops = CropModel(build_backbone("resnet_tiny"), spec).eval(), torch.randn(2, 3, 64, 32)
    wanted = model(crops)
    found = model.to(dtype)(crops)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)
