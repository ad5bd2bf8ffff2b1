"""CUHK03 in the split of Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

Everybody was cut out twice, by a detector and by hand. The splits `train`, `query` and `gallery` are those of the detector,
which are the harder and the more usual ones; `detected-...` and `labeled-...` name either. Files and numbering are those of
the Market family; of an image that lies there as PNG and as JPEG the PNG is read.
"""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.layouts.market1501 import FOLDERS, holds_market_family, read_market_family
from pretrainps.data.listing import unpacked
from pretrainps.data.records import Split

BOXES = ("detected", "labeled")
"""Who drew them: a detector, or people."""


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
