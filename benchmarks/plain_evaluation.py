"""The search protocols as plain loops over queries, images and detections, as in the originals.

It is the reference for `evaluation.py` and for the tests. It shares no code with the package: it follows the description of the
protocols, with names and dictionaries, scikit-learn's average precision, and a matching that tries every permutation.

Of equal similarities, the first listed comes first.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from pretrainps.data.records import SearchSet

Image = dict[str, Any]


class Plain(NamedTuple):
    """Results for each query; `None` for queries that cannot be evaluated."""

    ap: list[float | None]
    hits: list[list[int] | None]


def plain_search(
    search_set: SearchSet,
    results: list[Image],
    *,
    gallery: int | Literal["frames", "full"],
    query_embeddings: np.ndarray | None = None,
    query_images: list[Image] | None = None,
    min_score: float = 0.5,
    same_camera: bool = True,
    best_detection: bool = False,
    normalize: bool = False,
    once: bool = True,
    repeat_lists: bool = False,
    context: tuple[int, int, str] | None = None,
    queries: range | None = None,
) -> Plain:
    """Evaluate; `results` and `query_images` hold one dict for each image, of arrays `boxes`, `scores`, `embeddings`."""
    if normalize:
        results = [unit(image) for image in results]
        query_images = None if query_images is None else [unit(image) for image in query_images]
    samples = search_set.gallery.samples
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for sample, image in zip(samples, results, strict=True):
        sure = np.flatnonzero(image["scores"] >= min_score)
        if len(sure):
            found[sample.name] = (image["boxes"][sure], image["embeddings"][sure])
    by_name = {sample.name: image for sample, image in zip(samples, results, strict=True)}
    answers = Plain([], [])
    for number in queries if queries is not None else range(len(search_set.queries)):
        query = search_set.queries[number]
        neighbors: np.ndarray | None = None
        if best_detection:
            image = query_images[number] if query_images is not None else by_name[query.sample.name]
            asked = most_overlapping(image, query.box, min_score)
            vector, neighbors = (None, None) if asked is None else (asked[0], asked)
        else:
            assert query_embeddings is not None
            vector = query_embeddings[number]
            if query_images is not None:
                neighbors = query_images[number]["embeddings"]

        # the people in each image of the gallery
        images: list[tuple[str, np.ndarray | None]] = []
        if gallery == "frames":
            for sample in samples:
                if sample.name == query.sample.name or (not same_camera and sample.camera == query.sample.camera):
                    continue
                here = np.flatnonzero(sample.ids == query.id)
                images.append((sample.name, sample.boxes[here[0]] if len(here) else None))
        else:
            entry = search_set.lists[min(search_set.lists) if gallery == "full" else gallery][number]
            for frame, box in zip(entry.frames, entry.boxes, strict=True):
                images.append((samples[frame].name, None if np.isnan(box[0]) else box))

        wanted, hit = 0, 0
        similar: list[tuple[str, np.ndarray | None, np.ndarray]] = []
        seen: set[str] = set()
        for name, box in images:
            wanted += box is not None
            if vector is None or name not in found or (once and name in seen):
                continue
            seen.add(name)
            similar.append((name, box, found[name][1].dot(vector)))
        if wanted == 0 or vector is None:
            answers.ap.append(None)
            answers.hits.append(None)
            continue

        if context is not None:
            assert neighbors is not None
            k1, k2, update = context
            everything = [(-value, place) for place, (_, _, values) in enumerate(similar) for value in values]
            for place in {place for _, place in sorted(everything, key=lambda pair: pair[0])[:k1]}:
                name, _, values = similar[place]
                people = neighbors[:k2]
                weights = np.array([[(one * other).sum() for other in found[name][1]] for one in people])
                best, match = matching_by_hand(weights)
                if match is not None:
                    values[match] = best if update == "replace" else (best + values[match]) / 2

        # in the full set, images have the gallery's order; otherwise the list's
        frame_of = {sample.name: frame for frame, sample in enumerate(samples)}
        labelled: list[tuple[int, list[int], list[float]]] = []
        for place, (name, box, values) in enumerate(similar):
            label = np.zeros(len(values), dtype=int)
            if box is not None:
                x1, y1, x2, y2 = (int(corner) for corner in box)
                width, height = x2 - x1, y2 - y1
                enough = min(0.5, width * height / ((width + 10) * (height + 10)))
                for row in np.argsort(-values, kind="stable"):
                    if plain_iou(found[name][0][row], (x1, y1, x2, y2)) >= enough:
                        label[row] = 1
                        hit += 1
                        break
            labelled.append((frame_of[name] if gallery == "full" else place, label.tolist(), values.tolist()))
        if gallery == "full":
            listed = {name for name, _ in images}
            for frame, sample in enumerate(samples):
                if sample.name == query.sample.name or sample.name not in found:
                    continue
                if repeat_lists or sample.name not in listed:
                    values = found[sample.name][1].dot(vector).tolist()
                    place = frame + (len(samples) if sample.name in listed else 0)
                    labelled.append((place, [0] * len(values), values))
            labelled.sort(key=lambda entry: entry[0])
        truth = [each for _, labels, _ in labelled for each in labels]
        scores = [each for _, _, values in labelled for each in values]
        answers.ap.append(average_precision_score(truth, scores) * hit / wanted if hit else 0.0)
        ranked = np.array(truth, dtype=int)[np.argsort(-np.array(scores), kind="stable")]
        answers.hits.append([min(1, int(ranked[:k].sum())) for k in (1, 5, 10)])
    return answers


def plain_iou(one: Any, other: Any, pixel: float = 0.0) -> float:
    """Return the overlap (IoU) of two boxes."""
    width = min(float(one[2]), float(other[2])) - max(float(one[0]), float(other[0])) + pixel
    height = min(float(one[3]), float(other[3])) - max(float(one[1]), float(other[1])) + pixel
    both = max(width, 0.0) * max(height, 0.0)
    areas = [(float(b[2]) - float(b[0]) + pixel) * (float(b[3]) - float(b[1]) + pixel) for b in (one, other)]
    return both / (sum(areas) - both)


def unit(image: Image) -> Image:
    """Scale embeddings to length 1."""
    return {**image, "embeddings": np.array([v / np.sqrt((v * v).sum()) for v in image["embeddings"]], dtype=np.float32)}


def most_overlapping(image: Image, box: np.ndarray, min_score: float) -> np.ndarray | None:
    """Return the embedding of the detection nearest to a box, then those of the others, the highest score first."""
    whole = [int(corner) for corner in box]
    overlaps = [plain_iou(other, whole, 1.0) for other in image["boxes"]]
    if not overlaps:
        return None
    best = int(np.argmax(overlaps))
    others = [place for place in np.flatnonzero(image["scores"] >= min_score) if place != best]
    others.sort(key=lambda place: -image["scores"][place])
    return np.array([image["embeddings"][place] for place in [best, *others]])


def matching_by_hand(weights: np.ndarray) -> tuple[float, int | None]:
    """Try every matching; return the greatest weight in the best one, and the match of the first row, if it has one."""
    rows, columns = weights.shape
    if rows <= columns:
        tries = [list(zip(range(rows), order, strict=True)) for order in permutations(range(columns), rows)]
    else:
        tries = [list(zip(order, range(columns), strict=True)) for order in permutations(range(rows), columns)]
    best = max(tries, key=lambda pairs: sum(float(weights[pair]) for pair in pairs))
    return max(weights[pair] for pair in best), dict(best).get(0)
