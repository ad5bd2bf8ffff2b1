"""The sheet shows the worst queries first, right answers in green and wrong ones in red."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pretrainps.errors import ArgumentError
from pretrainps.evaluation import PROTOCOLS, Detections, evaluate_search
from pretrainps.evaluation.ranking_sheet import ranking_sheet, worst_queries
from pretrainps.synthetic import search_test

GREEN, RED, BLUE = (60, 200, 90), (225, 60, 60), (90, 150, 240)


def test_frames_say_what_is_right() -> None:
    search_set = search_test("search_campus", range(4), appearances=3)
    samples = search_set.gallery.samples
    # everyone's vector is his identity's, but person 2 looks like nobody and passers-by like person 0
    vectors = [np.eye(5, dtype=np.float32)[np.where(s.ids == 2, 4, np.where(s.ids < 0, 0, s.ids))] for s in samples]
    table = Detections.of_ground_truth(search_set.gallery, vectors)
    asked = np.eye(5, dtype=np.float32)[[query.id for query in search_set.queries]]
    result = evaluate_search(search_set, table, PROTOCOLS["prw"], query_embeddings=asked, ranking=3)
    worst = worst_queries(result, 2)
    assert [search_set.queries[int(result.evaluated[place])].id for place in worst] == sorted(
        (0, 2), key=lambda person: result.per_query_ap[list(result.evaluated).index(person)]
    )
    sheet = ranking_sheet(search_set, table, result, queries=2, answers=3)
    assert result.ranking is not None
    height, width = sheet.height // 2, (sheet.width - 8) // 4
    for row, place in enumerate(worst):
        for column in range(4):
            cell = sheet.crop((8 + column * width, row * height, (column + 1) * width, (row + 1) * height))
            counts = Counter(cell.getdata() if not hasattr(cell, "get_flattened_data") else cell.get_flattened_data())
            frame = max((GREEN, RED, BLUE), key=lambda colour: counts[colour])
            wanted = BLUE if column == 0 else GREEN if result.ranking.correct[place, column - 1] else RED
            assert frame == wanted and counts[frame] > 500
    without = evaluate_search(search_set, table, PROTOCOLS["prw"], query_embeddings=asked)
    with pytest.raises(ArgumentError, match="ranking=8"):
        ranking_sheet(search_set, table, without)
