"""Context matching: the original's matchings, and only the person's own match changes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrainps.errors import MissingPackageError
from pretrainps.evaluation import ContextMatching, Detections
from pretrainps.evaluation.cbgm import maximum_weight_matching, rerank
from tests.evaluation.worlds import ROOT, plain


def test_the_originals_matchings() -> None:
    cases = json.loads((ROOT / "golden" / "units.json").read_text())["max_weight_matching"]["cases"]
    for case in cases:
        weights = np.array(case["weights"])
        rows, columns = maximum_weight_matching(weights)
        assert [list(pair) for pair in zip(rows.tolist(), columns.tolist(), strict=True)] == case["pairs"]
        assert weights[rows, columns].max() == pytest.approx(case["max"])


@given(rows=st.integers(1, 4), columns=st.integers(1, 5), seed=st.integers(0, 999))
def test_as_every_permutation(rows: int, columns: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(rows, columns))
    ours = maximum_weight_matching(weights)
    best, match = plain().matching_by_hand(weights)
    assert weights[ours].max() == best
    assert dict(zip(*ours, strict=True)).get(0) == match


def by_hand(update: str) -> list[float]:
    """One image with three people, one with two. The person looks like [1, 0], his companion like [0, 1]."""
    table = Detections.from_images(
        [
            {"boxes": np.zeros((3, 4)), "scores": np.ones(3), "embeddings": [[0.6, 0.2], [0.5, 0.9], [0.0, 0.3]]},
            {"boxes": np.zeros((2, 4)), "scores": np.ones(2), "embeddings": [[0.55, 0.0], [0.1, 0.0]]},
        ]
    )
    context = np.eye(2, dtype=np.float32)
    similarities = table.embeddings @ context[0]
    settings = ContextMatching(k1=1, k2=2, update=update)  # type: ignore[arg-type]
    after = rerank(similarities, np.arange(5), table, context, settings)
    assert np.allclose(similarities, [0.6, 0.5, 0.0, 0.55, 0.1]), "the input stays"
    return np.round(after, 4).tolist()


def test_the_match_gets_the_best_weight_of_any_pair() -> None:
    """The companion's pair weighs 0.9, the person's 0.6: the person's match is raised to 0.9; the second image is not asked."""
    assert np.allclose(by_hand("replace"), [0.9, 0.5, 0.0, 0.55, 0.1])
    assert np.allclose(by_hand("mean"), [0.75, 0.5, 0.0, 0.55, 0.1])


def test_a_person_crowded_out_changes_nothing() -> None:
    """One detection, and the companion takes it."""
    table = Detections.from_images([{"boxes": np.zeros((1, 4)), "scores": [1.0], "embeddings": [[0.2, 0.8]]}])
    settings = ContextMatching(k1=3, k2=2)
    similarities = table.embeddings[:, 0]
    assert np.array_equal(rerank(similarities, np.arange(1), table, np.eye(2, dtype=np.float32), settings), similarities)


def test_what_does_not_belong_to_the_gallery_is_not_asked() -> None:
    table = Detections.from_images([{"boxes": np.zeros((2, 4)), "scores": np.ones(2), "embeddings": np.ones((2, 2))}] * 2)
    similarities = np.array([-np.inf, -np.inf, 0.1, 0.2], dtype=np.float32)
    after = rerank(similarities, np.arange(4), table, np.ones((1, 2), dtype=np.float32), ContextMatching(k1=3, k2=1))
    assert np.isneginf(after[:2]).all() and sorted(after[2:].tolist())[-1] == 2


def test_scipy_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingPackageError, match=r"pretrainps\[train\]"):
        maximum_weight_matching(np.ones((1, 1)))
