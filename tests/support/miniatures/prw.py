"""PRW in miniature, with what readers trip over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pretrainps.data.writers.prw import QueryRow, write_frames, write_people, write_queries
from tests.support.miniatures.pictures import write_blank


def write_miniature(root: Path, *, newline: str = "\r\n") -> None:
    """Write a miniature: four training and four test frames of five cameras, four people to train on and two to search for.

    In it: each of the three names that boxes have had, files with two of them, numbers in bytes, a single box, an empty cell, a
    box without area, negative and broken coordinates, a box that leaves the picture, gaps in the numbers, one person twice in a
    frame, people in doubt, and queries that are not exactly where their frame has the person.

    Args:
        root: The folder to write to.
        newline: What ends a line of query_info.txt; in the release, it is CRLF.
    """
    annotations: dict[str, Mapping[str, Any]] = {
        "c1s1_000151": {"box_new": [[3, 10, 20, 30, 60.0], [-2, 40, 2, 10, 20], [3, 5, 5, 10, 10], [7, 9, 9, 0, 4]]},
        "c2s1_000201": {"anno_file": [[932, -4.5, 2.75, 20.25, 30], [1, 50, -3, 30, 60]]},
        "c6s1_000301": {"anno_previous": np.array([[1, 250, 200, 20, 90]], dtype=np.uint8)},
        "c1s2_000401": {"box_new": np.zeros((0, 0)), "anno_previous": [[1, 1, 1, 1, 1.0]]},
        "c3s1_000501": {"box_new": [[20, 1, 2, 20, 30], [9, 31.9, 2.2, 9.2, 20.9]], "anno_file": [[1, 1, 1, 1, 1.0]]},
        "c5s2_042630": {"box_new": [[9, 12, 5, 19, 30], [-2, 40, 4, 10, 20], [9, 2, 2, 8, 16.0]]},
        "c4s1_000601": {"anno_file": [[20, -6, -2, 20, 30.0]]},
        "c3s1_000502": {"box_new": np.zeros((0, 5))},
    }
    write_blank(root / "frames" / f"{name}.jpg" for name in annotations)
    names = list(annotations)
    write_frames(root, "train", names[:4])
    write_frames(root, "test", names[4:])
    for name, variables in annotations.items():
        write_people(root, name, variables)
    queries: list[QueryRow] = [
        (20, 1, 2, 20, 30, "c3s1_000501"),
        (9, 12, 5, 20, 30, "c5s2_042630"),
        (20, -6, -2, 20, 30, "c4s1_000601"),
    ]
    write_queries(root, queries, newline=newline)
