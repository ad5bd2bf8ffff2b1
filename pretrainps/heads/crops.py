"""Heads for person crops: a unit vector for re-identification, or class scores."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.backbones.measuring import require_measurable
from pretrainps.backbones.precision import matching
from pretrainps.registry.specs import HeadSpec, ModelSpec
from pretrainps.weights import LoadReport


class EmbeddingHead(nn.Module):
    """Average-pool the last map and scale it to a unit vector, through a learned projection if a width is given.

    Args:
        channels: Channels of the map.
        embedding_dim: Width of a Linear + BatchNorm1d before the scaling; `None` for none, so that nothing has to be
            learned before pre-trained features can be compared.
    """

    def __init__(self, channels: int, embedding_dim: int | None = None) -> None:
        super().__init__()
        self.dim = embedding_dim or channels
        self.projection: nn.Module = nn.Identity()
        if embedding_dim is not None:
            linear = nn.Linear(channels, embedding_dim, bias=False)
            nn.init.normal_(linear.weight, std=0.01)
            self.projection = nn.Sequential(linear, nn.BatchNorm1d(embedding_dim))

    def forward(self, c5: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, dim), each row of length 1."""
        pooled = matching(c5.mean(dim=(2, 3)), self)  # (N, C, h, w) -> (N, C)
        return F.normalize(self.projection(pooled), dim=1)


class ClassifierHead(nn.Module):
    """Average-pool the last map and score classes.

    Args:
        channels: Channels of the map.
        num_classes: How many classes.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, c5: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, num_classes) logits."""
        return self.fc(matching(c5.mean(dim=(2, 3)), self))  # type: ignore[no-any-return]


class CropModel(nn.Module):
    """A backbone with a head for crops.

    Attributes:
        backbone: The backbone.
        head: What turns its last map into a row for each crop.
        head_spec: How the head was asked for.
    """

    spec: ModelSpec
    load_report: LoadReport

    def __init__(self, backbone: Backbone, head_spec: HeadSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head_spec = head_spec
        self.head = build_head(head_spec, backbone.channels["c5"])

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), preprocessed -> (N, dim) unit vectors or (N, num_classes) logits."""
        if self.training:
            remedy = "Give two or more, and leave out a last batch of one: DataLoader(..., drop_last=True)."
            require_measurable(len(images), "crop", remedy, self.head)
        return self.head(self.backbone(images)["c5"])  # type: ignore[no-any-return]


def build_head(spec: HeadSpec, channels: int) -> EmbeddingHead | ClassifierHead:
    """Build the head that a spec asks for, with random weights.

    Args:
        spec: Which head.
        channels: Channels of the map that it gets.
    """
    if spec.kind == "classifier" and spec.num_classes is not None:
        return ClassifierHead(channels, spec.num_classes)
    return EmbeddingHead(channels, spec.embedding_dim)
