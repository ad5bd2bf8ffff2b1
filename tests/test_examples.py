"""Each example runs as its docstring says."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.fakehub import FakeHub
from tests.support.weights import FILES, REPO, authors_file

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_extract_features(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(REPO, {FILES["shufflenetv1-hybrid"]: authors_file("shufflenetv1-hybrid")})
    Image.new("RGB", (320, 256)).save(tmp_path / "scene.jpg")
    run(monkeypatch, "extract_features.py", str(tmp_path / "scene.jpg"), "--model", "shufflenetv1-hybrid")
    out = capsys.readouterr().out
    assert "(100 %)" in out and "c4: stride 16, (1, 480, 16, 20)" in out and "(1, 960, 7, 4)" in out


def test_histogram_baseline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The world is neither trivial nor hopeless."""
    run(monkeypatch, "histogram_baseline.py", "--people", "40", "--domain", "reid_hall")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "mAP" in line)
    assert 0.1 < float(line.split("mAP")[1].split()[0].rstrip(",")) < 0.5


def test_every_example_is_tested() -> None:
    mine = Path(__file__).read_text()
    assert all(f'"{path.name}"' in mine for path in EXAMPLES.glob("*.py"))
