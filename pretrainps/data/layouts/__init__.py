"""All layouts that can be read, one module each, and how to recognize a folder's layout."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from pretrainps.data.layout import Layout
from pretrainps.data.layouts import (
    citypersons,
    coco_persons,
    coco_search,
    crowdhuman,
    cuhk03_np,
    cuhk_sysu,
    dukemtmc,
    eurocity_persons,
    identity_folders,
    market1501,
    movienet_ps,
    msmt17,
    posetrack21,
    prw,
    widerperson,
)
from pretrainps.errors import ArgumentError, DatasetError

LAYOUTS: tuple[Layout, ...] = (
    cuhk_sysu.LAYOUT,
    prw.LAYOUT,
    posetrack21.LAYOUT,
    movienet_ps.LAYOUT,
    coco_search.LAYOUT,
    crowdhuman.LAYOUT,
    citypersons.LAYOUT,
    eurocity_persons.LAYOUT,
    widerperson.LAYOUT,
    coco_persons.LAYOUT,
    market1501.LAYOUT,
    msmt17.LAYOUT,
    cuhk03_np.LAYOUT,
    dukemtmc.LAYOUT,
    identity_folders.LAYOUT,
)
"""Person search, detection, re-ID; those that recognize almost any folder come last."""


def layout_named(name: str) -> Layout:
    """Return a layout by its name.

    Raises:
        ArgumentError: there is no such layout; the message names the nearest.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    names = [layout.name for layout in LAYOUTS]
    near = get_close_matches(name, names, n=3)
    raise ArgumentError(
        f"no layout {name!r}. " + (f"Did you mean {', '.join(near)}?" if near else f"There are {', '.join(names)}.")
    )


def recognize_layout(root: Path | str) -> Layout:
    """Return the layout that a folder has.

    Raises:
        DatasetError: it is no folder, or its layout is not known.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DatasetError(f"{path} is no folder. Give the folder that a data set was unpacked into.")
    for layout in LAYOUTS:
        if layout.recognize(path):
            return layout
    inside = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
    raise DatasetError(
        f"{path} looks like no data set that is known: it holds {inside}. Name the layout that it should have, to see what is "
        f"missing: {', '.join(layout.name for layout in LAYOUTS)}."
    )


def leaks(layouts: tuple[Layout, ...]) -> tuple[str, ...]:
    """Return a warning for each pair of layouts in a mix that share people or cameras."""
    return tuple(
        f"{one.title} and {other.title} share people or cameras: do not train on one and report a number on the other without "
        "saying so"
        for index, one in enumerate(layouts)
        for other in layouts[index + 1 :]
        if other.name in one.shares_people_with or one.name in other.shares_people_with
    )
