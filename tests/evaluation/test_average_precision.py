"""Average precision: scikit-learn's, ties and all, and the trapezoids of Market-1501."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pretrainps.errors import ArgumentError
from pretrainps.evaluation import average_precision
from pretrainps.evaluation.average_precision import standing, trapezoid

RANKED = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=30)


@settings(max_examples=60)
@given(RANKED)
def test_as_scikit_learn(ranked: list[tuple[bool, int]]) -> None:
    """Few different scores: most are equal to some other."""
    truth, scores = [hit for hit, _ in ranked], np.array([score for _, score in ranked], dtype=np.float32)
    expected = average_precision_score(truth, scores) if any(truth) else 0.0
    assert average_precision(truth, scores) == pytest.approx(expected, abs=1e-12)


@given(RANKED)
def test_places_are_those_of_a_stable_sort(ranked: list[tuple[bool, int]]) -> None:
    hits = np.flatnonzero([hit for hit, _ in ranked])
    scores = np.array([score for _, score in ranked], dtype=np.float32)
    reach, places = standing(scores, hits)
    order = np.argsort(-scores, kind="stable").tolist()
    assert places.tolist() == [order.index(hit) + 1 for hit in hits]
    assert reach.tolist() == [int((scores >= scores[hit]).sum()) for hit in hits]


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_trapezoids_place_by_place(truth: list[bool]) -> None:
    """The area under the curve, walked along every place of the ranking and not only the hits."""
    area, before_recall, before_precision, hits = 0.0, 0.0, 1.0, 0
    for place, hit in enumerate(truth, 1):
        hits += hit
        recall, precision = hits / sum(truth), hits / place
        area += (recall - before_recall) * (before_precision + precision) / 2
        before_recall, before_precision = recall, precision
    assert trapezoid(np.flatnonzero(truth) + 1) == pytest.approx(area)


def test_shapes_that_differ() -> None:
    with pytest.raises(ArgumentError, match=r"\(2,\) and scores of shape \(3,\)"):
        average_precision([1, 0], [0.1, 0.2, 0.3])
