"""Consoles that cannot print, that are closed, or that do not exist."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrainps.cli import main
from pretrainps.cli.output import note
from pretrainps.download.cache import Cache, Record

NAME = "hf:o/r/gewichte-für-Zürich-重み.pth"


@pytest.fixture
def named() -> None:
    """A model in the cache with a name that few consoles can show."""
    Cache().write_record(NAME, Record(file="f", sha256="0" * 64, size=1, source="s"))


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "utf-16"])
def test_what_a_console_cannot_show_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["cache"]) == 0
    assert main(["info", NAME]) == 1
    note(f"{NAME} \x1b[31m \ud800")
    for stream in (out, err):
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert "gewichte-f" in text and ("Zürich" in text) == (encoding != "ascii"), text
        assert ("重み" in text) == encoding.startswith("utf")


@pytest.mark.parametrize(
    "arguments", [["list"], ["cache"], ["info", "no-such"], ["download", "no-such"], ["list", "no*", "--json"]]
)
def test_no_console_at_all(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(arguments) in (0, 1)
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    assert main(["list"]) == 0


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m pretrainps"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('pretrainps', program)}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "command",
    ["pretrainps list --json | true", "pretrainps --help | true", "pretrainps info no-such 2>&1 | true", "pretrainps list >&-"],
)
def test_readers_that_leave(command: str) -> None:
    done = shell(command)
    assert done.returncode in (0, 1, 141) and done.stderr == "", done.stderr


def test_an_ascii_console_of_a_process_of_its_own(tmp_path: Path) -> None:
    done = shell(f"pretrainps info file:{tmp_path}/für.pth; pretrainps list", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "f\\xfcr.pth: there is no such file" in done.stderr and "Traceback" not in done.stderr


def test_a_download_without_a_console(monkeypatch: pytest.MonkeyPatch, hub: object) -> None:
    """The progress bar has nowhere to go."""
    from tests.support.weights import FILES, authors_file

    small = "shufflenetv1-hybrid"
    hub.add("o/r", {FILES[small]: authors_file(small)})  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["download", f"hf:o/r/{FILES[small]}"]) == 0
