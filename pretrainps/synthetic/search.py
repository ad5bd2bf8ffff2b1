"""Data sets for person search: the same people in scenes of several cameras, among unlabelled passers-by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from pretrainps.data.records import UNLABELLED, GalleryList, Query, Sample, SearchSet, Split, as_boxes
from pretrainps.errors import ArgumentError
from pretrainps.synthetic.domains import Domain
from pretrainps.synthetic.generation import generate
from pretrainps.synthetic.scene import draw_scene
from pretrainps.synthetic.sets import as_domain, as_numbers, known_camera
from pretrainps.synthetic.streams import Stream

FIRST_TEST_PERSON = 1_000_000
"""The world's number of person 0 of a test, so that training and test never share a person."""

_TOGETHER = 2.2
"""Average number of labelled people in a scene."""
_CLEAR = 0.7
"""Share of a person's box that must be visible for a good query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedScene:
    """A scene of a person-search data set before it is drawn."""

    index: int
    camera: int
    people: tuple[int, ...]
    """World numbers of the labelled people in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """The people of each scene of a person-search data set. With it, scenes can be drawn one by one, in any order."""

    domain: Domain
    seed: int
    split: Literal["train", "test"]
    people: tuple[int, ...]
    """World numbers of the people; the ids 0, 1, 2, ... are positions in this tuple."""
    scenes: tuple[PlannedScene, ...]

    @property
    def part(self) -> str:
        """Part of the key of this set's random numbers, besides seed and domain; sets without a common person differ in it."""
        return _part(self.split, self.people)

    @property
    def identities(self) -> tuple[str, ...]:
        """Names of the people 0, 1, 2, ...: numbers from 1, as in PRW."""
        return tuple(str(number + 1) for number in self.people)

    def name_of(self, scene: PlannedScene) -> str:
        """Return the name of a scene, in the style of PRW or CUHK-SYSU; training and test never share a name."""
        test = self.split == "test"
        if self.domain.tells_cameras:
            return f"c{scene.camera + 1}s{1 + test}_{scene.index:06d}.jpg"
        return f"s{2 * scene.index + 1 + test}.jpg"


def plan_search(
    domain: Domain | str,
    identities: Sequence[int],
    *,
    split: Literal["train", "test"],
    appearances: int = 6,
    seed: int = 0,
) -> SearchPlan:
    """Plan a data set for person search.

    Each person is seen by 2 to 4 cameras, and is in a scene at most once.

    Two sets without a common person share only the cameras. The arrangement of people, the passers-by and the light in each
    scene depend on the split and on the lowest number of the people. So people 80 to 159 can be a validation set for a test
    on people 0 to 79.

    Args:
        domain: The domain, or its name.
        identities: Numbers of the people, from 0. The same number is one person in training and another person in a test.
        split: "train" or "test".
        appearances: Number of scenes for each person.
        seed: Seed of the world.

    Raises:
        ArgumentError: there is no such domain; no people, or one comes twice; or a number is too small.
    """
    place, numbers = as_domain(domain), as_numbers(identities)
    if appearances < 2:
        raise ArgumentError(f"appearances={appearances}: to be found again, a person must be seen at least 2 times.")
    if place.cameras < 2:
        raise ArgumentError(f"{place.name} has {place.cameras} camera: to find people again, at least 2 are needed.")
    if max(numbers) >= FIRST_TEST_PERSON:
        raise ArgumentError(f"identities holds {max(numbers)}: numbers of people must be below {FIRST_TEST_PERSON}.")
    people = tuple(number + FIRST_TEST_PERSON if split == "test" else number for number in numbers)
    stream = Stream("plan", seed, place.name, _part(split, people), len(people), appearances)
    seen_by: list[list[int]] = [[] for _ in range(place.cameras)]
    for number in people:
        cameras = stream.shuffled(range(place.cameras))[: 2 + stream.below(3)]
        for appearance in range(appearances):
            seen_by[cameras[appearance % len(cameras)]].append(number)
    groups = [(camera, group) for camera, crowd in enumerate(seen_by) for group in _groups(stream, crowd)]
    scenes = tuple(PlannedScene(index=index, camera=camera, people=group) for index, (camera, group) in enumerate(groups))
    return SearchPlan(domain=place, seed=seed, split=split, people=people, scenes=scenes)


def _part(split: str, people: Sequence[int]) -> str:
    """Return the key of a set's random numbers: split and lowest number of a person, which differs between disjoint sets."""
    first = min(people) - (FIRST_TEST_PERSON if split == "test" else 0)
    return f"{split} from {first}" if first else split  # sets that start at person 0 keep the key of earlier versions


def _groups(stream: Stream, crowd: list[int]) -> Iterator[tuple[int, ...]]:
    """Distribute the people of one camera to scenes, each at most once in a scene."""
    waiting = stream.shuffled(crowd)
    while waiting:
        most = 1 + int(stream.uniform(0, 2 * _TOGETHER - 1))
        group: list[int] = []
        rest: list[int] = []
        for number in waiting:
            (group if len(group) < most and number not in group else rest).append(number)
        yield tuple(group)
        waiting = rest


def search_scenes(plan: SearchPlan, *, workers: int = 1, progress: bool = False) -> Iterator[Sample]:
    """Draw the scenes of a plan one by one.

    Args:
        plan: The plan.
        workers: Number of processes that draw; see `generate`.
        progress: Whether to show a progress bar.
    """
    ids = {number: place for place, number in enumerate(plan.people)}
    jobs = [(plan.name_of(scene), scene, tuple(ids[number] for number in scene.people)) for scene in plan.scenes]
    make = partial(_scene, plan.domain, plan.seed, plan.part)
    return generate(make, jobs, workers=workers, progress=progress)


def _scene(domain: Domain, seed: int, part: str, job: tuple[str, PlannedScene, tuple[int, ...]]) -> Sample:
    name, planned, ids = job
    scene = draw_scene(domain, seed=seed, split=part, index=planned.index, camera=planned.camera, people=planned.people)
    id_of = {UNLABELLED: UNLABELLED, **dict(zip(planned.people, ids, strict=True))}
    return Sample(
        name=name,
        image=scene.pixels,
        boxes=scene.boxes,
        ids=np.array([id_of[int(number)] for number in scene.numbers], dtype=np.int64),
        ignore=scene.ignore,
        visible=scene.visible,
        camera=known_camera(domain, scene.camera),
        size=domain.size,
    )


def search_train(
    domain: Domain | str,
    identities: Sequence[int],
    *,
    appearances: int = 6,
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> Split:
    """Draw a training set for person search. All scenes are held in memory; `search_scenes` yields them one by one.

    Args and errors are those of `plan_search` and `search_scenes`.
    """
    plan = plan_search(domain, identities, split="train", appearances=appearances, seed=seed)
    return _split(plan, tuple(search_scenes(plan, workers=workers, progress=progress)))


def search_test(
    domain: Domain | str,
    identities: Sequence[int],
    *,
    appearances: int = 6,
    list_sizes: Sequence[int] = (),
    seed: int = 0,
    workers: int = 1,
    progress: bool = False,
) -> SearchSet:
    """Draw a gallery of scenes, and choose queries from it. All scenes are held in memory.

    Args and errors are those of `plan_search`, `search_scenes` and `search_set`.

    Example:
        >>> test = search_test("search_campus", range(4), appearances=3)
        >>> sorted({query.id for query in test.queries})
        [0, 1, 2, 3]
    """
    plan = plan_search(domain, identities, split="test", appearances=appearances, seed=seed)
    return search_set(plan, tuple(search_scenes(plan, workers=workers, progress=progress)), list_sizes=list_sizes)


def search_set(plan: SearchPlan, samples: Sequence[Sample], *, list_sizes: Sequence[int] = ()) -> SearchSet:
    """Choose queries from drawn scenes: one for each person who is also seen by another camera.

    Args:
        plan: The plan of the scenes.
        samples: One for each planned scene, in order; their images may have been written to files.
        list_sizes: Sizes of galleries for each query alone: the other scenes with the person, then scenes without.

    Raises:
        ArgumentError: a size is less than the number of a person's scenes, or more than that of all scenes.
    """
    stream = Stream("queries", plan.seed, plan.domain.name, plan.part)
    seen: dict[int, list[tuple[int, int]]] = {identity: [] for identity in range(len(plan.people))}
    for index, sample in enumerate(samples):
        for row, identity in enumerate(sample.ids.tolist()):
            if identity != UNLABELLED:
                seen[identity].append((index, row))
    queries: list[Query] = []
    lists: dict[int, list[GalleryList]] = {size: [] for size in list_sizes}
    for identity, places in seen.items():
        if len({plan.scenes[index].camera for index, _ in places}) < 2:
            continue
        clear = [(index, row) for index, row in places if _visible_share(samples[index], row) >= _CLEAR]
        chosen, row = stream.choice(clear or places)
        queries.append(Query(sample=samples[chosen], box=samples[chosen].boxes[row], id=identity))
        matches = [(index, row) for index, row in places if index != chosen]
        others = [scene.index for scene in plan.scenes if plan.people[identity] not in scene.people]
        for size, made in lists.items():
            made.append(_list(samples, matches, others, size, stream))
    unseen = len(seen) - len(queries)
    notes = (f"{unseen} people have no query: they are seen by one camera only.",) if unseen else ()
    return SearchSet(gallery=_split(plan, samples, notes), queries=tuple(queries), lists=lists)


def _list(
    samples: Sequence[Sample], matches: Sequence[tuple[int, int]], others: Sequence[int], size: int, stream: Stream
) -> GalleryList:
    """Return the gallery of one query: the scenes with the person first, then some without."""
    if not len(matches) <= size <= len(matches) + len(others):
        raise ArgumentError(
            f"a list of {size} scenes is not possible: one person is in {len(matches)} scenes besides the query's, and "
            f"{len(others)} scenes are without that person. Choose a size between, or draw more people."
        )
    without = stream.shuffled(others)[: size - len(matches)]
    frames = np.array([index for index, _ in matches] + without, dtype=np.int64)
    boxes = np.full((size, 4), np.nan, dtype=np.float32)
    boxes[: len(matches)] = as_boxes([samples[index].boxes[row] for index, row in matches])
    return GalleryList(frames=frames, boxes=boxes)


def _visible_share(sample: Sample, row: int) -> float:
    """Return the area of a person's visible box as a share of the whole box."""
    if sample.visible is None:
        return 1.0
    full, visible = sample.boxes[row], sample.visible[row]
    return float(np.prod(visible[2:] - visible[:2]) / np.prod(full[2:] - full[:2]))


def _split(plan: SearchPlan, samples: Sequence[Sample], notes: tuple[str, ...] = ()) -> Split:
    return Split(
        dataset=plan.domain.name,
        name=plan.split,
        task="search",
        samples=samples,
        identities=plan.identities,
        notes=notes,
    )
