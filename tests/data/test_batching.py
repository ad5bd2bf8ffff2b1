"""BatchSampler: seeded, resumable, shared out among processes, and balanced as promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data.batching import (
    AspectBatches,
    BalancedBatches,
    BatchSampler,
    JoinedBatches,
    PKBatchSampler,
    ShuffledBatches,
)
from pretrainps.errors import ArgumentError

IDS = [0, 0, 0, 1, 1, 2, -1, 3, 3, 3, 3, 4, 4, -1, 5, 6]
ASPECTS = [0.5, 1.5, 0.6, 1.8, 0.7, 1.2, 0.4, 1.9, 1.1, 2.0, 0.5]
KINDS: list[Callable[..., BatchSampler]] = [
    lambda **places: ShuffledBatches(25, 3, **places),
    lambda **places: AspectBatches(ASPECTS, 2, **places),
    lambda **places: PKBatchSampler(IDS, p=2, k=3, **places),
    lambda **places: BalancedBatches((5, 30), 4, length=7, **places),
    lambda **places: JoinedBatches([ShuffledBatches(5, 2), PKBatchSampler(IDS, 2, 2)], (5, len(IDS)), length=6, **places),
]
every_kind = pytest.mark.parametrize("make", KINDS)


def items(batches: BatchSampler) -> list[list[int]]:
    return [[draw.item for draw in batch] for batch in batches]


@every_kind
def test_same_seed_same_order_and_another_one_each_epoch(make: Callable[..., BatchSampler]) -> None:
    first = [list(make(seed=3).start_at(epoch)) for epoch in (0, 1)]
    again = [list(make(seed=3).start_at(epoch)) for epoch in (0, 1)]
    assert first == again
    assert first[0] != first[1] and first[0] != list(make(seed=4))
    assert len(first[0]) == len(first[1]) == len(make(seed=3))
    draws = [draw for epoch in first for batch in epoch for draw in batch]
    assert len({draw.seed for draw in draws}) == len(draws), "no two augmentations are alike"


@every_kind
def test_a_stopped_run_goes_on(make: Callable[..., BatchSampler]) -> None:
    whole = list(make(seed=1).start_at(2))
    for done in range(len(whole) + 1):
        assert list(make(seed=1).start_at(2, done)) == whole[done:]


@every_kind
def test_processes_share_the_batches(make: Callable[..., BatchSampler]) -> None:
    alone = list(make(seed=5))
    for world_size in (2, 3):
        shared = [list(make(seed=5, rank=rank, world_size=world_size)) for rank in range(world_size)]
        assert len({len(each) for each in shared}) == 1
        if not isinstance(make(seed=5), BalancedBatches | JoinedBatches):  # their length is that of each process
            together = [batch for step in zip(*shared, strict=True) for batch in step]
            assert together == alone[: len(together)] and len(alone) - len(together) < world_size


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_image_once(count: int, batch_size: int, seed: int) -> None:
    if batch_size > count:
        with pytest.raises(ArgumentError, match="do not fill a batch"):
            ShuffledBatches(count, batch_size, seed=seed)
        return
    for kind in (
        ShuffledBatches(count, batch_size, seed=seed),
        AspectBatches(np.linspace(0.2, 3, count), batch_size, seed=seed),
    ):
        batches = items(kind)
        seen = Counter(item for batch in batches for item in batch)
        assert max(seen.values()) == 1 and len(seen) == count // batch_size * batch_size
        assert all(len(batch) == batch_size for batch in batches)


def test_aspects_keep_apart_but_for_the_odd_ones() -> None:
    mixed = sum(len({ASPECTS[item] < 1 for item in batch}) > 1 for batch in items(AspectBatches(ASPECTS, 2)))
    assert mixed <= 1


def test_people_and_shots() -> None:
    batches = PKBatchSampler(IDS, p=2, k=3, seed=0)
    people_of = [[IDS[item] for item in batch] for batch in items(batches)]
    assert len(batches) == len(people_of) == 3  # seven people
    assert all(sorted(Counter(people).values()) == [3, 3] for people in people_of)
    assert max(Counter(person for people in people_of for person in set(people)).values()) == 1, "once an epoch"
    assert -1 not in {person for people in people_of for person in people}
    for batch in items(batches):
        counts = Counter(batch)
        for item, count in counts.items():
            assert count <= -(-3 // IDS.count(IDS[item])), "no image of a person again before the person's other images"


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    batch_size=st.integers(1, 9),
    length=st.integers(1, 12),
    data=st.data(),
)
def test_shares_hold(sizes: list[int], batch_size: int, length: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=len(sizes), max_size=len(sizes)))
    batches = items(BalancedBatches(sizes, batch_size, length=length, weights=weights))
    assert [len(batch) for batch in batches] == [batch_size] * length
    borders = np.cumsum(sizes)
    which = np.searchsorted(borders, [item for batch in batches for item in batch], side="right")
    wanted = np.array(weights) / sum(weights) * batch_size * length
    assert np.abs(np.bincount(which, minlength=len(sizes)) - wanted).max() <= 1 + 1e-6
    for each in range(len(sizes)):
        seen = Counter(item for batch in batches for item in batch if np.searchsorted(borders, item, side="right") == each)
        if seen:
            lacking = sizes[each] - len(seen)
            assert max(seen.values()) - (0 if lacking else min(seen.values())) <= 1, "in turns"


def test_joined_batches_hold_a_batch_of_each() -> None:
    batches = items(JoinedBatches([ShuffledBatches(5, 2), PKBatchSampler(IDS, 2, 2)], (5, len(IDS)), seed=2))
    assert len(batches) == 3, "the longer part's"
    for batch in batches:
        assert [item < 5 for item in batch] == [True, True, False, False, False, False]
        assert sorted(Counter(IDS[item - 5] for item in batch[2:]).values()) == [2, 2]
    seen = [item for batch in batches[:2] for item in batch[:2]]
    assert len(set(seen)) == 4, "no scene again before its epoch ends"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShuffledBatches(0, 1), "0 images do not fill"),
        (lambda: ShuffledBatches(5, 0), "batch of 0"),
        (lambda: ShuffledBatches(5, 1, seed=-1), "seed=-1"),
        (lambda: PKBatchSampler([0, 0, 1], p=0, k=2), "p=0"),
        (lambda: PKBatchSampler([0, 0, 1], p=2, k=0), "k=0"),
        (lambda: BalancedBatches((4, 4), 0), "batch_size=0"),
        (lambda: JoinedBatches([ShuffledBatches(4, 2)], (4, 5)), "give one size for each part"),
        (lambda: BalancedBatches((4, 4), 2, length=0), "length=0"),
        (lambda: PKBatchSampler([0, 0, 0], p=1, k=2), "1 identities with images"),
        (lambda: PKBatchSampler([-1, -1], p=2, k=2), "0 identities with images"),
        (lambda: BalancedBatches((4, 0), 2), "at least one"),
        (lambda: BalancedBatches((4, 4), 2, weights=(1, 0)), "above 0"),
        (lambda: BalancedBatches((4, 4), 2, weights=(1,)), "each data set needs a weight above 0"),
        (lambda: ShuffledBatches(5, 1, rank=2, world_size=2), "from 0 to 1"),
    ],
)
def test_what_cannot_be(make: Callable[[], BatchSampler], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
