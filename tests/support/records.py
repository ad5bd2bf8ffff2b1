"""Compare records field by field; a failure says of which image and in what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

import numpy as np

from pretrainps.data.records import Query, Sample, SearchSet, Split


def assert_same_sample(found: Sample, expected: Sample, *, but: Collection[str] = ()) -> None:
    """All fields are equal; pixels as good as JPEG keeps them, if one record holds them and the other a file."""
    for name in (field.name for field in fields(Sample)):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if name in but:
            continue
        if name == "image" and isinstance(ours, np.ndarray | Path) and type(ours) is not type(theirs):
            difference = np.asarray(found.pixels(), dtype=int) - np.asarray(expected.pixels(), dtype=int)
            assert np.abs(difference).mean() < 4, f"{expected.name}: other pixels"
        elif isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), f"{expected.name}: {name} {ours} != {theirs}"
        else:
            assert not isinstance(ours, np.ndarray) and not isinstance(theirs, np.ndarray), f"{expected.name}: {name}"
            assert ours == theirs, f"{expected.name}: {name} {ours} != {theirs}"


def assert_same_split(found: Split, expected: Split, *, but: Collection[str] = ()) -> None:
    """All fields of both and of all their samples are equal, but for those named."""
    for name in ("dataset", "name", "task", "identities", "notes"):
        if name not in but:
            assert getattr(found, name) == getattr(expected, name), name
    assert [sample.name for sample in found.samples if "name" not in but] == [
        sample.name for sample in expected.samples if "name" not in but
    ]
    for ours, theirs in zip(found.samples, expected.samples, strict=True):
        assert_same_sample(ours, theirs, but=but)


def assert_same_search(found: SearchSet, expected: SearchSet, *, but: Collection[str] = ()) -> None:
    """Gallery, queries and lists are equal, but for the fields named."""
    assert_same_split(found.gallery, expected.gallery, but=but)
    for ours, theirs in zip(found.queries, expected.queries, strict=True):
        _assert_same_query(ours, theirs, but)
    assert found.lists.keys() == expected.lists.keys()
    for size, lists in expected.lists.items():
        for one, other in zip(found.lists[size], lists, strict=True):
            assert np.array_equal(one.frames, other.frames), size
            assert np.array_equal(one.boxes, other.boxes, equal_nan=True), size


def _assert_same_query(found: Query, expected: Query, but: Collection[str]) -> None:
    assert_same_sample(found.sample, expected.sample, but=but)
    assert found.box.dtype == np.float32 and np.array_equal(found.box, expected.box), expected.sample.name
    assert found.id == expected.id, expected.sample.name
