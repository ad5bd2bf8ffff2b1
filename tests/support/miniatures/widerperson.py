"""WiderPerson in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.records import Sample, Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import detected


def write_miniature(root: Path) -> dict[str, Split]:
    """Write two images and one: all classes, boxes out of the frame and without height, LF and CRLF, nobody.

    Returns:
        What must be read, by the names of the splits.
    """
    (root / "Annotations").mkdir(parents=True)
    annotations = {
        "000040": "6\n1 1 2 11 32\n2 20 3 30 33\n3 -4 0 6 44\n4 31 1 39 21\n5 41 1 49 21\n1 5 5 9 5\n",
        "000041": "1\r\n1 3 4 13 34\r\n\r\n",
        "000042": "0\n",
    }
    for name, text in annotations.items():
        (root / "Annotations" / f"{name}.jpg.txt").write_bytes(text.encode())
    (root / "train.txt").write_bytes(b"000041\r\n000040\r\n\r\n")
    (root / "val.txt").write_text("000042")
    (root / "test.txt").write_text("000043\n")
    write_blank(root / "Images" / f"0000{number}.jpg" for number in (40, 41, 42, 43))
    train = (
        detected("000041", root / "Images" / "000041.jpg", boxes=[[3, 4, 13, 34]]),
        detected(
            "000040",
            root / "Images" / "000040.jpg",
            boxes=[[1, 2, 11, 32], [20, 3, 30, 33], [-4, 0, 6, 44]],
            ignore=[[31, 1, 39, 21], [41, 1, 49, 21]],
        ),
    )
    return {
        "train": _split("train", train, "1 boxes without width or height left out"),
        "val": _split("val", (detected("000042", root / "Images" / "000042.jpg"),)),
    }


def _split(name: str, samples: Sequence[Sample], *notes: str) -> Split:
    return Split(dataset="widerperson", name=name, task="detection", samples=samples, notes=notes)
