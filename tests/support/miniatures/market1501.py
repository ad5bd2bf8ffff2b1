"""Market-1501 in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretrainps.data.layouts.market1501 import FOLDERS
from pretrainps.data.records import UNLABELLED, Sample, Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import cropped


def write_miniature(root: Path) -> dict[str, Split]:
    """Write a handful of crops: junk, distractors, gaps in the numbers, people of one half only, files of other programs.

    Returns:
        What must be read, by the names of the splits.
    """
    files = {
        "train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg", "0002_c6s1_000476_05.jpg"],
        # nobody takes part in the gallery but is searched for: 0009
        "query": ["0009_c5s1_000000_00.jpg", "0001_c1s1_001051_00.jpg", "1501_c2s3_000000_00.jpg"],
        "gallery": [
            "-1_c1s1_000401_03.jpg",
            "-1_c2s1_000401_01.jpg",
            "0000_c1s1_000151_01.jpg",
            "0001_c2s1_000301_00.jpg",
            "0001_c3s1_000301_00.jpg",
            "1500_c4s6_000301_00.jpg",
            "1501_c6s4_001877_05.jpg",
        ],
    }
    for split, names in files.items():
        write_blank((root / FOLDERS[split] / name for name in names), height=64, width=32)
        (root / FOLDERS[split] / "Thumbs.db").write_bytes(b"not an image")
    write_blank([root / "gt_bbox" / "0001_c1s1_001051_00.jpg"], height=64, width=32)
    (root / FOLDERS["train"] / "._0002_c1s1_000451_03.jpg").write_bytes(b"what macOS leaves behind")
    test_people = ("0001", "0009", "1500", "1501")
    return {
        "train": _split(
            root, "train", [(files["train"][0], 0), (files["train"][2], 0), (files["train"][1], 1)], ("0002", "0007")
        ),
        "query": _split(root, "query", [(files["query"][1], 0), (files["query"][0], 1), (files["query"][2], 3)], test_people),
        "gallery": _split(
            root,
            "gallery",
            list(zip(files["gallery"][2:], (UNLABELLED, 0, 0, 2, 3), strict=True)),
            test_people,
            "2 junk images (-1) left out",
            "1 images of people without an identity (0000) kept as such",
        ),
    }


def _split(
    root: Path,
    name: str,
    crops: Sequence[tuple[str, int]],
    identities: tuple[str, ...],
    *notes: str,
    dataset: str = "market1501",
) -> Split:
    samples: list[Sample] = []
    for file, identity in crops:
        samples.append(cropped(file, root / FOLDERS[name] / file, identity, camera=int(file.split("_c")[1][0])))
    return Split(dataset=dataset, name=name, task="reid", samples=samples, identities=identities, notes=notes)
