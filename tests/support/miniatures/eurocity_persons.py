"""EuroCity Persons in miniature, with what readers trip over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrainps.data.records import Sample, Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import Rows, detected

_SIZE = (40, 60)


def write_miniature(root: Path) -> dict[str, Split]:
    """Write two images by day and two by night: nested vehicles, groups, tags and their absence, both wrappings, nobody.

    Returns:
        What must be read, by the names of the splits.
    """
    street = _frame(
        _child("pedestrian", 1.5, 2, 11.5, 32, tags=["occluded>10", "truncated>10"]),
        _child("pedestrian", -4, 0, 6, 44),
        _child("rider", 20, 3, 30, 33, tags=[], children=[_child("bicycle", 18, 20, 32, 38, tags=["occluded>40"])]),
        _child("pedestrian", 31, 1, 39, 21, tags=["sitting-lying"]),
        _child("pedestrian", 41, 1, 49, 21, tags=["occluded>80", "behind-glass"]),
        _child("person-group-far-away", 50, 0, 59, 9, tags=["depiction"]),
        _child("rider+vehicle-group-far-away", 50, 10, 59, 19, tags=[]),
        _child("bicycle-group", 0, 30, 9, 39, tags=[]),
        _child("motorbike", 10, 30, 19, 39, tags=[]),
        _child("pedestrian", 5, 5, 5, 25, tags=[]),
    )
    # a passenger hangs below the vehicle that hangs below its rider
    passenger = _child("motorbike", 0, 20, 20, 40, tags=[], children=[_child("co-rider", 10, 8, 18, 30, tags=[])])
    wrapped = {"@converter": "x", "children": [{"children": [_frame(_child("rider", 2, 5, 12, 30, children=[passenger]))]}]}
    sequence = {"identity": "seqlist", "children": {"children": _frame(_child("pedestrian", 3, 4, 13, 34, tags=[]))}}
    _write(root, "day", "train", "amsterdam", street)
    _write(root, "day", "val", "roma", _frame())
    _write(root, "night", "train", "amsterdam", wrapped)
    _write(root, "night", "val", "roma", sequence)
    day_train = _sample(
        root,
        "day",
        "train",
        "amsterdam",
        boxes=[[1.5, 2, 11.5, 32], [-4, 0, 6, 44]],
        ignore=[[20, 3, 30, 33], [31, 1, 39, 21], [41, 1, 49, 21], [50, 0, 59, 9], [50, 10, 59, 19]],
    )
    night_train = _sample(root, "night", "train", "amsterdam", ignore=[[2, 5, 12, 30], [10, 8, 18, 30]])
    day_val = _sample(root, "day", "val", "roma")
    night_val = _sample(root, "night", "val", "roma", boxes=[[3, 4, 13, 34]])
    note = "1 boxes without width or height left out"
    return {
        "train": _split("train", (day_train, night_train), note),
        "val": _split("val", (day_val, night_val)),
        "day-train": _split("day-train", (day_train,), note),
        "day-val": _split("day-val", (day_val,)),
        "night-train": _split("night-train", (night_train,)),
        "night-val": _split("night-val", (night_val,)),
    }


def _child(
    identity: str,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    *,
    tags: Sequence[str] | None = None,
    children: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    child = {"identity": identity, "x0": x0, "y0": y0, "x1": x1, "y1": y1, "children": list(children)}
    return child if tags is None else child | {"tags": list(tags)}


def _frame(*children: dict[str, Any]) -> dict[str, Any]:
    height, width = _SIZE
    return {"identity": "frame", "imagewidth": width, "imageheight": height, "tags": ["dry"], "children": list(children)}


def _write(root: Path, time: str, part: str, city: str, content: dict[str, Any]) -> None:
    labels = root / "ECP" / time / "labels" / part / city
    labels.mkdir(parents=True)
    (labels / f"{city}_00018.json").write_text(json.dumps(content))
    write_blank([root / "ECP" / time / "img" / part / city / f"{city}_00018.png"])


def _sample(root: Path, time: str, part: str, city: str, *, boxes: Rows = (), ignore: Rows = ()) -> Sample:
    name = f"{time}/img/{part}/{city}/{city}_00018.png"
    return detected(name, root / "ECP" / name, boxes=boxes, ignore=ignore, size=_SIZE)


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="eurocity_persons", name=name, task="detection", samples=samples, notes=notes)
