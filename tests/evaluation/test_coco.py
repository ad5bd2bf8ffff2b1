"""COCO's average precision, against a tool of COCO's own kind."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from pretrainps.data.records import Split
from pretrainps.evaluation import Detections, evaluate_coco
from tests.evaluation.crowds import random_crowd


def by_their_tool(split: Split, results: list[dict[str, Any]]) -> Any:
    def xywh(box: np.ndarray) -> list[float]:
        x1, y1, x2, y2 = (float(corner) for corner in box)
        return [x1, y1, x2 - x1, y2 - y1]

    annotations = [
        {"image_id": image, "bbox": xywh(box), "iscrowd": crowd, "area": xywh(box)[2] * xywh(box)[3], "category_id": 1}
        for image, sample in enumerate(split.samples)
        for crowd, boxes in ((0, sample.boxes), (1, sample.ignore))
        for box in boxes
    ]
    found = [
        {"image_id": image, "category_id": 1, "bbox": xywh(box), "score": float(score)}
        for image, result in enumerate(results)
        for box, score in zip(result["boxes"], result["scores"], strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(
            {
                "images": [{"id": image, "height": 300, "width": 280} for image in range(len(split))],
                "annotations": [each | {"id": index} for index, each in enumerate(annotations, 1)],
                "categories": [{"id": 1, "name": "person"}],
            }
        )
        judge = COCOeval_faster(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


@pytest.mark.parametrize("seed", range(12))
def test_as_their_tool(seed: int) -> None:
    split, results, table = random_crowd(seed, images=3 if seed % 3 else 25)
    theirs = by_their_tool(split, results)
    ours = evaluate_coco(split, table)
    assert [ours.ap, ours.ap50, ours.ap75, ours.ar] == pytest.approx([theirs[0], theirs[1], theirs[2], theirs[8]], abs=1e-9)


def test_only_the_surest_of_an_image_take_part() -> None:
    split, results, table = random_crowd(5)
    for most in (1, 3):
        kept = [
            {key: value[np.argsort(-image["scores"], kind="stable")[:most]] for key, value in image.items()}
            for image in results
        ]
        few = evaluate_coco(split, table, max_detections=most)
        assert few.ap == evaluate_coco(split, Detections.from_images(kept)).ap
        assert few.ar < evaluate_coco(split, table).ar


def test_nobody_there_or_nobody_found() -> None:
    split, results, _ = random_crowd(1)
    nothing = Detections.from_images([{"boxes": [], "scores": []}] * len(results))
    assert evaluate_coco(split, nothing).ap == 0
    empty, _, table = random_crowd(1, many=1)
    assert evaluate_coco(empty, table).ap == -1
