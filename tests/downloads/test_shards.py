"""Checkpoints in several files with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.downloads import Cache
from pretrainps.errors import CheckpointFormatError, PretrainPSError, WeightsUnavailableError
from pretrainps.weights.inspect import inspect
from tests.support.fakehub import FakeHub

INDEX = "model.safetensors.index.json"
Files = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {key: value + 1 for key, value in build_backbone("resnet18").state_dict().items()}


def divided(state: dict[str, torch.Tensor], count: int = 3, suffix: str = ".safetensors", stem: str = "model") -> Files:
    keys = list(state)
    names = [f"{stem}-{number + 1:05}-of-{count:05}{suffix}" for number in range(count)]
    return {name: {key: state[key] for key in keys[number::count]} for number, name in enumerate(names)}


def index_of(files: Files, **metadata: object) -> dict[str, Any]:
    total = sum(value.numel() * value.element_size() for tensors in files.values() for value in tensors.values())
    return {
        "metadata": {"total_size": total} | metadata,
        "weight_map": {key: name for name, tensors in files.items() for key in tensors},
    }


def write(folder: Path, files: Files, index: object, name: str = INDEX) -> Path:
    folder.mkdir(exist_ok=True)
    for file, tensors in files.items():
        if file.endswith(".bin"):
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    (folder / name).write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("given", ["", INDEX])
@pytest.mark.parametrize("count", [1, 3])
def test_a_folder_and_its_index(tmp_path: Path, state: dict[str, torch.Tensor], count: int, given: str) -> None:
    files = divided(state, count)
    folder = write(tmp_path / "f", files, index_of(files))
    assert "resnet18" in str(inspect(folder / given))
    model = pretrainps.load(f"file:{folder / given}")
    assert model.load_report.share == 1
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_shards_of_pickles(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    files = divided(state, 2, ".bin", "pytorch_model")
    folder = write(tmp_path / "f", files, index_of(files), "pytorch_model.bin.index.json")
    assert pretrainps.load(f"file:{folder}").load_report.share == 1


def missing(folder: Path, index: dict[str, Any]) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def one_more(folder: Path, index: dict[str, Any]) -> None:
    save_file({"x": torch.ones(1)}, folder / "model-00004-of-00003.safetensors")


def of_another_number(folder: Path, index: dict[str, Any]) -> None:
    index["weight_map"] = {key: name for key, name in index["weight_map"].items() if "00003-of" not in name}


def less_inside(folder: Path, index: dict[str, Any]) -> None:
    save_file({"x": torch.ones(1)}, folder / "model-00002-of-00003.safetensors")


def more_inside(folder: Path, index: dict[str, Any]) -> None:
    index["weight_map"].popitem()


def another_total(folder: Path, index: dict[str, Any]) -> None:
    index["metadata"]["total_size"] += 4


def damaged_shard(folder: Path, index: dict[str, Any]) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (missing, "1 of 3 shards are not in its folder"),
        (one_more, "00004-of-00003.safetensors in its folder is numbered like its shards"),
        (of_another_number, "numbered up to 3, but the index names 2 files"),
        (less_inside, "lacks"),
        (more_inside, "unknown to the index"),
        (another_total, "total_size"),
        (damaged_shard, "truncated or damaged"),
    ],
)
def test_shards_that_do_not_belong_together(tmp_path: Path, state: dict[str, torch.Tensor], change: Any, words: str) -> None:
    files = divided(state)
    index = index_of(files)
    folder = write(tmp_path / "f", files, index)
    change(folder, index)
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointFormatError, match=words):
        pretrainps.load(f"file:{folder}")
    assert inspect(folder).problem


def test_a_total_that_is_not_there_is_not_compared(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    files = divided(state)
    folder = write(tmp_path / "f", files, {"metadata": None, "weight_map": index_of(files)["weight_map"]})
    assert pretrainps.load(f"file:{folder}").load_report.share == 1


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/etc/outside", "a/b.safetensors", "a\\b.safetensors", "C:x.safetensors", "..", "", 3, None],
)
def test_an_index_that_looks_elsewhere_is_refused(tmp_path: Path, name: object) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "outside.safetensors")
    folder = write(tmp_path / "f", {}, {"weight_map": {"w": name}})
    with pytest.raises(CheckpointFormatError, match="no file name in the index's own folder"):
        pretrainps.load(f"file:{folder}")


@pytest.mark.parametrize("index", ['{"weight_map": {}}', '{"weight_map": {"a": ', '{"weight_map": {"a": "' + INDEX + '"}}'])
def test_an_index_that_says_nothing(tmp_path: Path, index: str) -> None:
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(PretrainPSError):
        pretrainps.load(f"file:{tmp_path}")


@pytest.mark.parametrize("name", ["hf:o/r", f"hf:o/r/{INDEX}", f"hf:o/r/sub/{INDEX}"])
def test_on_the_hub(hub: FakeHub, state: dict[str, torch.Tensor], name: str) -> None:
    files = divided(state)
    sub = "sub/" if "sub" in name else ""
    hub.add(
        "o/r",
        {sub + file: save(tensors) for file, tensors in files.items()}
        | {sub + INDEX: json.dumps(index_of(files)).encode(), "config.json": b'{"model_type": "x"}'},
    )
    for offline in (False, True):
        model = pretrainps.load(name, progress=False, offline=offline)
        assert model.load_report.share == 1
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert Cache().pin(name) is not None
    (merged,) = Cache().original(name).iterdir()
    assert merged.name == "model.safetensors" and Cache().remove(name, forget_pin=True) > 0
    assert not Cache().original(name).exists()


def test_a_shard_that_the_hub_has_not(hub: FakeHub, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    files = divided(state)
    (lost,) = [name for name in files if "00002-of" in name]
    hub.add("o/r", {name: save(files[name]) for name in files if name != lost} | {INDEX: json.dumps(index_of(files)).encode()})
    with pytest.raises(WeightsUnavailableError, match=r"no such file[\s\S]*put the index and all its shards into one folder"):
        pretrainps.load(f"hf:o/r/{INDEX}", progress=False)
    assert Cache().names() == []
    assert pretrainps.load(f"file:{write(tmp_path / 'f', files, index_of(files))}").load_report.share == 1


def test_a_moved_shard_is_refused(hub: FakeHub, state: dict[str, torch.Tensor]) -> None:
    """Other shards behind the same index are another model: the pin holds for all of them."""
    files = divided(state)
    name = f"hf:o/r/{INDEX}"
    for change in (0, 1):
        moved = {file: save({key: value + change for key, value in tensors.items()}) for file, tensors in files.items()}
        hub.add("o/r", moved | {INDEX: json.dumps(index_of(files)).encode()})
        if not change:
            pretrainps.download(name, progress=False)
    with pytest.raises(PretrainPSError, match="forget-pin"):
        pretrainps.download(name, progress=False, force=True)
