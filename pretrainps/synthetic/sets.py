"""Data sets of one task: scenes with boxes for detection, crops with identities for re-ID."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.errors import ArgumentError
from pretrainps.synthetic.crop import cameras_of, draw_crop
from pretrainps.synthetic.domains import Domain, find_domain
from pretrainps.synthetic.generation import generate
from pretrainps.synthetic.scene import draw_scene


def scenes(
    domain: Domain | str,
    count: int,
    *,
    first: int = 0,
    seed: int = 0,
    name: str = "train",
    workers: int = 1,
    progress: bool = False,
) -> Iterator[Sample]:
    """Draw scenes with boxes and without identities, one by one.

    A scene depends only on the world's seed, the domain, the name of the split and its own index.

    Args:
        domain: The domain, or its name.
        count: Number of scenes.
        first: Index of the first scene; scenes of other indices show other people in front of the same cameras.
        seed: Seed of the world.
        name: Name of the split; another name gives other scenes of the same cameras.
        workers: Number of processes that draw; see `generate`.
        progress: Whether to show a progress bar.

    Raises:
        ArgumentError: there is no such domain; `count` or `workers` is below 1; or `first` is below 0.
    """
    place = as_domain(domain)
    if count < 1:
        raise ArgumentError(f"count={count}: ask for at least 1 scene.")
    if first < 0:
        raise ArgumentError(f"first={first}: scenes are numbered from 0.")
    indices = range(first, first + count)
    return generate(partial(_scene, place, seed, name), indices, workers=workers, progress=progress)


def detection_split(
    domain: Domain | str,
    count: int,
    *,
    first: int = 0,
    seed: int = 0,
    name: str = "train",
    workers: int = 1,
    progress: bool = False,
) -> Split:
    """Draw a data set for person detection. All of it is held in memory; `scenes` yields one scene after the other.

    Args and errors are those of `scenes`.

    Example:
        >>> split = detection_split("det_street", 2)
        >>> [sample.name for sample in split.samples]
        ['det_street_train_000000.jpg', 'det_street_train_000001.jpg']
    """
    place = as_domain(domain)
    samples = tuple(scenes(place, count, first=first, seed=seed, name=name, workers=workers, progress=progress))
    return Split(dataset=place.name, name=name, task="detection", samples=samples)


def _scene(domain: Domain, seed: int, split: str, index: int) -> Sample:
    scene = draw_scene(domain, seed=seed, split=split, index=index)
    return Sample(
        name=f"{domain.name}_{split}_{index:06d}.jpg",
        image=scene.pixels,
        boxes=scene.boxes,
        ids=np.full(len(scene.boxes), UNLABELLED, dtype=np.int64),
        ignore=scene.ignore,
        visible=scene.visible,
        camera=known_camera(domain, scene.camera),
        size=domain.size,
    )


class _Shot(NamedTuple):
    """A crop to draw."""

    id: int
    number: int
    camera: int
    shot: int


def crops(
    domain: Domain | str,
    identities: Sequence[int],
    *,
    cameras_per_identity: int = 3,
    shots: int = 3,
    seed: int = 0,
    name: str = "train",
    size: tuple[int, int] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Iterator[Sample]:
    """Draw re-ID crops one by one, ordered by person and camera.

    A person has the same look and the same cameras in every split, but other images. So the queries of a test are
    `name="query", shots=1`, and its gallery is the same people with `name="gallery"`.

    Args:
        domain: The domain, or its name.
        identities: Numbers of the people in the domain, from 0.
        cameras_per_identity: Number of cameras for each person; all cameras of the domain, if it has fewer.
        shots: Images by each of these cameras.
        seed: Seed of the world.
        name: Name of the split.
        size: Height and width to resize crops to; by default they keep their size.
        workers: Number of processes that draw; see `generate`.
        progress: Whether to show a progress bar.

    Raises:
        ArgumentError: there is no such domain; no people, or one comes twice; or a number is too small.
    """
    place, numbers = as_domain(domain), as_numbers(identities)
    if cameras_per_identity < 1 or shots < 1:
        raise ArgumentError(f"cameras_per_identity={cameras_per_identity}, shots={shots}: both must be 1 or more.")
    jobs = [
        _Shot(identity, number, camera, shot)
        for identity, number in enumerate(numbers)
        for camera in cameras_of(place, seed, number, cameras_per_identity)
        for shot in range(shots)
    ]
    return generate(partial(_crop, place, seed, name, size), jobs, workers=workers, progress=progress, unit="crop")


def reid_split(
    domain: Domain | str,
    identities: Sequence[int],
    *,
    cameras_per_identity: int = 3,
    shots: int = 3,
    seed: int = 0,
    name: str = "train",
    size: tuple[int, int] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Split:
    """Draw a data set for re-ID. All of it is held in memory; `crops` yields one crop after the other.

    Args and errors are those of `crops`. The ids 0, 1, 2, ... are positions in `identities`.

    Example:
        >>> split = reid_split("reid_market", range(2), cameras_per_identity=2, shots=1)
        >>> [(sample.name, int(sample.ids[0]), sample.camera) for sample in split.samples][0]
        ('0001_c1s1_000000_00.jpg', 0, 1)
    """
    place = as_domain(domain)
    samples = crops(
        place,
        identities,
        cameras_per_identity=cameras_per_identity,
        shots=shots,
        seed=seed,
        name=name,
        size=size,
        workers=workers,
        progress=progress,
    )
    people = tuple(_person_name(number) for number in identities)
    return Split(dataset=place.name, name=name, task="reid", samples=tuple(samples), identities=people)


def _crop(domain: Domain, seed: int, split: str, size: tuple[int, int] | None, shot: _Shot) -> Sample:
    pixels = draw_crop(domain, seed=seed, split=split, number=shot.number, camera=shot.camera, shot=shot.shot, size=size)
    return Sample(
        name=f"{_person_name(shot.number)}_c{shot.camera + 1}s1_{shot.shot:06d}_00.jpg",
        image=pixels,
        boxes=Sample.whole(),
        ids=np.array([shot.id], dtype=np.int64),
        camera=known_camera(domain, shot.camera),
        size=(pixels.shape[0], pixels.shape[1]),
    )


def as_domain(domain: Domain | str) -> Domain:
    """Return a domain, given as such or by name."""
    return find_domain(domain) if isinstance(domain, str) else domain


def as_numbers(identities: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of people after a check.

    Raises:
        ArgumentError: there are none, one comes twice, or one is negative.
    """
    numbers = tuple(int(number) for number in identities)
    if not numbers:
        raise ArgumentError("identities is empty: name at least one person by number, for example range(100).")
    if len(set(numbers)) < len(numbers):
        raise ArgumentError("identities names a person twice.")
    if min(numbers) < 0:
        raise ArgumentError(f"identities holds {min(numbers)}: people are numbered from 0.")
    return numbers


def known_camera(domain: Domain, camera: int) -> int | None:
    """Return the camera's number from 1, as in annotations and file names, if the domain's annotation names it."""
    return camera + 1 if domain.tells_cameras else None


def _person_name(number: int) -> str:
    """Return the name of a person: a number from 1, because 0000 means no identity in Market-1501."""
    return f"{number + 1:04d}"
