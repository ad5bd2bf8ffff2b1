"""Search sets for tests: the original evaluator's golden one, and random ones with everything that goes wrong."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pretrainps.data.records import GalleryList, Query, Sample, SearchSet, Split, as_boxes, from_xywh
from pretrainps.evaluation import Detections

ROOT = Path(__file__).parent.parent
PIXELS = np.zeros((1, 1, 3), dtype=np.uint8)
Image = dict[str, Any]


@dataclass(kw_only=True)
class World:
    search_set: SearchSet
    results: list[Image]
    """What was detected in each gallery image."""
    query_embeddings: np.ndarray
    query_results: list[Image]
    """What was detected in each query's image, the person first."""

    @property
    def table(self) -> Detections:
        return Detections.from_images(self.results)

    @property
    def query_table(self) -> Detections:
        return Detections.from_images(self.query_results)


@cache
def plain() -> ModuleType:
    """The loops of the benchmark."""
    path = ROOT.parent / "benchmarks" / "plain_evaluation.py"
    spec = importlib.util.spec_from_file_location("plain_evaluation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_evaluation"] = module  # named tuples look their module up
    spec.loader.exec_module(module)
    return module


def gallery_of(samples: list[Sample], **fields: Any) -> Split:
    return Split(**{"dataset": "toy", "name": "test", "task": "search", "samples": samples} | fields)


def golden_json() -> dict[str, Any]:
    return dict(json.loads((ROOT / "golden" / "search_cuhk.json").read_text()))


@cache
def golden(source: str = "gallery") -> World:
    """The original's artificial CUHK-SYSU; `source` "gallery" has detections, "gt" the annotated boxes."""
    data = golden_json()
    with np.load(ROOT / "golden" / "search_cuhk.npz") as arrays:

        def parts(name: str) -> list[np.ndarray]:
            return np.split(arrays[f"{name}/data"], np.cumsum(arrays[f"{name}/count"])[:-1])

        def results(name: str) -> list[Image]:
            return [
                {"boxes": rows[:, :4], "scores": rows[:, 4], "embeddings": vectors}
                for rows, vectors in zip(parts(f"{name}_dets"), parts(f"{name}_feats"), strict=True)
            ]

        samples = [
            Sample(
                name=entry["img_name"],
                image=PIXELS,
                boxes=as_boxes(entry["boxes"]),
                ids=np.array([-1 if pid == 5555 else pid for pid in entry["pids"]], dtype=np.int64),
            )
            for entry in data["gallery"]
        ]
        frame = {sample.name: index for index, sample in enumerate(samples)}
        queries = [
            Query(sample=samples[frame[entry["img_name"]]], box=as_boxes(entry["box"])[0], id=entry["pid"])
            for entry in data["queries"]
        ]
        lists = [
            GalleryList(
                frames=np.array([frame[name] for name, _ in entries], dtype=np.int64),
                boxes=np.concatenate([from_xywh(box) if box else as_boxes([[np.nan] * 4]) for _, box in entries]),
            )
            for entries in data["protocol"]["50"]
        ]
        return World(
            search_set=SearchSet(gallery=gallery_of(samples), queries=queries, lists={50: lists}),
            results=results(source),
            query_embeddings=arrays["query_box_feats/data"],
            query_results=results("query"),
        )


def random_world(seed: int, *, ties: bool = False, dim: int = 8, images: int = 14, people: int = 5) -> World:
    """Draw a set with empty images, people twice in a frame, images listed twice, own images listed, and absent people.

    With `ties`, embeddings are coarse: equal similarities are common, and sums are exact in any order.
    """
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((people, dim))

    def vectors(ids: np.ndarray) -> np.ndarray:
        rows = np.where(ids[:, None] >= 0, looks[ids], rng.standard_normal((len(ids), dim)))
        rows = rows + 0.9 * rng.standard_normal(rows.shape)
        if ties:
            return np.clip(np.round(rows), -1, 1).astype(np.float32)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    samples, results = [], []
    for index in range(images):
        count = int(rng.integers(0, 6))
        corner, size = rng.uniform(0, 90, (count, 2)), rng.uniform((5, 10), (40, 80), (count, 2))
        boxes = np.hstack([corner, corner + size]).astype(np.float32)
        ids = rng.integers(-1, people, count)
        samples.append(Sample(name=f"{index}.jpg", image=PIXELS, boxes=boxes, ids=ids, camera=int(rng.integers(3))))
        found = rng.random(count) < 0.8
        extra = int(rng.integers(0, 3))
        again = rng.integers(0, count, 2) if count else np.zeros(0, np.int64)  # one person detected more than once
        detected = np.vstack([boxes[found], boxes[again], as_boxes(rng.uniform(0, 40, (extra, 4)))])
        detected[:, 2:] = np.maximum(detected[:, 2:], detected[:, :2] + 3)
        detected += rng.normal(0, 2, detected.shape)
        known = np.r_[ids[found], ids[again], np.full(extra, -1)]
        scores = np.round(rng.uniform(0.3, 1, len(known)), 1)  # many stand exactly at the threshold
        results.append(
            {"boxes": detected.astype(np.float32), "scores": scores.astype(np.float32), "embeddings": vectors(known)}
        )
    queries, lists, query_results = [], [], []
    seen = [(frame, place) for frame, sample in enumerate(samples) for place in np.flatnonzero(sample.ids >= 0)]
    for frame, place in [seen[index] for index in rng.integers(0, len(seen), 7)]:
        sample = samples[frame]
        person = int(sample.ids[place])
        queries.append(Query(sample=sample, box=sample.boxes[place], id=person))
        listed = rng.integers(0, images, 8)
        boxes = np.full((8, 4), np.nan, dtype=np.float32)
        for row, there in enumerate(listed):
            here = np.flatnonzero(samples[there].ids == person)
            if len(here) and rng.random() < 0.9:
                boxes[row] = samples[there].boxes[here[0]].astype(np.int32)
        lists.append(GalleryList(frames=listed, boxes=boxes))
        beside = int(rng.integers(0, 4))
        query_results.append(
            {
                "boxes": np.vstack([sample.boxes[place], as_boxes(rng.uniform(0, 50, (beside, 4)))]),
                "scores": np.r_[1.0, np.sort(rng.random(beside))[::-1]],
                "embeddings": vectors(np.r_[person, rng.integers(-1, people, beside)]),
            }
        )
    return World(
        search_set=SearchSet(gallery=gallery_of(samples), queries=queries, lists={8: lists}),
        results=results,
        query_embeddings=vectors(np.array([query.id for query in queries])),
        query_results=query_results,
    )
