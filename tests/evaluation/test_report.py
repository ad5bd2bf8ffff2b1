"""Every result becomes JSON, with the protocol in words and nothing lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from pretrainps.evaluation import (
    PROTOCOLS,
    evaluate_coco,
    evaluate_detection,
    evaluate_miss_rate,
    evaluate_reid,
    evaluate_search,
    report,
)
from tests.evaluation.crowds import random_crowd
from tests.evaluation.worlds import golden


def test_results_as_json() -> None:
    split, _, table = random_crowd(0)
    for result in (
        evaluate_detection(split, table),
        evaluate_coco(split, table),
        evaluate_miss_rate(split, table, variant="citypersons"),
        evaluate_reid(np.eye(3), [0, 1, 2], None, np.eye(3), [0, 1, 1], None),
    ):
        plain = json.loads(json.dumps(report(result), allow_nan=False))
        assert next(iter(plain)) == "protocol" and plain["protocol"] == result.protocol
        assert all(getattr(result, key) == value for key, value in plain.items() if not isinstance(value, list))


def test_a_search_with_and_without_its_queries() -> None:
    world = golden()
    result = evaluate_search(
        world.search_set,
        world.table,
        replace(PROTOCOLS["cuhk-sysu"], gallery=50),
        query_embeddings=world.query_embeddings,
        ranking=3,
    )
    short = json.loads(json.dumps(report(result), allow_nan=False))
    assert short["mAP"] == result.mAP and short["without_match"] == 0
    assert "per_query_ap" not in short and "ranking" not in short
    whole = json.loads(json.dumps(report(result, per_query=True), allow_nan=False))
    assert whole["per_query_ap"] == result.per_query_ap.tolist() and whole["without_match"] == []
    assert np.array(whole["ranking"]["detections"]).shape == (15, 3)
