"""The training and test data of `evidence.py`: a separate synthetic world for every seed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import torch
from evidence_recipes import Scale
from evidence_table import alone

from pretrainps.data.records import Query, SearchSet, Split
from pretrainps.synthetic import detection_split, find_domain, plan_search, reid_split, search_scenes, search_set

DETECTION = ("det_street", "det_crowd", "det_yard")
REID = ("reid_market", "reid_hall", "reid_city")
TARGET = "search_campus"


@dataclass(frozen=True, slots=True)
class World:
    """The data of one seed."""

    detection: dict[str, Split]
    reid: dict[str, Split]
    target: Split
    test: SearchSet

    @staticmethod
    def draw(scale: Scale, seed: int, folder: Path, processes: int = 1) -> Path:
        """Draw all data, unless they exist already, and return their file."""
        path = folder / f"world-{seed}.pickle"  # written by this benchmark itself
        with alone(path.with_suffix(".lock")):
            if not path.exists():
                with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                    detection = {name: pool.submit(_detection, scale, name, seed) for name in DETECTION}
                    reid = {name: pool.submit(_reid, scale, name, seed) for name in REID}
                    target, test = pool.submit(_target, scale, seed), pool.submit(searched, scale, seed)
                    world = World(_drawn(detection), _drawn(reid), target.result(), test.result())
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_bytes(pickle.dumps(world))
                unfinished.rename(path)
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the drawn data."""
        with path.open("rb") as file:
            world: Self = pickle.load(file)
        return world

    def part(self, share: int, seed: int) -> Split:
        """Return a random share (in percent) of the target's training scenes; people who are in none of them are left out."""
        order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = sorted(order[: max(2, len(order) * share // 100)])
        samples = [self.target.samples[index] for index in chosen]
        left = sorted({int(each) for sample in samples for each in sample.ids if each >= 0})
        number = {old: new for new, old in enumerate(left)} | {-1: -1}
        renumbered = [replace(each, ids=each.ids.copy()) for each in samples]
        for sample in renumbered:
            sample.ids[:] = [number[int(each)] for each in sample.ids]
        names = tuple(self.target.identities[each] for each in left)
        return replace(self.target, samples=tuple(renumbered), identities=names)


def _drawn(splits: Mapping[str, Future[Split]]) -> dict[str, Split]:
    return {name: each.result() for name, each in splits.items()}


def _detection(scale: Scale, name: str, seed: int) -> Split:
    return detection_split(_sized(name, scale), scale.scenes, seed=seed)


def _reid(scale: Scale, name: str, seed: int) -> Split:
    return reid_split(name, range(scale.people), shots=scale.shots, seed=seed, size=scale.crop)


def _target(scale: Scale, seed: int) -> Split:
    plan = plan_search(_sized(TARGET, scale), range(scale.target_people), split="train", seed=seed)
    scenes = tuple(search_scenes(plan))
    return Split(dataset=TARGET, name="train", task="search", samples=scenes, identities=plan.identities)


def searched(scale: Scale, seed: int, *, validation: bool = False) -> SearchSet:
    """Draw the target's test, or a validation set: as many other people in other scenes of the same cameras.

    Every appearance of a labelled person is a query: more queries measure the same with less noise than one for each person.
    """
    first = scale.test_people if validation else 0
    plan = plan_search(_sized(TARGET, scale), range(first, first + scale.test_people), split="test", seed=seed)
    test = search_set(plan, tuple(search_scenes(plan)))
    queries = [
        Query(sample=sample, box=box, id=int(identity))
        for sample in test.gallery.samples
        for box, identity in zip(sample.boxes, sample.ids, strict=True)
        if identity >= 0
    ]
    return replace(test, queries=queries)


def _sized(domain: str, scale: Scale) -> Any:
    return replace(find_domain(domain), size=scale.drawn)
