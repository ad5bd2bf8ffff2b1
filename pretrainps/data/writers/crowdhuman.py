"""Write any records in the layout of CrowdHuman."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrainps.data.records import Split
from pretrainps.data.writers.boxes import xywh
from pretrainps.data.writers.pictures import write_picture


def write(root: Path, split: Split) -> None:
    """Write a split as CrowdHuman's split of the same name, without identities, cameras and sizes, which it cannot hold.

    Without visible boxes, whole boxes are written in their place, because the layout requires some.
    """
    lines = []
    for sample in split.samples:
        write_picture(sample, root / "Images" / f"{sample.name}.jpg")
        visible = sample.boxes if sample.visible is None else sample.visible
        people = [person_entry(xywh(box), xywh(seen)) for box, seen in zip(sample.boxes, visible, strict=True)]
        regions = [person_entry(xywh(box), xywh(box), tag="mask", extra={"ignore": 1}) for box in sample.ignore]
        lines.append(json.dumps({"ID": sample.name, "gtboxes": people + regions}) + "\n")
    root.mkdir(parents=True, exist_ok=True)
    (root / f"annotation_{split.name}.odgt").write_text("".join(lines), encoding="utf-8")


def person_entry(
    fbox: Sequence[float],
    vbox: Sequence[float],
    *,
    tag: str = "person",
    extra: Mapping[str, int] | None = None,
    head_attr: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the record of a person: whole and visible box as left, top, width, height."""
    entry: dict[str, Any] = {"tag": tag, "fbox": list(fbox), "vbox": list(vbox), "hbox": [*fbox[:2], 4, 4]}
    return entry | {key: value for key, value in (("extra", extra), ("head_attr", head_attr)) if value is not None}
