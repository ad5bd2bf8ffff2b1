"""MovieNet-PS in miniature, with what readers trip over."""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.writers.cuhk_sysu import (
    XYWH,
    Place,
    Search,
    write_images,
    write_pool,
    write_searches,
)
from pretrainps.data.writers.movienet_ps import write_people
from tests.support.miniatures.pictures import write_blank


def write_miniature(root: Path, *, annotation: str = "annotation", images: str = "Image") -> None:
    """Write a miniature: three training and four gallery images, two people to train on and two to search for.

    In it: a training list of one person in one image and one of two people in two, an image of both of them, one nobody
    is named in, a box without area, and pools of which the larger one has another order.

    Args:
        root: The folder to write to.
        annotation: Folder of the annotation: "annotation" or "anno_mvn-cs".
        images: Folder of the images: "Image" or "Image/SSM".
    """
    boxes: dict[str, list[XYWH]] = {
        "tt1_0001.jpg": [(1, 2, 10, 20), (30, 2, 10, 20), (5, 5, 0, 9)],
        "tt1_0002.jpg": [(3, 2, 10, 20), (-5, 2, 10, 300)],
        "tt1_0003.jpg": [(3, 3, 10, 20)],
        "tt2_0001.jpg": [(4, 2, 10, 20), (14, 2, 10, 20)],
        "tt2_0002.jpg": [(5, 2, 10, 20)],
        "tt2_0003.jpg": [(6, 2, 10, 20)],
        "tt2_0004.jpg": [(7, 2, 10, 20)],
    }
    first: tuple[str, list[Place]] = ("nm1", [("tt1_0002.jpg", (3, 2, 10, 20))])
    more: list[tuple[str, list[Place]]] = [
        ("nm1", [("tt1_0002.jpg", (3, 2, 10, 20)), ("tt1_0001.jpg", (1, 2, 10, 20))]),
        ("nm2", [("tt1_0001.jpg", (30, 2, 10, 20))]),
    ]
    here, there = ("tt2_0001.jpg", (4, 2, 10, 20)), ("tt2_0003.jpg", (6, 2, 10, 20))
    lists = {
        2000: [
            Search("nm3", here, [("tt2_0002.jpg", (5, 2, 10, 20)), ("tt2_0003.jpg", None)]),
            Search("nm4", there, [("tt2_0001.jpg", (14, 2, 10, 20))]),
        ],
        4000: [
            Search("nm3", here, [("tt2_0002.jpg", (5, 2, 10, 20)), ("tt2_0003.jpg", None), ("tt2_0004.jpg", None)]),
            Search("nm4", there, [("tt2_0001.jpg", (14, 2, 10, 20)), ("tt2_0004.jpg", None)]),
        ],
    }
    pools = {
        2000: ["tt2_0003.jpg", "tt2_0001.jpg", "tt2_0002.jpg"],
        4000: ["tt2_0001.jpg", "tt2_0002.jpg", "tt2_0003.jpg", "tt2_0004.jpg"],
    }
    write_blank(root / images / name for name in boxes)
    folder = root / annotation
    write_images(folder / "Images.mat", boxes)
    write_people(folder / "test/train_test/Train_app10.mat", [first])
    write_people(folder / "test/train_test/Train_app30.mat", more)
    for size, rows in lists.items():
        write_pool(folder / f"pool_{size}.mat", pools[size])
        write_searches(folder / f"test/train_test/TestG{size}.mat", f"TestG{size}", rows)
