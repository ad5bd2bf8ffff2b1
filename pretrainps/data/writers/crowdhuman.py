"""CrowdHuman in miniature, and any boxes written as CrowdHuman's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrainps.data.records import Sample, Split
from pretrainps.data.writers.pictures import write_blank, write_picture
from pretrainps.data.writers.records import detected, xywh

_STREET = "273271,c9db000d5146c15"
_POSTER = "273278,c9db00080d9be75"


def replica(root: Path) -> dict[str, Split]:
    """Write two images and one: heads to ignore, missing keys, boxes out of the frame and without width, CRLF, nobody.

    Returns:
        What must be read, by the names of the splits.
    """
    street = [
        # nothing but boxes and a tag; out of the frame on three sides
        _entry([-3, -2, 20, 50], [0, 0, 17, 40], extra=None, head_attr=None),
        # the head alone is to be ignored
        _entry([20, 5, 10, 30], [22, 6, 5, 12], extra={"box_id": 1, "occ": 1}, head_attr={"ignore": 1, "unsure": 1, "occ": 1}),
        _entry([50, 1, 30, 30], [50, 1, 10, 30], extra={"box_id": 2, "ignore": 0}, head_attr={}),
        _entry([31, 5, 9, 30], [31, 5, 9, 30], extra={"ignore": 1}),
        _entry([5, 1, 0, 30], [5, 1, 0, 30]),
        _entry([5, 1, 10, -1], [5, 1, 10, 2]),
    ]
    poster = [_entry([1, 2, 8, 16], [1, 2, 8, 16], tag="mask", extra={"ignore": 1})]
    lines = [json.dumps({"ID": name, "gtboxes": boxes}) for name, boxes in ((_STREET, street), (_POSTER, poster))]
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotation_train.odgt").write_bytes("\r\n".join([*lines, ""]).encode())
    (root / "annotation_val.odgt").write_text(json.dumps({"ID": "nobody", "gtboxes": []}))
    images = root / "Images"
    write_blank(images / f"{name}.jpg" for name in (_STREET, _POSTER, "nobody"))
    train = (
        detected(
            _STREET,
            images / f"{_STREET}.jpg",
            boxes=[[-3, -2, 17, 48], [20, 5, 30, 35], [50, 1, 80, 31]],
            visible=[[0, 0, 17, 40], [22, 6, 27, 18], [50, 1, 60, 31]],
            ignore=[[31, 5, 40, 35]],
        ),
        detected(_POSTER, images / f"{_POSTER}.jpg", visible=(), ignore=[[1, 2, 9, 18]]),
    )
    return {
        "train": _split("train", train, "2 boxes without width or height left out"),
        "val": _split("val", (detected("nobody", images / "nobody.jpg", visible=()),)),
    }


def write(root: Path, split: Split) -> None:
    """Write a split as CrowdHuman's split of the same name, without identities, cameras and sizes, which it cannot hold.

    Without visible boxes, whole boxes are written in their place, because the layout requires some.
    """
    lines = []
    for sample in split.samples:
        write_picture(sample, root / "Images" / f"{sample.name}.jpg")
        visible = sample.boxes if sample.visible is None else sample.visible
        people = [_entry(xywh(box), xywh(seen)) for box, seen in zip(sample.boxes, visible, strict=True)]
        regions = [_entry(xywh(box), xywh(box), tag="mask", extra={"ignore": 1}) for box in sample.ignore]
        lines.append(json.dumps({"ID": sample.name, "gtboxes": people + regions}) + "\n")
    root.mkdir(parents=True, exist_ok=True)
    (root / f"annotation_{split.name}.odgt").write_text("".join(lines), encoding="utf-8")


def _entry(
    fbox: Sequence[float],
    vbox: Sequence[float],
    *,
    tag: str = "person",
    extra: Mapping[str, int] | None = None,
    head_attr: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    entry: dict[str, Any] = {"tag": tag, "fbox": list(fbox), "vbox": list(vbox), "hbox": [*fbox[:2], 4, 4]}
    return entry | {key: value for key, value in (("extra", extra), ("head_attr", head_attr)) if value is not None}


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="crowdhuman", name=name, task="detection", samples=samples, notes=notes)
