"""Miss rates: each of the three against its own loop, written from its description, and cases small enough for a hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pretrainps.data.records import Sample, Split, as_boxes
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import Detections, evaluate_miss_rate
from tests.evaluation.crowds import random_crowd

Box = list[float]


def meet(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def size(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(one: Box, other: Box) -> float:
    union = size(one) + size(other) - meet(one, other)
    return meet(one, other) / union if union else 0.0


def covered(one: Box, other: Box) -> float:
    return meet(one, other) / size(one) if size(one) else 0.0


LIMITS = {
    ("citypersons", "reasonable"): (50, 1e10, 0.65, 1e10),
    ("citypersons", "small"): (50, 75, 0.65, 1e10),
    ("citypersons", "heavy"): (50, 1e10, 0.2, 0.65),
    ("citypersons", "all"): (20, 1e10, 0.2, 1e10),
    ("eurocity", "reasonable"): (40, 1e10, 0.6, 1e10),
    ("eurocity", "small"): (30, 60, 0.6, 1e10),
    ("eurocity", "occluded"): (40, 1e10, 0.2, 0.6),
    ("eurocity", "all"): (20, 1e10, 0.2, 1e10),
    ("crowdhuman", "all"): (0, 1e10, 0, 1e10),
}


def loop(split: Split, results: list[dict[str, Any]], variant: str, setup: str) -> float:
    """Detection by detection, as the tool of that name goes."""
    low, high, least, most = LIMITS[variant, setup]
    judged: list[tuple[float, bool]] = []
    people = 0
    for sample, image in zip(split.samples, results, strict=True):
        assert sample.visible is not None and sample.size is not None
        tall, wide = sample.size

        def cut(box: Any, wide: int = wide, tall: int = tall) -> Box:
            x1, y1, x2, y2 = (float(corner) for corner in box)
            if variant == "eurocity":
                return [max(0, x1), max(0, y1), min(wide, x2), min(tall, y2)]
            if variant == "crowdhuman":
                return [
                    min(max(x1, 0), wide - 1),
                    min(max(y1, 0), tall - 1),
                    max(min(x2, wide), 0),
                    max(min(y2, tall), 0),
                ]
            return [x1, y1, x2, y2]

        wanted: list[Box] = []
        other: list[Box] = []
        for box, visible in zip(sample.boxes, sample.visible, strict=True):
            share = size([float(v) for v in visible]) / size([float(v) for v in box])
            height = cut(box)[3] - cut(box)[1]
            shows = least <= share <= most if variant != "eurocity" else least < share <= most
            (wanted if low <= height <= high and shows else other).append(cut(box))
        regions = [cut(box) for box in sample.ignore]
        people += len(wanted)
        taken: set[int] = set()
        for place in sorted(range(len(image["scores"])), key=lambda index: -image["scores"][index]):
            box = cut(image["boxes"][place])
            height = box[3] - box[1]
            if variant == "citypersons" and not low / 1.25 <= height < high * 1.25:
                continue
            if variant == "eurocity" and (height <= low / 1.25 or height >= high * 1.25):
                continue
            best, match = 0.5, None
            for index, person in enumerate(wanted):
                value = overlap(box, person)
                better = value > best if variant == "crowdhuman" else value >= best
                if index not in taken and better:
                    best, match = value, index
            score = float(image["scores"][place])
            if match is not None:
                taken.add(match)
                judged.append((score, True))
            elif variant == "citypersons":
                if not any(covered(box, one) >= 0.5 for one in other + regions):
                    judged.append((score, False))
            elif variant == "eurocity":
                if not any(overlap(box, o) >= 0.5 for o in other) and not any(covered(box, r) >= 0.5 for r in regions):
                    judged.append((score, False))
            elif not any(covered(box, region) > 0.5 for region in regions):
                judged.append((score, False))
    judged.sort(key=lambda pair: -pair[0])
    points = [0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0]
    if variant == "eurocity":
        points = [10 ** (-2 + index / 4) for index in range(9)]
    curve: list[tuple[float, float]] = []
    hits = misses = 0
    for _, right in judged:
        hits, misses = hits + right, misses + (not right)
        curve.append((misses / len(split), 1 - hits / people))
    logs = []
    for point in points:
        if variant == "crowdhuman":
            rate = next((missed for wrong, missed in curve if wrong >= point), curve[-1][1])
        else:
            rate = ([1.0] + [missed for wrong, missed in curve if wrong <= point])[-1]
        rate = max(rate, 1e-10) if variant == "eurocity" else rate
        logs.append(math.log(rate) if rate > 0 else -math.inf)
    return math.exp(sum(logs) / len(logs))


@pytest.mark.parametrize(("variant", "setup"), LIMITS)
@pytest.mark.parametrize("seed", range(4))
def test_as_the_loop_of_that_name(variant: Any, setup: str, seed: int) -> None:
    split, results, table = random_crowd(seed, images=30)
    ours = evaluate_miss_rate(split, table, variant=variant, setup=setup)
    assert ours.miss_rate == pytest.approx(loop(split, results, variant, setup), rel=1e-9)
    assert ours.miss_rate < 1 and variant in ours.protocol


PERSON = [100, 100, 141, 200]


def crowd(boxes: list[Box], *, images: int = 100, **fields: Any) -> Split:
    """One image with people, and empty ones."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    empty = Sample(name="x", image=pixels, boxes=as_boxes(()), ids=np.zeros(0, np.int64), size=(1024, 2048))
    first = replace(empty, boxes=as_boxes(boxes), ids=np.full(len(boxes), -1), **fields)
    return Split(dataset="toy", name="val", task="detection", samples=[first, *[empty] * (images - 1)])


def found(split: Split, boxes: list[Box], scores: list[float]) -> Detections:
    nothing = {"boxes": [], "scores": []}
    return Detections.from_images([{"boxes": boxes, "scores": scores}, *[nothing] * (len(split) - 1)])


AWAY = [500, 100, 541, 200]


@pytest.mark.parametrize("variant", ["citypersons", "eurocity", "crowdhuman"])
def test_by_hand(variant: Any) -> None:
    """Two people in 10 images: one found first, then one false positive (0.1 an image), then the other.

    Half are missed at the five points from 0.01 to 0.1 but the last; there the false positive is allowed, and all are found
    if the last detection still counts: it does where the last miss rate with so many is read, not where the first is.
    """
    second = [300, 100, 341, 200]
    split = crowd([PERSON, second], images=10)
    table = found(split, [PERSON, AWAY, second], [0.9, 0.8, 0.7])
    result = evaluate_miss_rate(split, table, variant=variant, setup="all")
    if variant == "crowdhuman":  # at 0.1 the first: one half; above it there is none, so the last: none missed
        assert result.miss_rates.tolist() == [0.5] * 5 + [0.0] * 4 and result.miss_rate == 0
    else:
        assert result.miss_rates.tolist() == [0.5] * 4 + [0.0] * 5
        floor = 1e-10 if variant == "eurocity" else 0.0
        assert result.miss_rate == pytest.approx(0.5 ** (4 / 9) * floor ** (5 / 9))


def test_a_first_false_positive_that_is_too_many() -> None:
    """In 10 images it is 0.1 an image: up to there everybody is missed, then half."""
    split = crowd([PERSON, [300, 100, 341, 200]], images=10)
    table = found(split, [AWAY, PERSON], [0.9, 0.8])
    for variant in ("citypersons", "eurocity"):
        result = evaluate_miss_rate(split, table, variant=variant)
        assert result.miss_rates.tolist() == [1.0] * 4 + [0.5] * 5
        assert result.miss_rate == pytest.approx(0.5 ** (5 / 9))


@pytest.mark.parametrize("variant", ["citypersons", "eurocity", "crowdhuman"])
def test_regions_forgive_as_many_as_lie_in_them(variant: Any) -> None:
    split = crowd([PERSON], ignore=as_boxes([[480, 80, 700, 400]]))
    table = found(split, [AWAY, [560, 110, 601, 210], [455, 100, 496, 200], PERSON], [0.9, 0.8, 0.75, 0.7])
    result = evaluate_miss_rate(split, table, variant=variant, setup="all")
    assert result.num_detections == 2, "two lie within; of the third 25 of 41 pixels do not"
    assert (result.num_people, result.num_ignored) == (1, 1)


def test_people_outside_the_setup_are_forgiven() -> None:
    """CityPersons by coverage of the detection, EuroCity by IoU."""
    hidden = as_boxes([[100, 100, 141, 110]])
    split = crowd([PERSON], visible=hidden)
    part = [100, 100, 141, 148]  # lies in the person, with an IoU of 0.48
    for variant, counted in (("citypersons", 0), ("eurocity", 1)):
        result = evaluate_miss_rate(split, found(split, [part], [0.9]), variant=variant)
        assert (result.num_people, result.num_detections) == (0, counted)


def test_heights_far_outside_do_not_take_part() -> None:
    split = crowd([PERSON])
    for height, counted in ((39.9, 0), (40, 1), (93.7, 1), (93.8, 0)):
        box = [500, 100, 520, 100 + height]
        table = found(split, [box], [0.9])
        assert evaluate_miss_rate(split, table, variant="citypersons", setup="small").num_detections == counted


def test_an_overlap_of_exactly_one_half() -> None:
    split = crowd([[0, 0, 40, 100]])
    table = found(split, [[0, 0, 40, 50]], [0.9])
    assert evaluate_miss_rate(split, table, variant="citypersons").miss_rate == 0
    assert evaluate_miss_rate(split, table, variant="crowdhuman", setup="all").miss_rate == 1


def test_visibility_from_tags() -> None:
    """EuroCity's tags: 10 % occluded is reasonable, 40 % is occluded, 80 % is neither."""
    split = crowd([PERSON, [300, 100, 341, 200], [600, 100, 641, 200], [900, 100, 941, 200]], images=1)
    nothing = found(split, [], [])
    tags = [[1.0, 1 - 0.1, 1 - 0.4, 1 - 0.8]]
    for setup, people in (("reasonable", 2), ("occluded", 1), ("all", 3)):
        result = evaluate_miss_rate(split, nothing, variant="eurocity", setup=setup, visibility=tags)
        assert (result.num_people, result.miss_rate) == (people, 1)
    with pytest.raises(ArgumentError, match=r"image 0 \(x\): visibilities \(2,\) for 4 people"):
        evaluate_miss_rate(split, nothing, variant="eurocity", visibility=[[1.0, 0.5]])
    with pytest.raises(ArgumentError, match="of 0 images for a split of 1"):
        evaluate_miss_rate(split, nothing, variant="eurocity", visibility=[])


def test_what_cannot_be() -> None:
    split = crowd([PERSON], images=1)
    table = found(split, [PERSON], [0.9])
    with pytest.raises(ArgumentError, match=r"no setup 'heavy'\. It has reasonable, small, occluded, all"):
        evaluate_miss_rate(split, table, variant="eurocity", setup="heavy")
    with pytest.raises(ArgumentError, match=r"no miss rate 'caltech'\. There are citypersons, eurocity, crowdhuman"):
        evaluate_miss_rate(split, table, variant="caltech")  # type: ignore[arg-type]
    sizeless = Split(dataset="toy", name="x", task="detection", samples=[replace(split.samples[0], size=None)])
    with pytest.raises(ArgumentError, match=r"image 0 \(x\): 'crowdhuman' cuts boxes"):
        evaluate_miss_rate(sizeless, table, variant="crowdhuman", setup="all")
    assert evaluate_miss_rate(sizeless, table, variant="eurocity").miss_rate == pytest.approx(1e-10)
