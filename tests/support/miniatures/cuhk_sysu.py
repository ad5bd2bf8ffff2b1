"""CUHK-SYSU in miniature, with what readers trip over."""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.writers.cuhk_sysu import XYWH, Search, write_images, write_people, write_pool, write_searches
from tests.support.miniatures.pictures import write_blank


def write_miniature(root: Path) -> None:
    """Write a miniature: four training and six gallery images, three people to train on and two to search for.

    In it: boxes without area and without numbers, a box that leaves the picture and one that starts left of it, an image
    nobody is annotated in, two equal boxes, one person twice in an image, people without a name, a list that names a box that
    is not there, an image twice in a gallery, a gallery of one image, a list of one scene.
    """
    images: dict[str, list[XYWH | None]] = {
        "s1.jpg": [(1, 2, 10, 20), (30, 5, 10, 25), (9, 9, 0, 0), (200, 3, 40, 30)],
        "s2.jpg": [(4, 2, 11, 20), (40, 5, 30, 70), (4, 2, 11, 20), None],
        "s10.jpg": [(2, 2, 12, 24), (20, 2, 12, 24), (40, 2, 12, 24)],
        "s9.jpg": [],
        "s3.jpg": [(3, 3, 13, 26)],
        "s5.jpg": [(7, 7, 20, 30), (30, 1, 9, 18)],
        "s4.jpg": [(5, 5, 20, 30), (30, 5, 20, 30), (-4, 5, 20, 30)],
        "s6.jpg": [(7, 8, 20, 25), (8, 8, 20, 25)],
        "s7.jpg": [(250, 255, 10, 20)],
        "s8.jpg": [],
    }
    people = [
        ("p11", [("s1.jpg", (1, 2, 10, 20)), ("s2.jpg", (4, 2, 11, 20))]),
        ("p12", [("s10.jpg", (2, 2, 12, 24)), ("s10.jpg", (40, 2, 12, 24)), ("s1.jpg", (31, 5, 10, 25))]),
        ("p13", [("s1.jpg", (30, 5, 10, 25))]),
    ]
    tall, small = ("s3.jpg", (3, 3, 13, 26)), ("s4.jpg", (-4, 5, 20, 30))
    lists = {
        50: [
            Search("p21", tall, [("s4.jpg", (30, 5, 20, 30)), ("s6.jpg", (8, 8, 20, 25)), ("s5.jpg", None)]),
            Search("p22", small, [("s7.jpg", (250, 255, 10, 20))]),
        ],
        100: [
            Search(
                "p21",
                tall,
                [
                    ("s4.jpg", (30, 5, 20, 30)),
                    ("s6.jpg", (8, 8, 20, 25)),
                    ("s6.jpg", (8, 8, 20, 25)),
                    ("s5.jpg", None),
                    ("s8.jpg", None),
                ],
            ),
            Search("p22", small, [("s7.jpg", (250, 255, 10, 20)), ("s3.jpg", None)]),
        ],
    }
    write_blank(root / "Image/SSM" / name for name in images)
    write_images(root / "annotation/Images.mat", images)
    write_pool(root / "annotation/pool.mat", ["s3.jpg", "s8.jpg", "s5.jpg", "s4.jpg", "s6.jpg", "s7.jpg"])
    write_people(root / "annotation/test/train_test/Train.mat", people)
    for size, rows in lists.items():
        write_searches(root / f"annotation/test/train_test/TestG{size}.mat", f"TestG{size}", rows)
    hidden = [Search("p22", ("s7.jpg", (250, 255, 10, 20)), [small, ("s3.jpg", None)])]
    write_searches(root / "annotation/test/subset/Occlusion.mat", "Occlusion1", hidden)
    write_searches(root / "annotation/test/subset/Resolution.mat", "Test_Size", hidden)
