"""The command: results on standard output, remarks and errors on standard error, an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrainps.cli import main
from pretrainps.cli.main import build_parser
from pretrainps.registry import registry
from tests.support.fakehub import FakeHub
from tests.support.figures import draw_people
from tests.support.weights import FILES, REPO, authors_file, authors_tensors, torch_bytes

SMALL = "shufflenetv1-hybrid"


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    return hub


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list")
    assert status == 0 and all(name in out for name in registry())
    status, out, _ = run(capsys, "list", "*-hybrid", "--json")
    assert [m["name"] for m in json.loads(out)] == ["resnet18-hybrid", "resnet50-hybrid", "shufflenetv1-hybrid"]
    status, out, err = run(capsys, "list", "nothing*")
    assert status == 1 and out == "" and "no model matches" in err


def test_info_before_and_after_download(capsys: pytest.CaptureFixture[str], published: FakeHub) -> None:
    _, out, _ = run(capsys, "info", SMALL)
    assert "will be pinned at first download" in out and "apache-2.0" in out and "assumed" in out
    status, out, err = run(capsys, "download", SMALL, "--quiet")
    assert status == 0 and Path(out.strip()).read_bytes() == authors_file(SMALL) and "sha256" in err
    _, out, _ = run(capsys, "info", SMALL)
    assert "pinned at first download, 20" in out and FILES[SMALL] in out
    _, out, _ = run(capsys, "info", SMALL, "--json")
    assert json.loads(out)["name"] == SMALL


def test_cache(capsys: pytest.CaptureFixture[str], published: FakeHub, home: Path) -> None:
    assert run(capsys, "cache", "path")[1].strip() == str(home)
    assert "0.0 MB" in run(capsys, "cache")[1]
    run(capsys, "download", SMALL, "--quiet")
    assert SMALL in run(capsys, "cache")[1]
    assert json.loads(run(capsys, "cache", "--json")[1])["models"][0]["name"] == SMALL
    assert "not in the cache" in run(capsys, "cache", "remove", "resnet50-hybrid")[2]
    assert run(capsys, "cache", "remove")[0] == 1
    assert f"removed {SMALL}" in run(capsys, "cache", "remove", SMALL)[1]
    assert (home / "pins").exists() and list((home / "pins").iterdir()), "the pin outlives the file"
    assert "and its pin" in run(capsys, "cache", "remove", SMALL, "--forget-pin")[1]
    assert not list((home / "pins").iterdir())


def test_inspect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(authors_file(SMALL))
    status, out, _ = run(capsys, "inspect", path)
    assert status == 0 and "shufflenetv1, all 294" in out
    (tmp_path / "page.pth").write_bytes(b"<html>")
    status, out, _ = run(capsys, "inspect", path, tmp_path / "page.pth", "--json")
    assert status == 1 and json.loads(out)[1]["problem"].startswith("it is a web page")


def test_export_weights(capsys: pytest.CaptureFixture[str], published: FakeHub, tmp_path: Path) -> None:
    status, out, err = run(capsys, "export-weights", SMALL, "--layout", "mmdet", "-o", tmp_path / "w.pth", "--quiet")
    assert status == 0 and "init_cfg" in out and str(tmp_path / "w.pth") in out and "294 of 294" in err
    found = torch.load(tmp_path / "w.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(found[k], v) for k, v in authors_tensors(SMALL).items())
    status, _, err = run(capsys, "export-weights", SMALL, "--layout", "nae", "-o", tmp_path / "x.pth", "--quiet")
    assert status == 1 and "no key layout 'nae'" in err and not (tmp_path / "x.pth").exists()


def test_check_input(capsys: pytest.CaptureFixture[str], published: FakeHub, tmp_path: Path) -> None:
    draw_people(tmp_path / "people")
    status, out, _ = run(capsys, "check-input", SMALL, "--images", tmp_path / "people")
    assert status == 0 and "fits best" in out and "6 images" in out
    _, out, _ = run(capsys, "check-input", SMALL, "--images", tmp_path / "people", "--json")
    assert len(json.loads(out)["candidates"]) == 6


def test_embed(capsys: pytest.CaptureFixture[str], published: FakeHub, tmp_path: Path) -> None:
    draw_people(tmp_path / "people")
    (tmp_path / "people" / "bad.png").write_bytes(b"bad")
    status, out, err = run(capsys, "embed", tmp_path / "people", "--model", SMALL, "-o", tmp_path / "v.safetensors")
    assert status == 0 and "ada-1.png" in out and "294 of 294" in err and "bad.png" in err
    run(capsys, "embed", tmp_path / "people", "--model", SMALL, "-o", tmp_path / "v.npy", "--quiet")
    from safetensors.torch import load_file

    vectors = load_file(tmp_path / "v.safetensors")["vectors"]
    assert vectors.shape == (6, 960) and np.allclose(np.load(tmp_path / "v.npy"), vectors.numpy())
    _, out, _ = run(capsys, "embed", tmp_path / "people", "--model", SMALL, "--json", "--quiet")
    assert np.allclose(json.loads(out)["vectors"], vectors.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "resnet50_hybrid"], "Did you mean 'resnet50-hybrid'"),
        (["embed", "/no/such/folder"], "does not exist"),
        (["embed", ".", "--batch-size", "0"], "at least 1"),
        (["embed", ".", "-o", "v.txt"], r"\.safetensors or \.npy"),
        (["inspect", "/no/such/file"], "does not exist"),
        (["download", "resnet50-hybrid", "--offline"], "pretrainps download resnet50-hybrid"),
        (["demo", "--model", "resnet50-imagenet"], "resnet50-imagenet is no detector of people"),
    ],
)
def test_errors_are_one_message_and_status_1(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    import re

    status, out, err = run(capsys, *arguments)
    assert status == 1 and out == "" and err.startswith("error: ") and re.search(words, err)
    assert "Traceback" not in err


def test_interrupt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrainps.cli.models.list_models", interrupt)
    status, _, err = run(capsys, "list")
    assert status == 130 and "interrupted" in err


def test_reader_that_leaves(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m pretrainps list --json | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ.copy(),
    )
    assert done.stdout.strip() == "[" and done.stderr == ""


@pytest.mark.parametrize(
    "command", ["", "list", "info", "download", "cache", "inspect", "export-weights", "check-input", "embed", "demo"]
)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*([command] if command else []), "--help"])
    assert stop.value.code == 0 and "usage: pretrainps" in capsys.readouterr().out


def test_names_in_files_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torch_bytes({"a\x1b[2Jb": torch.zeros(1)}))
    _, out, _ = run(capsys, "inspect", tmp_path / "w.pth")
    assert "\x1b" not in out and "\\x1b[2J" in out


def test_malicious_file_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'marker'}",)

    (tmp_path / "w.pth").write_bytes(torch_bytes({"state_dict": Bad()}))
    draw_people(tmp_path / "p")
    status, _, err = run(capsys, "embed", tmp_path, "--model", f"file:{tmp_path / 'w.pth'}")
    assert status == 1 and "system" in err and not (tmp_path / "marker").exists()
