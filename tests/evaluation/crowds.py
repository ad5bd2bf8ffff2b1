"""Random detection sets: people, regions to be ignored, and detections of varying quality."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrainps.data.records import Sample, Split
from pretrainps.evaluation import Detections


def random_boxes(rng: np.random.Generator, count: int, low: float = 20, high: float = 120) -> np.ndarray:
    corner, height = rng.uniform(-20, 250, (count, 2)), rng.uniform(low, high, (count, 1))
    return np.hstack([corner, corner + np.hstack([0.41 * height, height])]).round(1).astype(np.float32)


def random_crowd(seed: int, *, images: int = 8, many: int = 6) -> tuple[Split, list[dict[str, Any]], Detections]:
    rng = np.random.default_rng(seed)
    samples, results = [], []
    for index in range(images):
        boxes, ignore = random_boxes(rng, int(rng.integers(0, many))), random_boxes(rng, int(rng.integers(0, 3)), 60, 200)
        visible = boxes.copy()
        visible[:, 3] = boxes[:, 1] + (boxes[:, 3] - boxes[:, 1]) * rng.choice([0.1, 0.3, 0.5, 0.8, 1.0], len(boxes))
        samples.append(
            Sample(
                name=f"{index}.jpg",
                image=np.zeros((1, 1, 3), np.uint8),
                boxes=boxes,
                ids=np.full(len(boxes), -1),
                ignore=ignore,
                visible=visible,
                size=(300, 280),
            )
        )
        near = boxes[rng.integers(0, len(boxes), 2 * len(boxes))] if len(boxes) else boxes
        inside = ignore + np.array([10, 20, -10, -20], dtype=np.float32)
        detected = np.vstack([near + rng.normal(0, 4, near.shape), inside, random_boxes(rng, int(rng.integers(0, 4)))])
        detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2] + 1)
        results.append(
            {
                "boxes": detected.astype(np.float32),
                "scores": rng.integers(1, 20, len(detected)).astype(np.float32) / 20,  # some are equal
            }
        )
    split = Split(dataset="toy", name="val", task="detection", samples=samples)
    return split, results, Detections.from_images(results)
