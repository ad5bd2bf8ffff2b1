"""Read the data sets that are named on the command line or in a script, count them, and give warnings about them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrainps.data.layout import Layout
from pretrainps.data.layouts import LAYOUTS, layout_named, leaks, recognize_layout
from pretrainps.data.records import Sample, Split, Task
from pretrainps.errors import ArgumentError

log = logging.getLogger("pretrainps")


def read_sets(named: Mapping[str, Path | str], task: Task, *, force: bool = False) -> dict[str, Split]:
    """Read the training splits of data sets.

    Args:
        named: Root of each data set by name. A layout's name says what is expected there. Under any other name the layout is
            recognized.
        task: The task that they must be for.
        force: Read data sets that their owners have withdrawn.

    Returns:
        The splits by the same names.

    Raises:
        ArgumentError: a data set that is for another task.
        DatasetError: a root that does not have the layout, or an empty split.
    """
    layouts = {name: _layout(name, root) for name, root in named.items()}
    for name, layout in layouts.items():
        if layout.task != task:
            raise ArgumentError(f"{name}: {layout.title} is for {layout.task}, but here a data set for {task} is expected.")
    splits = {name: layout.read(named[name], layout.main_splits[0], force=force) for name, layout in layouts.items()}
    for name, split in splits.items():
        log.info("%s: %d images of %s", name, len(split), layouts[name].title)
    for warning in leaks(tuple(layouts.values())):
        log.warning("%s", warning)
    return splits


def _layout(name: str, root: Path | str) -> Layout:
    return layout_named(name) if name in {layout.name for layout in LAYOUTS} else recognize_layout(root)


def digest_of(samples: Sequence[Sample]) -> str:
    """Return a hash of the names of a split's images and of their annotations, to be recorded with a run."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.name}\n".encode() + sample.boxes.tobytes() + sample.ids.tobytes() + sample.ignore.tobytes())
    return digest.hexdigest()


def described(splits: Mapping[str, Split]) -> dict[str, object]:
    """Return what a run's record says of its data."""
    return {
        name: {
            "layout": split.dataset,
            "images": len(split),
            "identities": len(split.identities),
            "fingerprint": digest_of(split.samples),
            "notes": list(split.notes),
        }
        for name, split in splits.items()
    }
