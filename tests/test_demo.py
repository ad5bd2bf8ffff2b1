"""The demo: offline, honest, and nothing left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pretrainps.cli import main
from pretrainps.demo import draw_people, run_demo
from tests.support.fakehub import FakeHub


@pytest.mark.parametrize("name", ["resnet50-hybrid", "resnet18-hybrid", "shufflenetv1-hybrid"])
def test_demo(name: str, hub: FakeHub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    lines: list[str] = []
    result = run_demo(name, say=lines.append, progress=False)
    text = "\n".join(lines)
    assert result.report.share == 1 and "RANDOM" in text and "(100 %)" in text and "ada-1.png" in text
    assert hub.requests == [] and not home.exists(), "no network, and the real cache untouched"
    assert list((tmp_path / "temp").iterdir()) == []


def test_demo_with_own_pictures_some_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_people(tmp_path / "mine")
    (tmp_path / "mine" / "zz-broken.jpg").write_bytes(b"x")
    assert main(["demo", "--images", str(tmp_path / "mine"), "--model", "shufflenetv1-hybrid", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "cleo-2.png" in out and "not read" in out and "zz-broken.jpg" in out


def test_drawn_figures_are_different_and_the_same_each_time(tmp_path: Path) -> None:
    one, two = draw_people(tmp_path / "1"), draw_people(tmp_path / "2")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert len({p.read_bytes() for p in one}) == 6
