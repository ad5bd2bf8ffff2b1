"""Measure the search protocols at the real sizes of CUHK-SYSU and PRW against plain loops, and check that the numbers agree.

    python benchmarks/evaluation.py            # the loops on every tenth of PRW's queries, scaled up
    python benchmarks/evaluation.py --full     # the loops on everything: a few minutes

Detections and embeddings are random, with the number, similarity and scores of a detector's. Embeddings are rounded to 1/1024.
So sums of their products are exact in float32 in any order, and a difference is a fault, not rounding. Equal similarities
also occur, which both implementations must treat in the same way. The loops are in `plain_evaluation.py`.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
from plain_evaluation import plain_search

from pretrainps.data.records import GalleryList, Query, Sample, SearchSet, Split, as_boxes
from pretrainps.evaluation.protocols import PROTOCOLS, SearchProtocol
from pretrainps.evaluation.search import evaluate_search
from pretrainps.inference.detections import Detections

DIM = 256
TOLERANCE = 1e-9

Case = tuple[SearchSet, list[dict[str, Any]], np.ndarray]


def people_in_frames(rng: np.random.Generator, frames: int, boxes: int, people: int, labelled: int) -> list[Sample]:
    """Draw people in frames: `boxes` in total, `labelled` of them with an identity, each person at most once in a frame."""
    frame = np.sort(rng.integers(0, frames, boxes))
    # a few people are seen often, most rarely, all at least once
    weights = 1 / (np.arange(people) + 10.0)
    ids = np.r_[np.arange(people), rng.choice(people, labelled - people, p=weights / weights.sum())]
    ids = rng.permutation(np.r_[ids, np.full(boxes - labelled, -1)])
    _, first = np.unique(np.stack([frame, np.where(ids < 0, -1 - np.arange(boxes), ids)]), axis=1, return_index=True)
    kept = np.zeros(boxes, dtype=bool)
    kept[first] = True
    ids = np.where(kept, ids, -1)
    corner = rng.uniform(0, 1500, (boxes, 2))
    height = rng.uniform(60, 400, (boxes, 1))
    drawn = as_boxes(np.hstack([corner, corner + np.hstack([0.4 * height, height])]).astype(np.int32))
    bounds = np.searchsorted(frame, np.arange(frames + 1))
    pixels = np.zeros((1, 1, 3), dtype=np.uint8)
    return [
        Sample(
            name=f"{index}.jpg",
            image=pixels,
            boxes=drawn[bounds[index] : bounds[index + 1]],
            ids=ids[bounds[index] : bounds[index + 1]].astype(np.int64),
            camera=int(rng.integers(1, 7)),
        )
        for index in range(frames)
    ]


def vectors(rng: np.random.Generator, looks: np.ndarray, ids: np.ndarray, scores: np.ndarray | float) -> np.ndarray:
    """Draw embeddings near a person's mean embedding, weighted by scores. (N,) -> (N, DIM)."""
    strangers = rng.standard_normal((len(ids), DIM))
    rows = np.where(ids[:, None] >= 0, looks[ids], strangers) + 1.1 * rng.standard_normal((len(ids), DIM))
    rows *= np.reshape(scores, (-1, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    return (np.round(rows * 1024) / 1024).astype(np.float32)


def detect(rng: np.random.Generator, samples: list[Sample], looks: np.ndarray) -> list[dict[str, Any]]:
    """Draw detections: nine of ten people, slightly displaced, and one false positive in each frame."""
    results = []
    for sample in samples:
        found = rng.random(len(sample.ids)) < 0.9
        boxes = np.vstack([sample.boxes[found], as_boxes([[10, 10, 50, 110]])])
        boxes = boxes + rng.normal(0, 5, boxes.shape)
        ids = np.r_[sample.ids[found], -1]
        scores = np.where(np.r_[np.ones(found.sum()), 0] > 0, rng.uniform(0.45, 1, len(ids)), rng.uniform(0.3, 0.8, len(ids)))
        results.append(
            {
                "boxes": boxes.astype(np.float32),
                "scores": scores.astype(np.float32),
                "embeddings": vectors(rng, looks, ids, scores),
            }
        )
    return results


def cuhk(rng: np.random.Generator) -> Case:
    """Return 2,900 queries, each with its own list of 100 of 6,978 images; 1 to 4 of them hold the person."""
    samples = people_in_frames(rng, 6978, 40871, 2900, 8500)
    looks = rng.standard_normal((2900, DIM))
    places: dict[int, list[tuple[int, int]]] = {}
    for frame, sample in enumerate(samples):
        for place in np.flatnonzero(sample.ids >= 0):
            places.setdefault(int(sample.ids[place]), []).append((frame, int(place)))
    queries, lists = [], []
    for person in range(2900):
        (own, place), *others = places[person]
        others = others[:13] or [(own, place)]
        others_frames = np.array([frame for frame, _ in others])
        empty = np.setdiff1d(rng.choice(6978, 140, replace=False), np.array([frame for frame, _ in places[person]]))
        frames = np.r_[others_frames, empty[: 100 - len(others)]]
        boxes = np.full((100, 4), np.nan, dtype=np.float32)
        boxes[: len(others)] = [samples[frame].boxes[there] for frame, there in others]
        queries.append(Query(sample=samples[own], box=samples[own].boxes[place], id=person))
        lists.append(GalleryList(frames=frames.astype(np.int64), boxes=boxes))
    gallery = Split(dataset="cuhk_sysu", name="gallery", task="search", samples=samples)
    search_set = SearchSet(gallery=gallery, queries=queries, lists={100: lists})
    return search_set, detect(rng, samples, looks), vectors(rng, looks, np.arange(2900), 1.0)


def prw(rng: np.random.Generator) -> Case:
    """Return 2,057 queries in 6,112 frames of six cameras."""
    samples = people_in_frames(rng, 6112, 25062, 544, 19127)
    looks = rng.standard_normal((544, DIM))
    queries = []
    while len(queries) < 2057:
        sample = samples[rng.integers(len(samples))]
        known = np.flatnonzero(sample.ids >= 0)
        if len(known):
            place = int(rng.choice(known))
            queries.append(Query(sample=sample, box=sample.boxes[place], id=int(sample.ids[place])))
    gallery = Split(dataset="prw", name="gallery", task="search", samples=samples)
    ids = np.array([query.id for query in queries])
    return SearchSet(gallery=gallery, queries=queries), detect(rng, samples, looks), vectors(rng, looks, ids, 1.0)


def compare(case: Case, protocol: SearchProtocol, share: int) -> None:
    """Time both implementations, the loops on one of `share` queries, and require equal numbers."""
    search_set, results, embeddings = case
    start = time.perf_counter()
    table = Detections.from_images(results)
    together = time.perf_counter() - start
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = evaluate_search(search_set, table, protocol, query_embeddings=embeddings)
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    fast = sorted(times)[1]

    asked = range(0, len(search_set.queries), share)
    start = time.perf_counter()
    plain = plain_search(
        search_set,
        results,
        gallery=protocol.gallery,
        same_camera=protocol.same_camera == "keep",
        query_embeddings=embeddings,
        queries=asked,
    )
    slow = (time.perf_counter() - start) * len(search_set.queries) / len(asked)

    row_of = {int(query): row for row, query in enumerate(result.evaluated)}
    worst = 0.0
    for query, ap, hits in zip(asked, plain.ap, plain.hits, strict=True):
        if (ap is None) != (query not in row_of):
            raise SystemExit(f"query {query}: one of the two implementations skipped it")
        if ap is None:
            continue
        row = row_of[query]
        worst = max(worst, abs(result.per_query_ap[row] - ap))
        if result.per_query_hits[row].tolist() != hits:
            raise SystemExit(f"query {query}: hits {result.per_query_hits[row].tolist()} against {hits}")
    if worst > TOLERANCE:
        raise SystemExit(f"average precisions differ by up to {worst:.3g}")
    print(f"{result.protocol}")
    print(f"  {len(search_set.queries)} queries, {table.num_images} images, {len(table)} detections, {DIM} numbers each")
    print(f"  mAP {result.mAP:.4f}, top-1 {result.top1:.4f}, {result.skipped} queries skipped")
    said = "all queries" if share == 1 else f"every {share}th query, {len(asked)} of them, scaled"
    print(f"  loops {slow:.1f} s ({said}); here {fast:.2f} s (median of 3, and {together:.2f} s for the table)")
    print(f"  {slow / fast:.0f} times faster")
    print(f"  largest difference of {len(asked)} average precisions {worst:.1e}, hits equal; peak memory {memory:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the search protocols.")
    parser.add_argument("--full", action="store_true", help="run the loops on all of PRW's queries too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    compare(cuhk(np.random.default_rng(arguments.seed)), PROTOCOLS["cuhk-sysu"], 1)
    case = prw(np.random.default_rng(arguments.seed + 1))
    share = 1 if arguments.full else 10
    compare(case, PROTOCOLS["prw"], share)
    compare(case, PROTOCOLS["prw-cross-camera"], share)


if __name__ == "__main__":
    main()
