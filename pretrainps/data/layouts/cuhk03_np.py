"""CUHK03-NP: CUHK03 with new splits for training and test.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

Each person was cropped twice, by a detector and by hand. The splits `train`, `query` and `gallery` are the detector's, which
are harder and more usual; `detected-...` and `labeled-...` name either set. Files and numbering are those of the Market
family. If an image exists both as PNG and as JPEG, the PNG is read.
"""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.layouts.market1501 import FOLDERS, holds_market_family, read_market_family
from pretrainps.data.listing import unpacked
from pretrainps.data.records import Split

BOXES = ("detected", "labeled")
"""How the boxes were made: by a detector, or by hand."""


def _root(root: Path) -> Path:
    return unpacked(root, "cuhk03-np")


def _recognize(root: Path) -> bool:
    return any(holds_market_family(_root(root) / boxes) for boxes in BOXES)


def _read_split(root: Path, split: str) -> Split:
    boxes, _, part = split.rpartition("-")
    folder = LAYOUT.wants(_root(root) / (boxes or "detected"))
    return read_market_family(folder, part, layout=LAYOUT, name=split)


def _counts(images: int, identities: int) -> Counts:
    return Counts(images=images, boxes=images, labelled=images, identities=identities, cameras=2)


_DETECTED = {"train": _counts(7_365, 767), "query": _counts(1_400, 700), "gallery": _counts(5_332, 700)}
_LABELED = {"train": _counts(7_368, 767), "query": _counts(1_400, 700), "gallery": _counts(5_328, 700)}

LAYOUT = Layout(
    name="cuhk03_np",
    title="CUHK03-NP",
    task="reid",
    splits=(*FOLDERS, *(f"{boxes}-{part}" for boxes in BOXES for part in FOLDERS)),
    main_splits=tuple(FOLDERS),
    tree="""\
ROOT/detected/bounding_box_train/0001_c1_1.png ...   (the folder cuhk03-np, or the one that holds it)
ROOT/detected/query/...
ROOT/detected/bounding_box_test/...   (the gallery)
ROOT/labeled/{bounding_box_train,query,bounding_box_test}/...
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={
        **_DETECTED,
        **{f"detected-{part}": counts for part, counts in _DETECTED.items()},
        **{f"labeled-{part}": counts for part, counts in _LABELED.items()},
    },
    terms="on request",
)
