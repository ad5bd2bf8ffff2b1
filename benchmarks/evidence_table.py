"""Read, extend, summarize and plot the table of `evidence.py`."""

from __future__ import annotations

import csv
import fcntl
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL.Image import Image

from pretrainps.training.engine.plot import Panel, draw_panels

STARTS = (
    *("random", "detection", "reid", "plain", "pasted", "pasted+adversarial"),
    *("joint", "joint+adversarial", "joint+mmd", "joint+domain_norm"),
)
DETECTORS = ("nae", "seqnet")
COLUMNS = (
    *("seed", "detector", "start", "share", "scenes", "mAP", "top1", "detection_ap", "detection_recall"),
    *("pretraining_steps", "pretraining_seconds", "finetuning_steps"),
)

Measures = dict[tuple[str, int, str], dict[str, dict[str, float]]]
"""Detector, share, start -> seed -> measures in percent."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of this file, and hold it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; an empty list if there is no file yet."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def append(path: Path, row: dict[str, Any], about: str) -> None:
    """Add a row, with the header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            file.write(f"# {about}\n")
            writer.writeheader()
        writer.writerow(row)


def summary(rows: Sequence[dict[str, str]]) -> Iterable[str]:
    """Yield the lines of two tables: each start's measures, and the gains of hybrid pre-training over the others."""
    found = gathered(rows)
    yield "mean of the seeds, with their standard deviation, in percent"
    yield ""
    yield "| detector | scenes | start | seeds | mAP | top-1 | detection AP |"
    yield "|---|---|---|---|---|---|---|"
    for (detector, share, start), seeds in found.items():
        cells = [_spread([each[name] for each in seeds.values()]) for name in ("mAP", "top1", "detection_ap")]
        yield f"| {detector} | {share} % | {start} | {len(seeds)} | " + " | ".join(cells) + " |"
    for ours in ("pasted", "joint", "joint+adversarial"):
        gains = list(_gains(found, ours))
        if not gains:
            continue
        yield ""
        yield f"mAP of {ours} against the other starts, seed by seed: points gained, and relative gain of the means"
        yield ""
        yield "| detector | scenes | against | seeds | points | relative |"
        yield "|---|---|---|---|---|---|"
        yield from gains


def gathered(rows: Sequence[dict[str, str]]) -> Measures:
    """Return the measures in the order of detectors, shares and starts."""
    found: Measures = {}
    for row in rows:
        measures = {name: 100 * float(row[name]) for name in ("mAP", "top1", "detection_ap")}
        found.setdefault((row["detector"], int(row["share"]), row["start"]), {})[row["seed"]] = measures
    return dict(sorted(found.items(), key=lambda each: (each[0][0], each[0][1], STARTS.index(each[0][2]))))


def _gains(found: Measures, ours: str) -> Iterator[str]:
    for (detector, share, start), seeds in found.items():
        own = found.get((detector, share, ours), {})
        both = sorted(set(seeds) & set(own))
        if start == ours or not both:
            continue
        gains = [own[seed]["mAP"] - seeds[seed]["mAP"] for seed in both]
        base = statistics.mean(seeds[seed]["mAP"] for seed in both)
        relative = f"{100 * statistics.mean(gains) / base:+.0f} %" if base else "from 0"
        yield f"| {detector} | {share} % | {start} | {len(both)} | {_spread(gains, '+.1f')} | {relative} |"


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread}"


def picture(rows: Sequence[dict[str, str]]) -> Image:
    """Plot each start's mAP, the mean of the seeds, over the share of the target's training scenes."""
    found, panels = gathered(rows), []
    for detector in DETECTORS:
        curves: dict[str, list[tuple[float, float]]] = {}
        for (each, share, start), seeds in found.items():
            if each == detector:
                curves.setdefault(start, []).append((share, statistics.mean(one["mAP"] for one in seeds.values())))
        title = f"{detector}: mAP on the target in %, mean of the seeds"
        panels.append(Panel(title, curves, across="% of the target's training scenes", dots=True))
    return draw_panels([panel for panel in panels if panel.curves])
