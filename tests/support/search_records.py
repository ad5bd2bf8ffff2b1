"""Random records of a person-search data set, to be written in a layout and read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pretrainps.data.records import GalleryList, Query, Sample, SearchSet, Split, as_boxes

Named = Callable[[str, int, int], str]
"""Part ("train" or "val"), number and camera of an image -> what it is called."""


def search_records(
    seed: int, named: Named, *, lowest: int = 0, sizes: Sequence[int] = (50,), with_ignore: bool = False
) -> tuple[Split, SearchSet]:
    """Make a training split and a search set.

    Everyone is in some image and at most once in each; no two boxes of an image are equal; each list names all images of its
    person but the query's, those first, and all others, shuffled.

    Args:
        seed: Of the random numbers.
        named: How to call images.
        lowest: The least coordinate of a box.
        sizes: Which lists there are.
        with_ignore: Whether images have regions to ignore.
    """
    rng = np.random.default_rng(seed)
    train = _split(rng, named, "train", "train", people=int(rng.integers(1, 4)), first=1, lowest=lowest, ignore=with_ignore)
    gallery = _split(rng, named, "val", "test", people=int(rng.integers(1, 4)), first=101, lowest=lowest, ignore=with_ignore)
    queries, lists = [], []
    for person in range(len(gallery.identities)):
        frames = [frame for frame, sample in enumerate(gallery.samples) if person in sample.ids]
        shown, *matches = rng.permutation(frames).tolist()
        sample = gallery.samples[shown]
        queries.append(Query(sample=sample, box=sample.boxes[sample.ids == person][0], id=person))
        others = rng.permutation([frame for frame in range(len(gallery)) if frame not in frames]).tolist()
        boxes = [gallery.samples[frame].boxes[gallery.samples[frame].ids == person][0] for frame in matches]
        nowhere = np.full((len(others), 4), np.nan, dtype=np.float32)
        lists.append(
            GalleryList(frames=np.array([*matches, *others], dtype=np.int64), boxes=np.vstack([as_boxes(boxes), nowhere]))
        )
    return train, SearchSet(gallery=gallery, queries=queries, lists=dict.fromkeys(sizes, lists))


def _split(
    rng: np.random.Generator, named: Named, part: str, name: str, *, people: int, first: int, lowest: int, ignore: bool
) -> Split:
    count = int(rng.integers(1, 5))
    present = rng.random((count, people)) < 0.5
    present[rng.integers(count, size=people), np.arange(people)] = True
    samples = []
    for number in range(count):
        ids = [*np.flatnonzero(present[number]).tolist(), *[-1] * int(rng.integers(0 if present[number].any() else 1, 3))]
        corners = lowest + rng.permutation(300)[: len(ids)]  # no two boxes begin in the same column
        sizes = rng.integers([lowest, 1, 1], 300, (len(ids), 3))
        boxes = [[x, y, x + width, y + height] for x, (y, width, height) in zip(corners, sizes, strict=True)]
        camera = int(rng.integers(1, 7))
        samples.append(
            Sample(
                name=named(part, number, camera),
                image=np.full((8, 12, 3), rng.integers(256, size=3), dtype=np.uint8),
                boxes=as_boxes(boxes),
                ids=np.array(ids, dtype=np.int64),
                ignore=as_boxes([[1, 2, 5, 9.5], [2, 2, 7, 7]][: rng.integers(3)] if ignore else ()),
                camera=camera,
            )
        )
    return Split(
        dataset="random",
        name=name,
        task="search",
        samples=samples,
        identities=tuple(str(first + person) for person in range(people)),
    )


def people(split: Split, sample: Sample) -> list[tuple[list[float], str | None]]:
    """Return boxes and names of those in an image."""
    names = [split.identities[person] if person >= 0 else None for person in sample.ids]
    return list(zip(sample.boxes.tolist(), names, strict=True))


def shown(split: Split) -> list[tuple[str, list[tuple[list[float], str | None]]]]:
    """Return the names of a split's images and who is in them, in order."""
    return [(sample.name, people(split, sample)) for sample in split.samples]


def searched(search: SearchSet) -> list[tuple[str, list[float], str]]:
    """Return each query's image, box and person."""
    return [(query.sample.name, query.box.tolist(), search.gallery.identities[query.id]) for query in search.queries]


def listed(search: SearchSet, size: int) -> list[list[tuple[str, list[float] | None]]]:
    """Return each query's images, with the place of the person searched for, or `None`."""
    return [
        [
            (search.gallery.samples[frame].name, None if np.isnan(box).any() else box.tolist())
            for frame, box in zip(entries.frames, entries.boxes, strict=True)
        ]
        for entries in search.lists[size]
    ]
