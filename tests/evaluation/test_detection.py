"""Person search's recall and average precision of detection: the original's numbers, and a loop."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pretrainps.data.records import Split, as_boxes
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import Detections, evaluate_detection
from tests.evaluation.worlds import Image, golden, golden_json, plain, random_world


def test_the_originals_numbers() -> None:
    world, tried = golden(), 0
    for key, expected in golden_json()["expected"].items():
        if found := re.fullmatch(r"detection/source=det,det_thresh=([\d.]+),labeled_only=(\d)", key):
            result = evaluate_detection(
                world.search_set.gallery,
                world.table,
                min_score=float(found[1]),
                labelled_only=found[2] == "1",
            )
            assert (result.recall, result.ap) == pytest.approx((expected["recall"], expected["ap"]), abs=1e-9), key
            tried += 1
    assert tried == 4


def loop(split: Split, results: list[Image], min_score: float, labelled_only: bool) -> tuple[float, float]:
    truth, scores, people = [], [], 0
    for sample, image in zip(split.samples, results, strict=True):
        boxes = [[int(corner) for corner in box] for box in sample.boxes]
        if labelled_only:
            boxes = [box for box, person in zip(boxes, sample.ids, strict=True) if person >= 0]
            if not boxes:
                continue
        people += len(boxes)
        detected = [box for box, score in zip(image["boxes"], image["scores"], strict=True) if score >= min_score]
        scores += [score for score in image["scores"] if score >= min_score]
        overlaps = np.array([[plain().plain_iou(a, b) for b in boxes] for a in detected], dtype=np.float32)
        for row in range(len(detected)):
            hit = False
            if boxes:
                best = int(overlaps[row].argmax())
                hit = overlaps[row, best] >= 0.5 and int(overlaps[:, best].argmax()) == row
            truth.append(hit)
    recall = sum(truth) / people
    return recall, average_precision_score(truth, scores) * recall if any(truth) else 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), min_score=st.sampled_from([0.0, 0.5, 0.8]), labelled_only=st.booleans())
def test_as_a_loop(seed: int, min_score: float, labelled_only: bool) -> None:
    world = random_world(seed)
    result = evaluate_detection(world.search_set.gallery, world.table, min_score=min_score, labelled_only=labelled_only)
    expected = loop(world.search_set.gallery, world.results, min_score, labelled_only)
    assert (result.recall, result.ap) == pytest.approx(expected, abs=1e-9)


def test_regions_to_be_ignored() -> None:
    """PoseTrack21: a wrong detection that touches such a region is left out; a right one stays."""
    world = golden()
    sample = world.search_set.gallery.samples[0]
    split = Split(dataset="toy", name="x", task="search", samples=[replace(sample, ignore=as_boxes([[1000, 0, 1100, 200]]))])
    table = Detections.from_images(
        [{"boxes": [sample.boxes[0], [1000, 0, 1100, 200], [1000, 20, 1100, 220]], "scores": [0.6, 0.9, 0.8]}]
    )
    without = evaluate_detection(split, table)
    assert (without.num_detections, without.found) == (3, 1)
    ignoring = evaluate_detection(split, table, ignore_iou=0.1)
    assert (ignoring.num_detections, ignoring.found) == (1, 1)
    assert ignoring.ap == pytest.approx(without.ap * 3) and "IoU above 0.1" in ignoring.protocol


def test_nobody_there_or_nobody_found() -> None:
    world = random_world(3)
    nobody = Detections.from_images([{"boxes": [], "scores": []}] * len(world.results))
    result = evaluate_detection(world.search_set.gallery, nobody)
    assert (result.recall, result.ap) == (0, 0)
    empty = Split(dataset="toy", name="x", task="search", samples=[])
    assert evaluate_detection(empty, Detections.from_images([])).ap == 0
    with pytest.raises(ArgumentError, match=r"in 13 images, but split 'test' of toy has 14"):
        evaluate_detection(world.search_set.gallery, Detections.from_images(world.results[1:]))
