"""Synthetic person search: each planned person is in the scene once, and is found again in another camera."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data import UNLABELLED, SearchSet
from pretrainps.errors import ArgumentError
from pretrainps.synthetic import (
    DOMAINS,
    FIRST_TEST_PERSON,
    SearchPlan,
    detection_split,
    plan_search,
    search_scenes,
    search_set,
    search_test,
    search_train,
)


@pytest.fixture(scope="module")
def campus() -> SearchSet:
    return search_test("search_campus", range(10), appearances=4, seed=1)


@pytest.fixture(scope="module")
def album() -> SearchSet:
    domain = replace(DOMAINS["search_album"], cameras=6)
    return search_test(domain, range(8), appearances=4, list_sizes=(5, 8), seed=1)


@settings(max_examples=60)
@given(
    count=st.integers(1, 40),
    appearances=st.integers(2, 12),
    seed=st.integers(0, 50),
    cameras=st.integers(2, 9),
    split=st.sampled_from(["train", "test"]),
)
def test_plans(count: int, appearances: int, seed: int, cameras: int, split: str) -> None:
    domain = replace(DOMAINS["search_campus"], cameras=cameras)
    plan = plan_search(domain, range(count), split=split, appearances=appearances, seed=seed)  # type: ignore[arg-type]
    times = Counter(number for scene in plan.scenes for number in scene.people)
    assert times == dict.fromkeys(plan.people, appearances)
    for scene in plan.scenes:
        assert scene.people and len(set(scene.people)) == len(scene.people), "no person twice in a scene"
    for number in plan.people:
        seen_by = {scene.camera for scene in plan.scenes if number in scene.people}
        assert 2 <= len(seen_by) <= 4 and seen_by <= set(range(cameras))
    names = [plan.name_of(scene) for scene in plan.scenes]
    assert len(set(names)) == len(names)


def test_training_and_test_share_nobody_and_no_name() -> None:
    for domain in ("search_campus", "search_album"):
        train, test = (plan_search(domain, range(30), split=split) for split in ("train", "test"))  # type: ignore[arg-type]
        assert not set(train.people) & set(test.people) and not set(train.identities) & set(test.identities)
        assert not {train.name_of(s) for s in train.scenes} & {test.name_of(s) for s in test.scenes}


def digest(*values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def planned(plan: SearchPlan) -> list[object]:
    return [(scene.index, scene.camera, scene.people, plan.name_of(scene)) for scene in plan.scenes]


@pytest.mark.parametrize(
    ("domain", "people", "split", "expected"),
    [
        ("search_station", 80, "test", "43804c9cf4d96096"),
        ("search_campus", 80, "test", "7f1e21557fdc8d37"),
        ("search_station", 1, "train", "0e8702d690a8e583"),
        ("search_album", 40, "train", "8b1b9c00d6bc01fc"),
    ],
)
def test_sets_from_person_0_on_are_those_of_earlier_versions(
    domain: str, people: int, split: Literal["train", "test"], expected: str
) -> None:
    """Published measurements keep their data sets. The digests are of version 749f621."""
    plan = plan_search(domain, range(people), split=split)
    assert hashlib.sha256(repr(planned(plan)).encode()).hexdigest()[:16] == expected


def test_scenes_and_queries_from_person_0_on_are_those_of_earlier_versions() -> None:
    test = search_test("search_station", range(6), appearances=2)
    seen = [(sample.name, sample.boxes.tolist(), sample.ids.tolist(), sample.camera) for sample in test.gallery.samples]
    asked = [(query.sample.name, query.box.tolist(), query.id) for query in test.queries]
    assert digest(seen, asked) == "3656dcf625e0f7a3"


@settings(max_examples=60)
@given(
    first=st.integers(0, 500),
    gap=st.integers(0, 500),
    count=st.integers(6, 40),
    appearances=st.integers(2, 8),
    seed=st.integers(0, 50),
    split=st.sampled_from(["train", "test"]),
)
def test_disjoint_people_are_planned_apart_and_the_same_people_alike(
    first: int, gap: int, count: int, appearances: int, seed: int, split: Literal["train", "test"]
) -> None:
    def plan_from(start: int) -> SearchPlan:
        return plan_search("search_station", range(start, start + count), split=split, appearances=appearances, seed=seed)

    def by_place(plan: SearchPlan) -> list[object]:
        return [(scene.camera, [plan.people.index(number) for number in scene.people]) for scene in plan.scenes]

    one, other = plan_from(first), plan_from(first + count + gap)
    assert not set(one.people) & set(other.people) and one.part != other.part
    assert by_place(one) != by_place(other), "the same scenes with other people in them are no other set"
    assert plan_from(first) == one and planned(plan_from(first)) == planned(one)


@pytest.mark.parametrize(
    ("domain", "split", "one", "other"),
    [
        ("search_station", "test", range(6), range(6, 12)),
        ("search_campus", "test", range(80, 86), range(160, 166)),
        ("search_station", "train", range(6), range(6, 12)),
        ("search_station", "test", [0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]),
        ("search_station", "test", range(6), range(6, 20)),
    ],
    ids=["test and validation", "two validations", "training", "every other person", "other counts"],
)
def test_disjoint_people_share_cameras_and_nothing_that_is_before_them(
    domain: str, split: Literal["train", "test"], one: range, other: range
) -> None:
    """Scene by scene, because a scene's random numbers once depended only on its position in the list."""
    plans = [plan_search(domain, people, split=split, appearances=2) for people in (one, other)]
    pairs = list(zip(*(search_scenes(plan) for plan in plans), strict=False))
    assert len(pairs) >= 4
    for mine, yours in pairs:
        boxes, others = ({tuple(box) for box in sample.boxes.tolist()} for sample in (mine, yours))
        assert not boxes & others, "passers-by and people with a name stand elsewhere"
        assert isinstance(mine.image, np.ndarray) and isinstance(yours.image, np.ndarray)
        assert (mine.image == yours.image).all(axis=2).mean() < 0.2, "and the light is another"
    assert {mine.camera for mine, _ in pairs} & {yours.camera for _, yours in pairs}, "in front of the same cameras"


def test_queries_of_disjoint_people_are_chosen_apart() -> None:
    """Scenes without images, with all people in the same place: only the random numbers of the queries can differ."""
    plans = [plan_search("search_station", range(first, first + 30), split="test") for first in (0, 30)]
    template = search_test("search_station", range(1), appearances=2).gallery.samples[0]
    chosen = []
    for plan in plans:
        twin = replace(plan, scenes=plans[0].scenes)
        samples = [
            replace(
                template,
                boxes=np.tile(np.array([[4.0, 4, 20, 60]], np.float32), (len(scene.people), 1)),
                visible=None,
                ids=np.array([plans[0].people.index(number) for number in scene.people], np.int64),
            )
            for scene in plans[0].scenes
        ]
        found = search_set(twin, samples)
        chosen.append([next(i for i, sample in enumerate(samples) if sample is query.sample) for query in found.queries])
    assert len(chosen[0]) == len(chosen[1]) == 30 and chosen[0] != chosen[1]


def test_detection_scenes_go_on_from_any_index() -> None:
    known = detection_split("det_yard", 3, name="val")
    fresh = detection_split("det_yard", 2, first=1, name="val")
    assert [sample.name for sample in fresh.samples] == [sample.name for sample in known.samples[1:]]
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(fresh.samples, known.samples[1:], strict=True))
    with pytest.raises(ArgumentError, match="first=-1: scenes are numbered from 0"):
        detection_split("det_yard", 1, first=-1)


def test_names_are_those_of_the_layouts(campus: SearchSet, album: SearchSet) -> None:
    for index, sample in enumerate(campus.gallery.samples):
        assert sample.name == f"c{sample.camera}s2_{index:06d}.jpg"
    assert campus.gallery.cameras and set(campus.gallery.cameras) <= set(range(1, 7))
    assert [sample.name for sample in album.gallery.samples[:2]] == ["s2.jpg", "s4.jpg"]
    assert album.gallery.cameras == ()
    assert campus.gallery.identities[0] == str(FIRST_TEST_PERSON + 1)


def test_who_is_planned_is_there(campus: SearchSet) -> None:
    gallery = campus.gallery
    plan = plan_search("search_campus", range(10), split="test", appearances=4, seed=1)
    found = planned = 0
    for sample, scene in zip(gallery.samples, plan.scenes, strict=True):
        ids = sample.ids[sample.ids != UNLABELLED].tolist()
        assert len(set(ids)) == len(ids)
        assert {plan.people[identity] for identity in ids} <= set(scene.people)
        found, planned = found + len(ids), planned + len(scene.people)
    assert planned == 40 and found >= 32, "few are hidden"
    assert any(UNLABELLED in sample.ids for sample in gallery.samples), "and others pass by"


@pytest.mark.parametrize("which", ["campus", "album"])
def test_queries_have_a_match_in_another_camera(which: str, request: pytest.FixtureRequest) -> None:
    search: SearchSet = request.getfixturevalue(which)
    domain = search.gallery.dataset
    cameras, people = (6, 10) if which == "campus" else (6, 8)
    plan = plan_search(replace(DOMAINS[domain], cameras=cameras), range(people), split="test", appearances=4, seed=1)
    assert [query.id for query in search.queries] == list(range(people)) and search.gallery.notes == ()
    camera_of = {plan.name_of(scene): scene.camera for scene in plan.scenes}  # the album's samples do not say it
    for query in search.queries:
        assert any(query.sample is sample for sample in search.gallery.samples)
        (row,) = np.flatnonzero(query.sample.ids == query.id)
        assert np.array_equal(query.box, query.sample.boxes[row])
        others = {camera_of[sample.name] for sample in search.gallery.samples if query.id in sample.ids}
        assert others - {camera_of[query.sample.name]}


def test_lists_hold_matches_first(album: SearchSet) -> None:
    samples = album.gallery.samples
    assert set(album.lists) == {5, 8}
    for size, lists in album.lists.items():
        assert len(lists) == len(album.queries)
        for query, listed in zip(album.queries, lists, strict=True):
            assert listed.frames.shape == (size,) and listed.boxes.shape == (size, 4)
            shown = [samples[frame] for frame in listed.frames]
            assert query.sample.name not in {sample.name for sample in shown}
            assert len({sample.name for sample in shown}) == size
            there = ~np.isnan(listed.boxes).any(axis=1)
            assert np.array_equal(there, np.arange(size) < there.sum()) and 1 <= there.sum() <= 3
            for sample, box, present in zip(shown, listed.boxes, there, strict=True):
                assert (query.id in sample.ids) == present
                if present:
                    assert np.array_equal(sample.boxes[sample.ids == query.id][0], box) and np.array_equal(box, box.round())


def test_scenes_one_by_one_make_the_same_set(campus: SearchSet) -> None:
    plan = plan_search("search_campus", range(10), split="test", appearances=4, seed=1)
    samples = [replace(sample, image=np.zeros((1, 1, 3), np.uint8)) for sample in search_scenes(plan)]  # as if written to files
    again = search_set(plan, samples)
    assert [(q.id, q.sample.name) for q in again.queries] == [(q.id, q.sample.name) for q in campus.queries]
    assert all(np.array_equal(a.box, b.box) for a, b in zip(again.queries, campus.queries, strict=True))


def test_who_is_seen_by_one_camera_has_no_query(campus: SearchSet) -> None:
    """Paint over a person in all scenes except those of one camera."""
    plan = plan_search("search_campus", range(10), split="test", appearances=4, seed=1)
    first = min(scene.camera for scene in plan.scenes if plan.people[0] in scene.people)
    samples = []
    for sample, scene in zip(campus.gallery.samples, plan.scenes, strict=True):
        hidden = (sample.ids == 0) & (scene.camera != first)
        samples.append(replace(sample, ids=np.where(hidden, UNLABELLED, sample.ids)))
    search = search_set(plan, samples)
    assert [query.id for query in search.queries] == list(range(1, 10))
    assert search.gallery.notes == ("1 people have no query: they are seen by one camera only.",)


def test_training_people_are_numbered_without_gaps() -> None:
    split = search_train("search_campus", [4, 2], appearances=2)
    assert split.identities == ("5", "3") and split.task == "search"
    assert set(np.concatenate([sample.ids for sample in split.samples])) == {UNLABELLED, 0, 1}


def test_what_cannot_be_searched_is_refused(campus: SearchSet) -> None:
    with pytest.raises(ArgumentError, match="at least 2 times"):
        search_train("search_campus", range(3), appearances=1)
    with pytest.raises(ArgumentError, match="has 1 camera"):
        search_train(replace(DOMAINS["search_campus"], cameras=1), range(3))
    with pytest.raises(ArgumentError, match="must be below 1000000"):
        search_test("search_campus", [FIRST_TEST_PERSON])
    plan = plan_search("search_campus", range(10), split="test", appearances=4, seed=1)
    for size in (1, 500):
        with pytest.raises(ArgumentError, match=f"a list of {size} scenes is not possible"):
            search_set(plan, campus.gallery.samples, list_sizes=[size])
