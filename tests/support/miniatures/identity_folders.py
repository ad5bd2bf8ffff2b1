"""Folders of people in miniature, with what readers trip over."""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.records import Split
from tests.support.miniatures.pictures import write_blank
from tests.support.miniatures.records import cropped


def write_miniature(root: Path) -> dict[str, Split]:
    """Write a handful of crops in three parts: with cameras and without, an empty folder, a stray image, other files.

    Returns:
        What must be read, by the names of the splits.
    """
    files = {
        "train": ["anna/1_c3.jpg", "anna/c12_2.png", "bob/x_c1s2_004.jpg", "bob/y.JPG", "zoe/mac3_c.jpg"],
        "query": ["dora/1_c1.jpg", "carl/1_c1.jpg"],
        "gallery": ["carl/2_c2.jpg", "eve/1_c1.jpg"],
    }
    for part, names in files.items():
        write_blank((root / part / name for name in names), height=64, width=32)
    (root / "train" / "nobody").mkdir()
    (root / "train" / "anna" / "notes.txt").write_text("not an image")
    (root / "train" / "anna" / ".1_c3.jpg").write_bytes(b"not an image")
    write_blank([root / "gallery" / "stray.jpg"])
    train, test = ("anna", "bob", "zoe"), ("carl", "dora", "eve")
    numbers = {"anna": 0, "bob": 1, "zoe": 2, "carl": 0, "dora": 1, "eve": 2}
    cameras = {"anna/1_c3.jpg": 3, "anna/c12_2.png": 12, "bob/x_c1s2_004.jpg": 1, "carl/2_c2.jpg": 2}

    def split(part: str, people: tuple[str, ...], *notes: str) -> Split:
        unknown = None if part == "train" else 1
        return Split(
            dataset="identity_folders",
            name=part,
            task="reid",
            samples=[
                cropped(name, root / part / name, numbers[name.split("/")[0]], cameras.get(name, unknown))
                for name in sorted(files[part])
            ],
            identities=people,
            notes=notes,
        )

    return {
        "train": split("train", train, "1 folders without an image left out"),
        "query": split("query", test),
        "gallery": split("gallery", test, "1 images in no person's folder left out"),
    }
