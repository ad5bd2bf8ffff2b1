"""Identity losses compared with torch's own and with loops; people of two data sets are never compared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pretrainps.errors import ArgumentError
from pretrainps.losses.identity import CosineClassifier, IdentityLoss, IdentitySettings, batch_hard_triplet
from pretrainps.losses.oim import OIMLoss
from pretrainps.training.pretraining.uncertainty import UncertaintyWeights


def unit(rows: int, dim: int = 6, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def triplet_by_loops(vectors: Tensor, ids: list[int], sets: list[int], margin: float | None) -> float:
    """Batch-hard triplet with nothing but loops."""
    losses = []
    for a in range(len(ids)):
        same: list[float] = []
        other: list[float] = []
        for b in range(len(ids)):
            if a == b or sets[a] != sets[b] or -1 in (ids[a], ids[b]):
                continue
            (same if ids[a] == ids[b] else other).append(float((vectors[a] - vectors[b]).norm()))
        if same and other:
            gap = torch.tensor(max(same) - min(other), dtype=torch.float64)
            losses.append(float(torch.log1p(gap.exp())) if margin is None else max(0.0, float(gap) + margin))
    return sum(losses) / len(losses) if losses else 0.0


@given(
    people=st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 1)), min_size=1, max_size=12),
    margin=st.sampled_from([None, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_triplet_is_the_loops(people: list[tuple[int, int]], margin: float | None, seed: int) -> None:
    ids, sets = [each[0] for each in people], [each[1] for each in people]
    vectors = unit(len(ids), seed=seed).double()
    found = batch_hard_triplet(vectors, torch.tensor(ids), torch.tensor(sets), margin=margin)
    assert float(found) == pytest.approx(triplet_by_loops(vectors, ids, sets, margin), abs=1e-5)


def test_triplet_without_a_positive_pair_is_zero_and_so_is_its_gradient() -> None:
    vectors = unit(3).requires_grad_()
    loss = batch_hard_triplet(vectors, torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.int64), margin=0.3)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert vectors.grad is not None and bool((vectors.grad == 0).all())


def test_triplet_of_equal_pictures_has_a_finite_gradient() -> None:
    vectors = torch.cat([unit(1), unit(1), unit(1, seed=3)]).requires_grad_()
    batch_hard_triplet(vectors, torch.tensor([0, 0, 1]), torch.zeros(3, dtype=torch.int64), margin=1.0).backward()
    assert vectors.grad is not None and bool(vectors.grad.isfinite().all())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_cosine_classifier_is_torchs_cross_entropy_of_scaled_cosines(smoothing: float) -> None:
    torch.manual_seed(0)
    classifier = CosineClassifier(6, 5, scalar=7.0, label_smoothing=smoothing)
    vectors, ids = unit(4), torch.tensor([0, 4, -1, 2])
    cosines = torch.stack([F.cosine_similarity(vectors, row[None]) for row in classifier.weight.detach()], dim=1)
    known = ids >= 0
    wanted = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(7.0 * cosines[known], ids[known])
    torch.testing.assert_close(classifier(vectors, ids).detach(), wanted)
    assert float(classifier(vectors, torch.full((4,), -1)).detach()) == 0.0


@pytest.mark.parametrize("kind", ["oim", "cross_entropy"])
def test_every_data_set_has_people_of_its_own(kind: Any) -> None:
    """Each data set's loss is what it would be alone, and the same number stands for two people."""
    torch.manual_seed(0)
    loss = IdentityLoss(6, {"hall": 3, "city": 4}, IdentitySettings(loss=kind), scalar=9.0, momentum=0.5)
    vectors, ids = unit(5), torch.tensor([0, 2, 0, -1, 3])
    for each in loss.losses:
        if isinstance(each, OIMLoss):
            each.lookup_table.copy_(unit(len(each.lookup_table), seed=5))
    alone = [each(vectors[rows], ids[rows]) for each, rows in zip(loss.eval().losses, (slice(0, 2), slice(2, 5)), strict=True)]
    found = loss(vectors, ids, [2, 3])
    assert list(found) == ["loss_identity"]
    torch.testing.assert_close(found["loss_identity"], (2 * alone[0] + 2 * alone[1]) / 4)  # two labelled people in each


def test_oim_tables_move_for_their_own_data_set_only() -> None:
    loss = IdentityLoss(6, {"hall": 3, "city": 4}, IdentitySettings(), scalar=9.0, momentum=0.5).train()
    loss(unit(2), torch.tensor([1, 1]), [0, 2])
    hall, city = loss.losses
    assert isinstance(hall, OIMLoss) and isinstance(city, OIMLoss)
    assert not bool(hall.lookup_table.any()) and city.lookup_table.any(dim=1).tolist() == [False, True, False, False]


def test_nobody_at_all_costs_nothing() -> None:
    kind = IdentitySettings(loss="cross_entropy", triplet="soft")
    loss = IdentityLoss(6, {"hall": 3}, kind, scalar=9.0, momentum=0.5)
    found = loss(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), [0])
    assert {name: float(value.detach()) for name, value in found.items()} == {"loss_identity": 0.0, "loss_triplet": 0.0}


@pytest.mark.parametrize(
    "wrong",
    [{"loss": "softmax"}, {"triplet": "hard"}, {"queue_size": -1}, {"label_smoothing": 1.0}, {"triplet_margin": float("nan")}],
)
def test_impossible_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        IdentitySettings(**wrong)


def test_uncertainty_weights_are_kendalls() -> None:
    """L / (2 v) + log(v) / 2 for a regression, L / v + log(v) / 2 for a classification, and v from the starting weight."""
    weights = UncertaintyWeights({"a": "classification", "b": "regression"}, {"a": 0.5, "b": 10.0})
    assert weights.weights() == pytest.approx({"a": 0.5, "b": 10.0})
    found = weights({"a": torch.tensor(3.0), "b": torch.tensor(0.7)})
    va, vb = torch.tensor(2.0), torch.tensor(0.05)  # 1 / v = 0.5 and 1 / (2 v) = 10
    torch.testing.assert_close(found["a"].detach(), 3.0 / va + 0.5 * va.log())
    torch.testing.assert_close(found["b"].detach(), 0.7 / (2 * vb) + 0.5 * vb.log())


def test_uncertainty_settles_where_the_variance_is_the_loss() -> None:
    """Of L / (2 v) + log(v) / 2 the minimum lies at v = L."""
    weights = UncertaintyWeights({"b": "regression"}, {"b": 1.0})
    optimizer = torch.optim.SGD(weights.parameters(), lr=1.0)
    for _ in range(60):
        optimizer.zero_grad()
        weights({"b": torch.tensor(0.2)})["b"].backward()
        optimizer.step()
    assert weights.weights()["b"] == pytest.approx(1 / (2 * 0.2), rel=1e-3)


def test_a_weight_of_zero_cannot_be_learned() -> None:
    with pytest.raises(ArgumentError, match="a: a learned weight must start above 0"):
        UncertaintyWeights({"a": "regression"}, {"a": 0.0})
