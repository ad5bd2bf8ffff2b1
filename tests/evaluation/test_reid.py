"""Re-identification: a loop over queries and gallery, scikit-learn, and the rules of Market-1501."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pretrainps.errors import ArgumentError
from pretrainps.evaluation import evaluate_reid


def crops(seed: int, count: int, people: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, people, count)
    looks = np.random.default_rng(99).standard_normal((people, 5))
    return looks[ids] + rng.standard_normal((count, 5)), ids, rng.integers(0, 3, count)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), gallery=st.integers(1, 40), formula=st.sampled_from(["hits", "trapezoid"]))
def test_as_a_loop(seed: int, gallery: int, formula: str) -> None:
    queries, shown = crops(seed, 9), crops(seed + 1, gallery)
    aps, places, inverse = [], [], []
    for vector, person, camera in zip(*queries, strict=True):
        kept = [
            (float(other @ vector / np.linalg.norm(other) / np.linalg.norm(vector)), who == person and person >= 0)
            for other, who, where in zip(*shown, strict=True)
            if not (who == person and person >= 0 and where == camera)
        ]
        kept.sort(key=lambda pair: -pair[0])
        truth = [right for _, right in kept]
        if not any(truth):
            continue
        ranked = [place for place, right in enumerate(truth, 1) if right]
        if formula == "hits":
            aps.append(average_precision_score(truth, [similarity for similarity, _ in kept]))
        else:
            pairs = [((n - 1) / (p - 1) if p > 1 else 1.0, n / p) for n, p in enumerate(ranked, 1)]
            aps.append(sum(a + b for a, b in pairs) / 2 / len(pairs))
        places.append(ranked[0])
        inverse.append(len(ranked) / ranked[-1])
    result = evaluate_reid(*queries, *shown, average_precision=formula)  # type: ignore[arg-type]
    assert (result.num_queries, result.skipped) == (9, 9 - len(aps))
    np.testing.assert_allclose(result.per_query_ap, aps, atol=1e-9)
    assert result.first_places.tolist() == places
    if aps:
        shares = [np.mean(np.array(places) <= k) for k in (1, 5, 10)]
        assert [result.mAP, result.mINP] == pytest.approx([np.mean(aps), np.mean(inverse)])
        assert [result.cmc1, result.cmc5, result.cmc10] == pytest.approx(shares)


def test_the_same_camera_and_strangers() -> None:
    """By similarity: the same camera (left out), a stranger (wrong), the person, somebody else, the person again."""
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = evaluate_reid([[2.0, 0.0]], [7], [1], gallery, [7, -1, 7, 3, 7], [1, 1, 2, 1, 3])
    assert result.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert (result.cmc1, result.cmc5, result.mINP) == (0, 1, 0.5)
    without = evaluate_reid([[2.0, 0.0]], [7], None, gallery, [7, -1, 7, 3, 7], None)
    assert without.cmc1 == 1 and "cameras not known" in without.protocol


def test_strangers_are_not_one_person() -> None:
    result = evaluate_reid(np.eye(2), [-1, 0], [0, 0], np.eye(2), [-1, -1], [1, 1])
    assert (result.skipped, result.mAP, result.cmc1, result.mINP) == (2, 0, 0, 0)


def test_the_formulas_differ() -> None:
    queries, shown = crops(1, 30), crops(2, 200)
    hits, line = (evaluate_reid(*queries, *shown, average_precision=how).mAP for how in ("hits", "trapezoid"))  # type: ignore[arg-type]
    assert 0 < abs(hits - line) < 0.05


def test_queries_are_asked_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, shown = crops(1, 30), crops(2, 50)
    whole = evaluate_reid(*queries, *shown)
    monkeypatch.setattr("pretrainps.evaluation.reid._CHUNK", 120)
    np.testing.assert_allclose(evaluate_reid(*queries, *shown).per_query_ap, whole.per_query_ap, atol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    good = ([[1.0, 0.0]], [0], [0])
    for queries, gallery, match in (
        (([[1.0]], [0], [0]), good, "have 1 numbers, gallery embeddings 2"),
        (([[1.0, np.nan]], [0], [0]), good, "query: embedding 0 is not finite"),
        (good, ([[1.0, 0.0]], [0, 1], [0]), r"gallery: embeddings \(1, 2\), ids \(2,\)"),
        (([[1.0, 0.0]], [0], None), good, "of no use"),
    ):
        with pytest.raises(ArgumentError, match=match):
            evaluate_reid(*queries, *gallery)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="'hits' or 'trapezoid'"):
        evaluate_reid(*good, *good, average_precision="area")  # type: ignore[arg-type]
