"""Write synthetic data to disk in a real data set's layout, to try readers, training and evaluation."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from pretrainps.data.layout import Layout
from pretrainps.data.layouts import (
    coco_persons,
    coco_search,
    crowdhuman,
    cuhk_sysu,
    identity_folders,
    market1501,
    movienet_ps,
    posetrack21,
    prw,
)
from pretrainps.data.records import Sample, SearchSet, Split
from pretrainps.data.writers import coco_persons as coco_persons_files
from pretrainps.data.writers import coco_search as coco_search_files
from pretrainps.data.writers import crowdhuman as crowdhuman_files
from pretrainps.data.writers import cuhk_sysu as cuhk_sysu_files
from pretrainps.data.writers import identity_folders as identity_folders_files
from pretrainps.data.writers import market1501 as market1501_files
from pretrainps.data.writers import movienet_ps as movienet_ps_files
from pretrainps.data.writers import posetrack21 as posetrack21_files
from pretrainps.data.writers import prw as prw_files
from pretrainps.errors import ArgumentError
from pretrainps.files import disk_errors
from pretrainps.synthetic import crops, find_domain, plan_search, scenes, search_scenes, search_set

_SMALLEST_LIST = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldSize:
    """How many people and scenes to draw."""

    people: int = 60
    """Number of people to train on; in detection sets, number of training scenes."""
    test_people: int = 40
    """Number of people to search for; in detection sets, number of test scenes."""
    first_test_person: int = 0
    """Number of the first test person. Other numbers give other people in other scenes, in front of the same cameras."""
    appearances: int = 6
    """Number of scenes, or of crops, for each person."""
    seed: int = 0
    workers: int = 1
    """Number of processes that draw."""

    def __post_init__(self) -> None:
        for name in ("people", "test_people", "appearances", "workers"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}={getattr(self, name)}: it must be 1 or more.")
        if self.first_test_person < 0:
            raise ArgumentError(f"first_test_person={self.first_test_person}: people, and scenes, are numbered from 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Writable:
    """A layout that synthetic data can be written in."""

    layout: Layout
    domain: str
    """The default domain for it; other domains of the same task are possible too."""
    write: Callable[[Path, Path, str, WorldSize, bool], None]
    """The function that writes. Arguments: root, a folder for temporary images, domain, size, and whether to show progress."""


def synthesize(
    layout: str, root: Path | str, *, domain: str | None = None, size: WorldSize | None = None, progress: bool = False
) -> Layout:
    """Draw people and write them to a new folder as a data set.

    Images are written one by one; the folder appears when it is complete.

    Args:
        layout: Name of one of `WRITABLE`.
        root: The folder; it must not exist yet, or be empty.
        domain: The domain to draw; by default the layout's own.
        size: How many people and scenes to draw.
        progress: Whether to show progress bars.

    Returns:
        The layout, for reading.

    Raises:
        ArgumentError: the layout cannot be written; the domain is for another task; or the folder is in use.
        CacheError: the folder cannot be written, or the disk is full.
        MissingPackageError: the layout has .mat files, and scipy is not installed.
    """
    found = [each for each in WRITABLE if each.layout.name == layout]
    if not found:
        raise ArgumentError(f"cannot write layout {layout!r}. There are {', '.join(each.layout.name for each in WRITABLE)}.")
    (writable,) = found
    place = find_domain(domain or writable.domain)
    if place.name.split("_")[0] != find_domain(writable.domain).name.split("_")[0]:
        raise ArgumentError(
            f"{place.name} does not suit {layout}, which is for {writable.layout.task}; {writable.domain} does."
        )
    target = Path(root).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArgumentError(f"{target} exists and is not empty. Name a new folder, or remove it first.")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            (scratch / "pictures").mkdir()
            writable.write(scratch / "root", scratch / "pictures", place.name, size or WorldSize(), progress)
            if target.exists():  # it may be the working directory of another process
                for each in (scratch / "root").iterdir():
                    each.rename(target / each.name)
            else:
                (scratch / "root").rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return writable.layout


def _on_disk(samples: Iterable[Sample], folder: Path) -> Iterator[Sample]:
    """Move images from memory to files, so that each is compressed only once."""
    for sample in samples:
        path = folder / sample.name
        assert not isinstance(sample.image, Path)
        Image.fromarray(sample.image).save(path, quality=92)
        yield replace(sample, image=path)


def _search(
    write: Callable[[Path, Split, SearchSet], None],
    lists: bool,
    root: Path,
    pictures: Path,
    domain: str,
    size: WorldSize,
    progress: bool,
) -> None:
    train = plan_search(domain, range(size.people), split="train", appearances=size.appearances, seed=size.seed)
    tested = range(size.first_test_person, size.first_test_person + size.test_people)
    test = plan_search(domain, tested, split="test", appearances=size.appearances, seed=size.seed)
    drawn = [tuple(_on_disk(search_scenes(plan, workers=size.workers, progress=progress), pictures)) for plan in (train, test)]
    sizes = [min(_SMALLEST_LIST, len(test.scenes) - 1)] if lists else []
    split = Split(dataset=domain, name="train", task="search", samples=drawn[0], identities=train.identities)
    write(root, split, search_set(test, drawn[1], list_sizes=sizes))


def _detection(
    write: Callable[[Path, Split], None], root: Path, pictures: Path, domain: str, size: WorldSize, progress: bool
) -> None:
    for name, first, count in (("train", 0, size.people), ("val", size.first_test_person, size.test_people)):
        drawn = scenes(domain, count, first=first, seed=size.seed, name=name, workers=size.workers, progress=progress)
        write(root, Split(dataset=domain, name=name, task="detection", samples=tuple(_on_disk(drawn, pictures))))


def _reid(
    write: Callable[[Path, list[Split]], None], root: Path, pictures: Path, domain: str, size: WorldSize, progress: bool
) -> None:
    splits = []
    shots = max(1, size.appearances // 3)
    first = size.people + size.first_test_person
    trained, tested = range(size.people), range(first, first + size.test_people)
    for name, people, count in (("train", trained, shots), ("query", tested, 1), ("gallery", tested, shots)):
        folder = pictures / name
        folder.mkdir()
        drawn = crops(domain, people, shots=count, seed=size.seed, name=name, workers=size.workers, progress=progress)
        names = tuple(f"{number + 1:04d}" for number in people)
        splits.append(Split(dataset=domain, name=name, task="reid", samples=tuple(_on_disk(drawn, folder)), identities=names))
    write(root, splits)


WRITABLE: tuple[Writable, ...] = (
    Writable(layout=cuhk_sysu.LAYOUT, domain="search_album", write=partial(_search, cuhk_sysu_files.write, True)),
    Writable(layout=prw.LAYOUT, domain="search_campus", write=partial(_search, prw_files.write, False)),
    Writable(layout=posetrack21.LAYOUT, domain="search_campus", write=partial(_search, posetrack21_files.write, False)),
    Writable(layout=movienet_ps.LAYOUT, domain="search_album", write=partial(_search, movienet_ps_files.write, True)),
    Writable(layout=coco_search.LAYOUT, domain="search_campus", write=partial(_search, coco_search_files.write, False)),
    Writable(layout=crowdhuman.LAYOUT, domain="det_crowd", write=partial(_detection, crowdhuman_files.write)),
    Writable(layout=coco_persons.LAYOUT, domain="det_street", write=partial(_detection, coco_persons_files.write)),
    Writable(layout=market1501.LAYOUT, domain="reid_market", write=partial(_reid, market1501_files.write)),
    Writable(layout=identity_folders.LAYOUT, domain="reid_city", write=partial(_reid, identity_folders_files.write)),
)
"""Layouts that `synthesize` writes."""
