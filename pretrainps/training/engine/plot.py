"""Curves of a run as a picture: losses, measures and learning rate by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pretrainps.errors import TrainingError
from pretrainps.files import new_file
from pretrainps.training.engine.log import read_log
from pretrainps.training.engine.run_folder import LOG

_SCALE = 2
"""Pixels of the drawing a pixel of the picture: scaling down smooths lines, which Pillow draws jagged."""
_WIDTH, _HEIGHT = 1000, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 240, 34, 30
"""Margins around the axes of a panel. The legend is on the right."""
_ROW, _NAME = 18, 24
"""Height of a legend's row, and characters of a name that fit in."""
_COLOURS = ("#1f5fa8", "#d1602f", "#3b8f4e", "#8a4fa3", "#b8902a", "#c23b5e", "#3a9a9a", "#6b6b6b", "#7a5230", "#4b5bd0")
_INK, _GRID, _PAPER = "#222222", "#e2e2e0", "#ffffff"

Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes."""

    title: str
    """Text above the axes."""
    curves: Mapping[str, Curve]
    """From each curve's name to its steps and values."""
    across: str = "step"
    """Name of the horizontal axis."""
    dots: bool = False
    """Whether to mark each value with a dot, for curves with few values."""


def plot_run(folder: Path | str, output: Path | str | None = None) -> Path:
    """Draw the log of a run as a PNG.

    Args:
        folder: Folder of the run.
        output: File of the picture; by default `plot.png` in the folder.

    Returns:
        The file of the picture.

    Raises:
        TrainingError: the folder holds no log, or the log holds no values yet.
        CacheError: the picture cannot be written.
    """
    folder = Path(folder)
    panels = panels_of(read_log(folder / LOG))
    if not panels:
        raise TrainingError(f"{folder / LOG} holds no losses and no measures yet. Plot it when some steps are logged.")
    picture = draw_panels(panels)
    final = Path(output) if output is not None else folder / "plot.png"
    with new_file(final) as temporary:
        picture.save(temporary, format="PNG")
    return final


def panels_of(lines: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Return the panels to draw: total loss, its parts, the measures of evaluations, the learning rate."""
    total: Curve = []
    rate: Curve = []
    parts: dict[str, Curve] = {}
    measures: dict[str, Curve] = {}
    for line in lines:
        step = float(line["step"])
        if line["kind"] == "train":
            total.append((step, _number(line["loss"])))
            rate.append((step, _number(line["lr"])))
            for name, value in line["losses"].items():
                parts.setdefault(name.removeprefix("loss_"), []).append((step, _number(value)))
        elif line["kind"] == "evaluation":
            for name, value in line["metrics"].items():
                measures.setdefault(name, []).append((step, _number(value)))
    panels = [
        Panel("loss", {"all": total}),
        Panel("parts of the loss, weighted", parts if len(parts) > 1 else {}),
        Panel("evaluation", measures, dots=True),
        Panel("learning rate", {"lr": rate}),
    ]
    return [panel for panel in panels if any(panel.curves.values())]


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """Return a picture with the panels one below the other."""
    heights = [max(_HEIGHT, _TOP + _BOTTOM + _ROW * len(panel.curves)) for panel in panels]
    picture = Image.new("RGB", (_WIDTH * _SCALE, sum(heights) * _SCALE), _PAPER)
    draw = ImageDraw.Draw(picture)
    steps = [step for panel in panels for curve in panel.curves.values() for step, _ in curve]
    top = 0
    for panel, height in zip(panels, heights, strict=True):
        _draw_panel(draw, panel, top=top, bottom=top + height, steps=(min(steps), max(steps)))
        top += height
    return picture.resize((_WIDTH, top), Image.Resampling.LANCZOS)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within a range, about `count` of them: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    distance = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.75 * rough)
    first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
    return [number * distance for number in range(first, last + 1)]


def _draw_panel(draw: ImageDraw.ImageDraw, panel: Panel, *, top: int, bottom: int, steps: tuple[float, float]) -> None:
    values = [value for curve in panel.curves.values() for _, value in curve if math.isfinite(value)]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    first, last = steps if steps[1] > steps[0] else (steps[0] - 0.5, steps[1] + 0.5)
    left, right, upper, lower = _LEFT, _WIDTH - _RIGHT, top + _TOP, bottom - _BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        x = left + (step - first) / (last - first) * (right - left)
        y = lower - (value - low) / (high - low) * (lower - upper)
        return x * _SCALE, y * _SCALE

    _text(draw, left, top + _TOP / 2, panel.title, size=14, anchor="lm")
    for value in ticks(low, high):
        (x0, y), (x1, _) = place(first, value), place(last, value)
        draw.line([x0, y, x1, y], fill=_GRID, width=_SCALE)
        _text(draw, left - 8, y / _SCALE, f"{value:.4g}", anchor="rm")
    for step in ticks(first, last, 8):
        if step == round(step):
            x, _ = place(step, low)
            draw.line([x, lower * _SCALE, x, (lower + 4) * _SCALE], fill=_INK, width=_SCALE)
            _text(draw, x / _SCALE, lower + 7, f"{step:.0f}", anchor="mt")
    draw.rectangle([left * _SCALE, upper * _SCALE, right * _SCALE, lower * _SCALE], outline=_INK, width=_SCALE)
    _text(draw, right + 12, lower + 7, panel.across, anchor="lt")
    for number, (name, curve) in enumerate(panel.curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        _draw_curve(draw, [place(*point) if math.isfinite(point[1]) else None for point in curve], colour, dots=panel.dots)
        _draw_key(draw, right + 12, upper + _ROW // 2 + _ROW * number, name, curve, colour)


def _draw_curve(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float] | None], colour: str, *, dots: bool) -> None:
    """Draw a curve, with gaps where values are missing."""
    for one, other in itertools.pairwise(points):
        if one is not None and other is not None:
            draw.line([one, other], fill=colour, width=2 * _SCALE)
    radius = 3 * _SCALE
    for point in points:
        if point is not None and (dots or len(points) == 1):
            x, y = point
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _draw_key(draw: ImageDraw.ImageDraw, x: int, y: int, name: str, curve: Curve, colour: str) -> None:
    draw.line([x * _SCALE, y * _SCALE, (x + 14) * _SCALE, y * _SCALE], fill=colour, width=3 * _SCALE)
    shown = name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"
    _text(draw, x + 20, y, f"{shown}  {curve[-1][1]:.4g}", anchor="lm")


def _text(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, *, anchor: str, size: int = 11) -> None:
    draw.text((x * _SCALE, y * _SCALE), text, fill=_INK, font=_font(size * _SCALE), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)  # decodes the font each time


def _number(value: float | None) -> float:
    """Return a value of the log. The log has null for a number that is not finite."""
    return math.nan if value is None else float(value)
