"""Parsing of names, paths and addresses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pretrainps
from pretrainps import errors
from pretrainps.cli import main
from pretrainps.download.addresses import canonical, local_path
from tests.support.fakehub import FakeHub
from tests.support.weights import FILES, authors_file

SMALL = "shufflenetv1-hybrid"


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/o/r/resolve/main/a/w.pth",
        "https://huggingface.co/o/r/resolve/main/a/w.pth?download=true",
        "https://huggingface.co/o/r/blob/main/a/w.pth#L1",
        "http://www.huggingface.co/o/r/raw/main/a/w.pth",
        "HTTPS://hf.co/o/r/blob/main/a/w.pth/",
        "huggingface.co/o/r/blob/main/a/w.pth",
        "hf:https://huggingface.co/o/r/blob/main/a/w.pth",
        "hf:o/r/blob/main/a/w.pth",
        "hf:o/r/resolve/main/a/w.pth?download=true",
        "hf:/o/r/a/w.pth/",
        "hf://o/r/a/w.pth",
        "hf://o/r@main/a/w.pth",
        "HF:o/r/a/w.pth",
        " hf:o/r/a/w.pth ",
        "https://huggingface.co/models/o/r/blob/main/a/w.pth",
    ],
)
def test_every_way_to_write_a_file_on_the_hub_is_one_name(address: str) -> None:
    assert canonical(address) == "hf:o/r/a/w.pth"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/o/r", "hf:o/r"),
        ("https://huggingface.co/o/r/", "hf:o/r"),
        ("https://huggingface.co/o/r/tree/main", "hf:o/r"),
        ("https://huggingface.co/o/r/tree/v1.0", "hf:o/r@v1.0"),
        ("https://huggingface.co/o/r/commit/abc", "hf:o/r@abc"),
        ("https://huggingface.co/o/r/blob/v1/w.pth", "hf:o/r/w.pth@v1"),
        ("https://huggingface.co/o/r/blob/refs%2Fpr%2F1/w.pth", "hf:o/r/w.pth@refs/pr/1"),
        ("https://huggingface.co/o/r/resolve/refs/pr/1/w.pth", "hf:o/r/w.pth@refs/pr/1"),
        ("https://huggingface.co/api/models/o/r", "hf:o/r"),
        ("https://huggingface.co/o/r/blob/main/my%20weights.pth", "hf:o/r/my weights.pth"),
        ("hf:o/r@v1/w.pth", "hf:o/r/w.pth@v1"),
        ("hf:o/r@feature/x", "hf:o/r@feature/x"),
        ("hf:o/r@main", "hf:o/r@main"),
        ("resnet50-hybrid@main", "resnet50-hybrid@main"),
        ("timm:resnet50", "timm:resnet50"),
    ],
)
def test_addresses_and_names(address: str, name: str) -> None:
    assert canonical(address) == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://huggingface.co/datasets/o/r", "datasets"),
        ("hf:datasets/o/r", "datasets"),
        ("https://hf.co/spaces/o/r", "spaces"),
        ("https://huggingface.co/", "no Hub name"),
        ("https://huggingface.co/o", "no Hub name"),
        ("hf:", "no Hub name"),
        ("hf:o r/x", "no Hub name"),
        ("hf:o/r/\ud800.pth", "no Hub name"),
        ("hf:o/r/a\nb.pth", "no Hub name"),
        ("hf:../x", "no Hub name|no source"),
        ("https://example.org/w.pth", r"another host.*file:PATH"),
        ("https://drive.google.com/file/d/1/view", r"another host.*file:PATH"),
        ("https://user:secret@example.org/w.pth", "another host"),
        ("ftp://example.org/w.pth", "unknown kind of name"),
    ],
)
def test_what_no_model_lies_behind_is_answered(hub: FakeHub, name: str, words: str) -> None:
    with pytest.raises(errors.PretrainPSError, match=words):
        pretrainps.info(name)


def test_the_endpoint_of_the_environment_is_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert canonical("https://mirror.example/o/r/blob/main/w.pth") == "hf:o/r/w.pth"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "my weights" / "50%20 ü.pth"
    path.parent.mkdir()
    path.write_bytes(authors_file(SMALL))
    return path


def test_every_way_to_write_a_path(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(weights.parent.parent))
    monkeypatch.chdir(weights.parent.parent)
    for name in (
        f"file:{weights}",
        weights.as_uri(),
        f"file://localhost{weights.as_uri().removeprefix('file://')}",
        f"FILE:{weights}",
        f"file:~/my weights/{weights.name}",
        f"~/my weights/{weights.name}",
        f"file:my weights/{weights.name}",
        f"file:my weights\\{weights.name}",
    ):
        assert pretrainps.info(name).sources[0].path == str(weights) or os.path.samefile(  # type: ignore[union-attr]
            pretrainps.info(name).sources[0].path,
            weights,  # type: ignore[union-attr]
        ), name


@pytest.mark.parametrize(
    "name",
    [
        "C:\\models\\x.pth",
        "C:/models/x.pth",
        "c:x.pth",
        "\\\\server\\share\\x.pth",
        "file:C:\\models\\x.pth",
        "file:///C:/models/x.pth",
        "file://server/share/x.pth",
        "~/nothing/here.pth",
        "~nobody-of-that-name/x.pth",
        "/no/such/x.pth",
        "//server/share/x.pth",
        "./x.pth",
        "..\\x.pth",
        "x" * 5000 + ".pth",
        "file:" + "x" * 5000,
        "file:a\0b.pth",
    ],
)
def test_paths_of_any_system_are_answered_in_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(errors.PretrainPSError, match=r"no such file|file:|cannot be read") as caught:
        pretrainps.info(name)
    assert "'hf:/" not in str(caught.value) and "'hf:~" not in str(caught.value)
    assert main(["inspect", name]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_windows_path_is_a_path_on_windows() -> None:
    assert canonical("C:\\models\\x.pth") == "file:C:\\models\\x.pth"
    assert canonical("\\\\server\\share\\x.pth") == "file:\\\\server\\share\\x.pth"
    if os.name == "nt":
        assert local_path("file:///C:/a%20b.pth") == Path("C:\\a b.pth")


def test_two_spellings_share_one_pin(hub: FakeHub) -> None:
    hub.add("o/r", {FILES[SMALL]: authors_file(SMALL)})
    pretrainps.load(f"https://huggingface.co/o/r/blob/main/{FILES[SMALL]}", progress=False)
    hub.requests.clear()
    pretrainps.load(f"hf:o/r/{FILES[SMALL]}", progress=False)
    assert hub.requests == []
    assert main(["cache", "remove", f"https://hf.co/o/r/resolve/main/{FILES[SMALL]}?download=true", "--forget-pin"]) == 0
