"""The picture of a run shows what the log says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pretrainps.errors import TrainingError
from pretrainps.training import plot_run
from pretrainps.training.engine.plot import panels_of, ticks
from tests.training.tasks import fit


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.getcolors(1 << 20)}  # type: ignore[union-attr, misc]


def test_a_run_is_drawn(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    path = plot_run(tmp_path / "run")
    assert path == tmp_path / "run" / "plot.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.height == 4 * 320
        assert {(0x1F, 0x5F, 0xA8), (0xD1, 0x60, 0x2F)} <= colours(picture), "two curves"
    assert plot_run(tmp_path / "run", tmp_path / "other.png") == tmp_path / "other.png"


def written(folder: Path, losses: list[float | None], ending: str = "") -> Path:
    lines: list[dict[str, Any]] = [{"kind": "start", "step": 0}]
    for step, loss in enumerate(losses, start=1):
        lines.append({"kind": "train", "step": step, "lr": 0.1, "loss": loss, "losses": {"loss_a": loss}})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + ending)
    return folder


def curve_pixels(folder: Path) -> np.ndarray[Any, Any]:
    """Rows and columns of the first curve's colour within the axes of the first panel."""
    with Image.open(plot_run(folder)) as picture:
        pixels = np.asarray(picture).astype(int)[:320, :755]
    return np.argwhere(np.abs(pixels - (0x1F, 0x5F, 0xA8)).sum(axis=2) < 60)


def test_a_falling_loss_falls_in_the_picture(tmp_path: Path) -> None:
    rows, columns = curve_pixels(written(tmp_path, [float(value) for value in range(20, 0, -1)])).T
    assert np.corrcoef(rows, columns)[0, 1] > 0.999, "a line from the upper left to the lower right"
    assert columns.min() <= 75 and columns.max() >= 750


def test_what_is_not_a_number_is_a_gap(tmp_path: Path) -> None:
    columns = curve_pixels(written(tmp_path, [2.0, 2.0, None, 2.0, 2.0]))[:, 1]
    assert np.diff(np.unique(columns)).max() > 200


@pytest.mark.parametrize("losses", [[1.0], [0.0, 0.0], [None, None], [1e300, -1e300], [1.0, 1.0 + 1e-15]])
def test_odd_logs_are_drawn_too(tmp_path: Path, losses: list[float | None]) -> None:
    assert plot_run(written(tmp_path, losses)).exists()


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        plot_run(tmp_path)
    with pytest.raises(TrainingError, match="no losses and no measures yet"):
        plot_run(written(tmp_path, []))
    with pytest.raises(TrainingError, match="line 3 is no JSON"):
        plot_run(written(tmp_path, [1.0], ending="nonsense\n"))
    assert plot_run(written(tmp_path, [1.0], ending='{"kind": "tra')).exists(), "what a killed process left is no reason"


def test_every_curve_of_the_log_has_its_panel() -> None:
    lines = [
        {"kind": "train", "step": 1, "lr": 0.1, "loss": 3.0, "losses": {"loss_a": 1.0, "loss_b": 2.0}},
        {"kind": "evaluation", "step": 1, "metrics": {"mAP": 0.5}},
    ]
    found = {panel.title: dict(panel.curves) for panel in panels_of(lines)}
    assert found == {
        "loss": {"all": [(1.0, 3.0)]},
        "parts of the loss, weighted": {"a": [(1.0, 1.0)], "b": [(1.0, 2.0)]},
        "evaluation": {"mAP": [(1.0, 0.5)]},
        "learning rate": {"lr": [(1.0, 0.1)]},
    }


@given(low=st.floats(-1e4, 1e4), length=st.floats(1e-3, 1e9))
def test_ticks_are_round_and_within(low: float, length: float) -> None:
    found = ticks(low, low + length)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-6 * length <= tick <= low + 1.000001 * length for tick in found)
    distance = found[1] - found[0]
    assert any(distance == pytest.approx(factor * 10.0**power, rel=1e-5) for factor in (1, 2, 5) for power in range(-6, 10))
