"""Identity losses over several re-ID data sets with unrelated people.

Identity 7 of one data set is not identity 7 of another, but it may be the same person as another identity there. So every
data set has a softmax over its own people, and people are compared only within a data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.errors import ArgumentError
from pretrainps.losses.oim import UNLABELLED, OIMLoss
from pretrainps.ops.precision import to_float32

_SMALLEST_SQUARE = 1e-12
"""Least squared distance, to limit the slope of the square root."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySettings:
    """Settings of the identity losses.

    Raises:
        ArgumentError: a value is impossible; the message names the field.
    """

    loss: Literal["oim", "cross_entropy"] = "oim"
    """`oim` compares with running means of people, as person-search detectors do; `cross_entropy` with learned weights."""
    queue_size: int = 0
    """For `oim`: size of each data set's queue of people without an identity. Most re-ID data sets have none."""
    label_smoothing: float = 0.1
    """For `cross_entropy`: share of the target that is spread over all people (Szegedy et al. 2016)."""
    triplet: Literal["none", "margin", "soft"] = "none"
    """An additional batch-hard triplet loss; its batches need several images of each person (`PKBatchSampler`)."""
    triplet_margin: float = 0.3
    """For `margin`: how much farther the nearest other person must be than the farthest image of the same person."""

    def __post_init__(self) -> None:
        if self.loss not in ("oim", "cross_entropy"):
            raise ArgumentError(f"IdentitySettings.loss must be 'oim' or 'cross_entropy', not {self.loss!r}.")
        if self.triplet not in ("none", "margin", "soft"):
            raise ArgumentError(f"IdentitySettings.triplet must be 'none', 'margin' or 'soft', not {self.triplet!r}.")
        if self.queue_size < 0:
            raise ArgumentError(f"IdentitySettings.queue_size must be at least 0, not {self.queue_size}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ArgumentError(f"IdentitySettings.label_smoothing must be in 0..1, without 1, not {self.label_smoothing}.")
        if not self.triplet_margin >= 0.0:
            raise ArgumentError(f"IdentitySettings.triplet_margin must be at least 0, not {self.triplet_margin}.")


class CosineClassifier(nn.Module):
    """Cross-entropy over scaled cosines between embeddings and one learned direction for each person.

    Embeddings have length 1, so the softmax of plain products would be almost flat; Wang et al., "NormFace", 2017.

    Args:
        dim: Length of an embedding.
        num_identities: Number of people.
        scalar: Factor on the cosines.
        label_smoothing: See `IdentitySettings`.
    """

    def __init__(self, dim: int, num_identities: int, *, scalar: float, label_smoothing: float) -> None:
        super().__init__()
        self.scalar = scalar
        self.label_smoothing = label_smoothing
        self.weight = nn.Parameter(torch.randn(num_identities, dim))

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Return the mean loss of the labelled people; 0, with a gradient of 0, if there are none. (N, dim), (N,) -> ()."""
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = self.scalar * to_float32(embeddings) @ F.normalize(self.weight, dim=1).T
            labelled = ids != UNLABELLED
            total = F.cross_entropy(logits[labelled], ids[labelled], label_smoothing=self.label_smoothing, reduction="sum")
        return total / labelled.sum().clamp(min=1)


class IdentityLoss(nn.Module):
    """The identity losses of several data sets, each with its own people.

    Under `torch.distributed` and with OIM, every process must call it at every step, if necessary with no people: each call
    synchronizes the tables of all data sets.

    Args:
        dim: Length of an embedding.
        people: Number of identities of each data set, in order.
        settings: Settings of the losses.
        scalar: Factor on similarities, the inverse of the softmax's temperature.
        momentum: For `oim`: share of an identity's old vector that is kept when the identity is seen again.
    """

    def __init__(
        self, dim: int, people: Mapping[str, int], settings: IdentitySettings, *, scalar: float, momentum: float
    ) -> None:
        super().__init__()
        self.settings = settings
        self.losses = nn.ModuleList(self._loss(dim, count, scalar, momentum) for count in people.values())

    def forward(self, embeddings: Tensor, ids: Tensor, counts: list[int]) -> dict[str, Tensor]:
        """Return `loss_identity`, the mean over all labelled people, and `loss_triplet` if the settings have one.

        Args:
            embeddings: (N, dim), one data set after the other.
            ids: (N,) identities in their data sets, or `UNLABELLED`.
            counts: Number of rows of each data set.
        """
        parts = zip(self.losses, embeddings.split(counts), ids.split(counts), strict=True)
        totals = [loss(rows, people) * (people != UNLABELLED).sum() for loss, rows, people in parts]
        losses = {"loss_identity": torch.stack(totals).sum() / (ids != UNLABELLED).sum().clamp(min=1)}
        if self.settings.triplet != "none":
            margin = self.settings.triplet_margin if self.settings.triplet == "margin" else None
            dataset = torch.arange(len(counts), device=ids.device).repeat_interleave(torch.tensor(counts, device=ids.device))
            losses["loss_triplet"] = batch_hard_triplet(embeddings, ids, dataset, margin=margin)
        return losses

    def _loss(self, dim: int, people: int, scalar: float, momentum: float) -> nn.Module:
        if self.settings.loss == "oim":
            return OIMLoss(dim, people, self.settings.queue_size, scalar=scalar, momentum=momentum)
        return CosineClassifier(dim, people, scalar=scalar, label_smoothing=self.settings.label_smoothing)


def batch_hard_triplet(embeddings: Tensor, ids: Tensor, datasets: Tensor, *, margin: float | None) -> Tensor:
    """Pull the farthest image of the same person closer than the nearest image of another person.

    Hermans, Beyer & Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017, equation 5. Each image is
    compared with the farthest one of the same person and the nearest one of another person, in Euclidean distance. An image
    without both in the batch is left out.

    Args:
        embeddings: (N, dim).
        ids: (N,) identities in their data sets; `UNLABELLED` rows are left out.
        datasets: (N,) the data set of each row; people of different data sets are never compared.
        margin: The hinge's margin; `None` for the soft margin, log(1 + exp(x)).

    Returns:
        The mean over the images that are used; 0, with a gradient of 0, if there are none.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        vectors = to_float32(embeddings)
        comparable = (datasets[:, None] == datasets) & (ids != UNLABELLED) & (ids != UNLABELLED)[:, None]
        same = comparable & (ids[:, None] == ids)
        strangers = comparable & ~same
        friends = same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        usable = friends.any(dim=1) & strangers.any(dim=1)
        if not bool(usable.any()):
            return 0.0 * vectors.sum()
        squares = vectors.square().sum(dim=1)
        distances = (squares[:, None] + squares - 2.0 * vectors @ vectors.T).clamp(min=_SMALLEST_SQUARE).sqrt()
        farthest = distances.masked_fill(~friends, -torch.inf).amax(dim=1)[usable]
        nearest = distances.masked_fill(~strangers, torch.inf).amin(dim=1)[usable]
        gap = farthest - nearest
        return (F.softplus(gap) if margin is None else F.relu(gap + margin)).mean()
