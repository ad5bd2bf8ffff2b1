"""Crop heads: unit vectors and class scores."""

from __future__ import annotations

import pytest
import torch

from pretrainps.backbones import build_backbone
from pretrainps.errors import RegistryError
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
def test_plain_embedding_is_the_normalised_mean_of_the_last_map() -> None:
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
