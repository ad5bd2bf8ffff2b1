"""CUHK03-NP in miniature, with what readers trip over."""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.layouts.market1501 import FOLDERS
from pretrainps.data.records import Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import cropped

_CROPS = {
    "train": (("0001_c1_1.png", 0), ("0001_c2_6.png", 0), ("0003_c1_11.png", 1)),
    "query": (("0002_c1_6.png", 0), ("0004_c2_31.png", 1)),
    "gallery": (("0002_c2_8.png", 0), ("0004_c1_36.png", 1)),
}
_PEOPLE = {"train": ("0001", "0003"), "query": ("0002", "0004"), "gallery": ("0002", "0004")}


def write_miniature(root: Path) -> dict[str, Split]:
    """Write the detected crops as PNG with a JPEG beside each of the training ones, the labeled ones as JPEG alone.

    Returns:
        What must be read, by the names of the splits.
    """
    expected = {}
    for boxes in ("detected", "labeled"):
        for part, crops in _CROPS.items():
            folder = root / boxes / FOLDERS[part]
            doubled = boxes == "detected" and part == "train"
            names = [name if boxes == "detected" else name.replace(".png", ".jpg") for name, _ in crops]
            copies = [name.replace(".png", ".jpg") for name in names] if doubled else []
            write_blank((folder / name for name in (*names, *copies)), height=64, width=32)
            (folder / "Thumbs.db").write_bytes(b"not an image")
            expected[f"{boxes}-{part}"] = Split(
                dataset="cuhk03_np",
                name=f"{boxes}-{part}",
                task="reid",
                samples=[
                    cropped(name, folder / name, identity, camera=int(name[6]))
                    for name, (_, identity) in zip(names, crops, strict=True)
                ],
                identities=_PEOPLE[part],
                notes=("3 copies of images in another format left out",) if doubled else (),
            )
    plain = {
        part: Split(
            dataset=split.dataset,
            name=part,
            task=split.task,
            samples=split.samples,
            identities=split.identities,
            notes=split.notes,
        )
        for part, split in ((part, expected[f"detected-{part}"]) for part in FOLDERS)
    }
    return plain | expected
