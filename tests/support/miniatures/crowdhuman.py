"""CrowdHuman in miniature, with what readers trip over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.records import Sample, Split
from pretrainps.data.writers.crowdhuman import person_entry
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import detected

_STREET = "273271,c9db000d5146c15"
_POSTER = "273278,c9db00080d9be75"


def write_miniature(root: Path) -> dict[str, Split]:
    """Write two images and one: heads to ignore, missing keys, boxes out of the frame and without width, CRLF, nobody.

    Returns:
        What must be read, by the names of the splits.
    """
    street = [
        # nothing but boxes and a tag; out of the frame on three sides
        person_entry([-3, -2, 20, 50], [0, 0, 17, 40], extra=None, head_attr=None),
        # the head alone is to be ignored
        person_entry(
            [20, 5, 10, 30], [22, 6, 5, 12], extra={"box_id": 1, "occ": 1}, head_attr={"ignore": 1, "unsure": 1, "occ": 1}
        ),
        person_entry([50, 1, 30, 30], [50, 1, 10, 30], extra={"box_id": 2, "ignore": 0}, head_attr={}),
        person_entry([31, 5, 9, 30], [31, 5, 9, 30], extra={"ignore": 1}),
        person_entry([5, 1, 0, 30], [5, 1, 0, 30]),
        person_entry([5, 1, 10, -1], [5, 1, 10, 2]),
    ]
    poster = [person_entry([1, 2, 8, 16], [1, 2, 8, 16], tag="mask", extra={"ignore": 1})]
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


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="crowdhuman", name=name, task="detection", samples=samples, notes=notes)
