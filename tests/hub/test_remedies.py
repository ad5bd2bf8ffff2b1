"""Every remedy in an error of names, downloads or the cache command is executed as printed, and works."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

import pretrainps
from pretrainps import errors
from pretrainps.cli import main
from pretrainps.downloads import Cache, fetch
from pretrainps.registry import find_spec
from pretrainps.registry.specs import HttpSource
from tests.support.fakedrive import FakeDrive
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer
from tests.support.weights import FILES, REPO, authors_file, authors_tensors, torch_bytes

SMALL = "shufflenetv1-hybrid"
FILE = FILES[SMALL]


@cache
def bare() -> bytes:
    return authors_file(SMALL)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = pretrainps.save_pretrained(pretrainps.load("seqnet-tiny-synthetic"), tmp_path_factory.mktemp("saved"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(name: str, run: Callable[[str], object] | None = None) -> str:
    """Return the error of loading, which must be one of this package."""
    with pytest.raises(errors.PretrainPSError) as caught:
        (run or load)(name)
    return str(caught.value)


def load(name: str) -> object:
    return pretrainps.load(name, progress=False)


def command_of(message: str) -> list[str]:
    """Return the last command in backticks, as a shell would hand it over."""
    return shlex.split(re.findall(r"`pretrainps ([^`]+)`", message)[-1])


def named_in(message: str) -> list[str]:
    """Return the names that a message suggests."""
    return re.findall(r"(?:Write |or )(hf:\S+?)[.,]?(?=\s|$)", message)


def do(message: str) -> None:
    """Run the printed command, which must end well."""
    assert main(command_of(message)) == 0


# --- repositories of plain files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["hf:a/bare", "hf:a/bare/shuflenet.pth", "hf:a/bare@v9", "hf:a/bare/resolve/v9/x.pth", "https://hf.co/a/bare/tree/main"],
)
def test_the_names_to_write_for_a_repository_of_plain_files(hub: FakeHub, name: str) -> None:
    hub.add("a/bare", {"sub/shufflenet.pth": bare(), "README.md": b"x", "zoo.pth": bare()})
    message = refusal(name)
    assert "README.md" in message and "To place" not in message
    names = named_in(message)
    assert set(names) == {"hf:a/bare/sub/shufflenet.pth", "hf:a/bare/zoo.pth"}
    if "shuf" in name:
        assert names[0] == "hf:a/bare/sub/shufflenet.pth", "the nearest first"
    assert pretrainps.load(names[0], progress=False).load_report.share == 1
    assert Cache().names() == [names[0]], "the failure left nothing"


def test_another_librarys_model_and_one_without_weights(hub: FakeHub) -> None:
    hub.add("a/theirs", {"config.json": b'{"model_type": "other"}', "pytorch_model.bin": bare()})
    (name,) = named_in(message := refusal("hf:a/theirs"))
    assert "another library's" in message and name == "hf:a/theirs/pytorch_model.bin"
    load(name)
    hub.add("a/none", {"README.md": b"x"})
    assert "None of these has the name of a weight file" in refusal("hf:a/none")
    hub.add("a/empty", {})
    assert "It is empty" in refusal("hf:a/empty")


def test_shards_are_named_by_their_index(hub: FakeHub) -> None:
    files = {f"sub/model-0000{n}-of-00002.safetensors": b"x" for n in (1, 2)}
    hub.add("a/shards", {**files, "sub/model.safetensors.index.json": b"{}"})
    assert named_in(refusal("hf:a/shards")) == ["hf:a/shards/sub/model.safetensors.index.json"]


def test_the_revisions_of_a_repository(hub: FakeHub, saved: dict[str, bytes]) -> None:
    commit = hub.add("me/mine", saved)
    hub.tags["me/mine"] = {"v1.0": commit, "v0.9": commit}
    message = refusal("hf:me/mine@v1")
    assert "It has main, v1.0, v0.9" in message
    names = named_in(message)
    assert names == ["hf:me/mine@v1.0", "hf:me/mine"]
    for name in names:
        load(name)
    hub.add(REPO, {FILE: bare()})
    assert f"Write {SMALL} for its main branch" in refusal(f"{SMALL}@v9")
    load(SMALL)


# --- pins --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draft",
    [
        {"config.json": b'{"model_type": "other"}'},
        {"config.json": b"[]"},
        {"config.json": b'{"pretrainps": {"format": 99, "model": {}}}'},
        {"config.json": b'{"pretrainps": {"format": 1, "model": {"arch": 3}}}'},
        {"README.md": b"nothing yet"},
        {"config.json": None},  # ours, with its weights still to come
    ],
)
def test_a_repository_that_is_finished_later(hub: FakeHub, saved: dict[str, bytes], draft: dict[str, bytes | None]) -> None:
    hub.add("me/mine", {name: body if body is not None else saved[name] for name, body in draft.items()})
    refusal("hf:me/mine")
    assert Cache().pinned_names() == []
    hub.add("me/mine", saved)
    load("hf:me/mine")
    assert Cache().pinned_names() == ["hf:me/mine"], "what was understood is pinned"
    hub.requests.clear()
    load("hf:me/mine")
    assert hub.requests == []


@pytest.mark.parametrize(
    "broken",
    [
        b"\x80\x02}q\x00.",
        torch_bytes({"state_dict": {"some.key": torch.zeros(2)}}),
        torch_bytes({"state_dict": {**dict(list(authors_tensors(SMALL).items())[:-20])}}),
        torch_bytes({"state_dict": authors_tensors(SMALL)})[:-50000],
    ],
    ids=["no tensors", "unknown", "incomplete", "truncated"],
)
def test_a_broken_file_that_is_mended_later(hub: FakeHub, broken: bytes) -> None:
    hub.add("me/w", {"w.pth": broken})
    message = refusal("hf:me/w/w.pth")
    assert "was not pinned" in message or "deleted" in message
    assert Cache().pinned_names() == []
    hub.requests.clear()
    refusal("hf:me/w/w.pth")
    assert hub.count("GET .*resolve") <= 1, "an unchanged draft is not fetched again"
    hub.add("me/w", {"w.pth": bare()})
    load("hf:me/w/w.pth")
    assert Cache().pinned_names() == ["hf:me/w/w.pth"]


def test_a_draft_is_used_offline_and_where_the_hub_does_not_answer(hub: FakeHub, saved: dict[str, bytes]) -> None:
    hub.add("me/mine", saved)
    pretrainps.info("hf:me/mine")
    assert Cache().pinned_names() == []
    hub.fault(".*", status=503, times=1000)
    assert pretrainps.info("hf:me/mine").detector is not None


@pytest.mark.parametrize("name", ["hf:me/w/w.pth", "hf:me/w/my w.pth", "hf:me/w/$HOME 'w'.pth"])
def test_a_pinned_file_that_cannot_be_used(hub: FakeHub, name: str) -> None:
    """`download` pins what is a checkpoint; loading finds out that it is none of ours."""
    file = name.partition("/")[2].partition("/")[2]
    repo = name.removeprefix("hf:").removesuffix(f"/{file}")
    spec = replace(find_spec(SMALL), name=name, sources=(replace(find_spec(SMALL).sources[0], repo=repo, file=file),))
    hub.add(repo, {file: torch_bytes({"state_dict": {"some.key": torch.zeros(2)}})})
    spec = replace(spec, published_size=None)
    fetch(spec, cache=Cache(), progress=False)
    hub.add(repo, {file: bare()})
    message = refusal(name)
    do(message)
    load(name)


def test_a_changed_file_behind_a_pin(hub: FakeHub, saved: dict[str, bytes]) -> None:
    hub.add("me/mine", saved)
    load("hf:me/mine")
    other = torch_bytes({"state_dict": {k: v + 0 for k, v in authors_tensors(SMALL).items()}, "epoch": 1})
    hub.add(REPO, {FILE: bare()})
    load(SMALL)
    hub.add(REPO, {FILE: other})
    message = refusal(SMALL, lambda name: pretrainps.download(name, force=True, progress=False))
    do(message)
    load(SMALL)
    model = pretrainps.load("nae-tiny-synthetic")
    folder = pretrainps.save_pretrained(model, Cache().root.parent / "nae")
    hub.add("me/mine", {path.name: path.read_bytes() for path in folder.iterdir()})
    do(refusal("hf:me/mine", lambda name: pretrainps.download(name, force=True, progress=False)))
    assert type(load("hf:me/mine")) is type(model), "the configuration's pin was forgotten too"


def test_a_pinned_commit_that_is_gone(hub: FakeHub, saved: dict[str, bytes]) -> None:
    hub.add("me/mine", saved)
    load("hf:me/mine")
    shutil.rmtree(Cache().folder("hf:me/mine"))
    hub.commits["me/mine"].clear()  # its history was rewritten
    hub.add("me/mine", {**saved, "README.md": b"new"})
    do(refusal("hf:me/mine"))
    load("hf:me/mine")


@pytest.mark.parametrize("part", ["hf:me/mine", "hf:me/mine/config.json"])
def test_a_damaged_pin(hub: FakeHub, saved: dict[str, bytes], part: str) -> None:
    hub.add("me/mine", saved)
    load("hf:me/mine")
    Cache().pin_path("hf:me/mine/config.json").write_text("{")
    do(refusal("hf:me/mine"))
    load("hf:me/mine")


# --- copies in the cache -----------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """Damage a file in a way that neither its size nor its time shows."""
    import os

    stat = path.stat()
    body = bytearray(path.read_bytes())
    body[:100] = bytes(100)
    path.write_bytes(body)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_fetch_it_again_fetches_it_again(hub: FakeHub) -> None:
    hub.add(REPO, {FILE: bare()})
    spoil(pretrainps.download(SMALL, progress=False))
    message = refusal(SMALL)
    assert "was damaged on this machine" in message and command_of(message) == ["download", SMALL, "--force"]
    hub.requests.clear()
    do(message)
    assert hub.count("GET .*resolve") == 1
    load(SMALL)


@pytest.mark.parametrize("how", ["changed", "noticed by download"])
def test_a_copy_that_was_changed(hub: FakeHub, how: str) -> None:
    hub.add(REPO, {FILE: bare()})
    path = pretrainps.download(SMALL, progress=False)
    if how == "changed":
        path.write_bytes(bare() + b"more")
    else:
        spoil(path)
    message = refusal(SMALL, lambda name: pretrainps.download(name, progress=False))
    first, second = re.findall(r"`pretrainps ([^`]+)`", message)
    assert second == f"{first} --forget-pin"
    assert main(shlex.split(first)) == 0
    load(SMALL)


def test_a_published_hash_and_a_changed_copy(files: FileServer) -> None:
    import hashlib

    source = HttpSource(url=files.put("w.pth", bare()))
    spec = replace(
        find_spec(SMALL), sources=(source,), published_size=None, sha256=hashlib.sha256(bare()).hexdigest(), name="model"
    )
    fetch(spec, cache=Cache(), progress=False).path.write_bytes(b"changed")
    with pytest.raises(errors.IntegrityError) as caught:
        fetch(spec, cache=Cache(), progress=False)
    assert "forget-pin" not in str(caught.value)
    do(str(caught.value))
    fetch(spec, cache=Cache(), progress=False)


def test_a_local_file_that_is_not_the_expected_one(tmp_path: Path, saved: dict[str, bytes]) -> None:
    for name, body in saved.items():
        (tmp_path / name).write_bytes(body)
    (tmp_path / "model.safetensors").write_bytes(saved["model.safetensors"] + b"x")
    message = refusal(f"file:{tmp_path}")
    assert "cache" not in message and "Copy it again" in message
    (tmp_path / "model.safetensors").write_bytes(saved["model.safetensors"])
    load(f"file:{tmp_path}")


def test_placing_by_hand(hub: FakeHub) -> None:
    message = refusal(SMALL)
    target = Path(re.search(r"put it at (\S+?)\.?$", message)[1])  # type: ignore[index]
    target.parent.mkdir(parents=True)
    target.write_bytes(b"not this one")
    message = refusal(SMALL)
    assert "Delete it, then load again" in message
    target.unlink()
    target.write_bytes(bare())
    spec = replace(find_spec(SMALL), published_size=None)
    assert pretrainps.load(spec, offline=True).load_report.share == 1
    hub.requests.clear()
    assert pretrainps.load(spec, progress=False).load_report.share == 1 and hub.requests == []


def test_offline_and_then_where_there_is_a_network(hub: FakeHub, saved: dict[str, bytes]) -> None:
    hub.add("me/mine", saved)
    hub.add(REPO, {FILE: bare()})
    for name in (SMALL, "hf:me/mine", f"hf:{REPO}/{FILE}"):
        do(refusal(name, lambda name: pretrainps.load(name, offline=True)))
        pretrainps.load(name, offline=True)


# --- logins, networks, disks -------------------------------------------------------------------------------------------


def test_a_token_opens_a_private_repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/w", {"w.pth": bare()})
    hub.private["me/w"] = "hf_secret"
    assert "set HF_TOKEN" in refusal("hf:me/w/w.pth")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load("hf:me/w/w.pth")


def test_a_quota_that_is_used_up_today(drive: FakeDrive) -> None:
    from tests.support.fakedrive import QUOTA_PAGE

    identity = "1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6"
    drive.pages[identity] = QUOTA_PAGE
    assert "try again in a day" in refusal("resnet50-luperson")
    del drive.pages[identity]
    drive.files[identity] = torch_bytes(authors_tensors("resnet50-hybrid"))
    load("resnet50-luperson")


def test_another_folder_for_the_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add(REPO, {FILE: bare()})
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "file"), "~no-such-user/cache"):
        monkeypatch.setenv("PRETRAINPS_HOME", place)
        assert "Set PRETRAINPS_HOME to another folder" in refusal(SMALL)
    monkeypatch.setenv("PRETRAINPS_HOME", str(tmp_path / "other"))
    load(SMALL)


@pytest.mark.parametrize("argument", ["--force", "--offline"])
def test_force_without_a_network(hub: FakeHub, argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add(REPO, {FILE: bare()})
    assert main(["download", SMALL, "--force", "--offline"]) == 1
    assert "Use one of the two" in capsys.readouterr().err
    pretrainps.download(SMALL, progress=False)
    assert main(["download", SMALL, argument, "--quiet"]) == 0


# --- names and files ---------------------------------------------------------------------------------------------------


def test_names_that_are_nearly_right(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, {FILE: bare()})
    (name,) = re.findall(r"Did you mean '(\S+)'", refusal("shufflenet-hybrid"))
    assert pretrainps.info(name).name == SMALL
    (tmp_path / "w.pth").write_bytes(bare())
    monkeypatch.chdir(tmp_path)
    (name,) = re.findall(r"write '(file:.+?)'", refusal("./w.pth"))
    load(name)
    (name,) = re.findall(r"the Hub '(hf:.+?)'", refusal(f"{REPO}/{FILE}"))
    load(name)
    for command in (["list"], ["cache"]):
        assert main(command) == 0


def test_a_file_of_no_known_architecture(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("me/w", {"w.pth": torch_bytes({"some.key": torch.zeros(2)})})
    message = refusal("hf:me/w/w.pth")
    assert main(command_of(message)) == 0 and "some.key" in capsys.readouterr().out
    assert "--arch timm:NAME" in message


# --- the cache command -------------------------------------------------------------------------------------------------


def test_the_cache_lists_what_it_can_forget(hub: FakeHub, saved: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("me/mine", saved)
    pretrainps.info("hf:me/mine")  # its configuration alone
    assert main(["cache"]) == 0 and "hf:me/mine" in (out := capsys.readouterr().out) and "incomplete" in out
    load("hf:me/mine")
    assert main(["cache", "remove", "hf:me/mine"]) == 0
    assert main(["cache"]) == 0 and re.search(r"hf:me/mine +0.0 MB +no file +pinned", capsys.readouterr().out)
    assert main(["cache", "remove", "hf:me/mine"]) == 1 and "--forget-pin" in capsys.readouterr().err
    assert main(["cache", "remove", "hf:me/mine", "--forget-pin"]) == 0 and "and its pin" in capsys.readouterr().out
    assert main(["cache"]) == 0 and "hf:me/mine" not in capsys.readouterr().out
    assert not list((Cache().root / "pins").iterdir())


def test_what_is_not_in_the_cache_is_an_error(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add(REPO, {FILE: bare()})
    load(SMALL)
    assert main(["cache", "remove", "shufflenet-hybrid", SMALL]) == 1
    captured = capsys.readouterr()
    assert f"Did you mean {SMALL}?" in captured.err and f"removed {SMALL}" in captured.out, (
        "the others are removed all the same"
    )
    assert main(["cache", "remove"]) == 1
    assert main(command_of(capsys.readouterr().err)) == 0
