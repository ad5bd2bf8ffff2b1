"""Checkpoints: what goes in comes out; what is damaged is passed over; what does not fit on the disk leaves no trace."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pretrainps.errors import CacheError, CheckpointFormatError
from pretrainps.training.engine.checkpoints import Checkpoints, Snapshot, damage_of, load_snapshot, weights_file
from pretrainps.weights.write import read_metadata


def snapshot(number: int = 0, *, averaged: bool = False) -> Snapshot:
    torch.manual_seed(number)
    shared = torch.randn(40, 50)
    model = {
        "a.weight": shared,
        "tied.weight": shared,
        "strided": torch.randn(6, 4).t(),
        "half": torch.randn(3).bfloat16(),
        "cursor": torch.tensor(17),
        "empty": torch.zeros(0, 5),
    }
    training = {
        "optimizer": {
            "state": {0: {"step": 3, "momentum": torch.randn(4)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
        },
        "scaler": None,
        "randomness": [{"torch": torch.get_rng_state(), "python": (3, (1, 2), None)}],
    }
    mean = {name: value * 2 for name, value in model.items()} if averaged else None
    return Snapshot(model=model, averaged=mean, training=training, state={"step": number, "metrics": {"mAP": 0.1 + 0.2}})


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("averaged", [False, True])
def test_what_goes_in_comes_out(tmp_path: Path, averaged: bool) -> None:
    given = snapshot(averaged=averaged)
    path = Checkpoints(tmp_path / "c", keep=2).save(5, given)
    found = load_snapshot(path)
    for name in ("model", "averaged", "training", "state"):
        assert plain(getattr(found, name)) == plain(getattr(given, name)), name
    assert damage_of(path) is None
    assert weights_file(path).name == ("averaged.safetensors" if averaged else "model.safetensors")


def test_the_last_ones_stay_and_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (9, 10, 100):
        checkpoints.save(step, snapshot(step))
        checkpoints.save(step, snapshot(step), evaluated=True)
    best = checkpoints.save_best({"w": torch.ones(2)}, {"step": 10, "metrics": {"mAP": 0.5}})
    checkpoints.save(101, snapshot(101))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "step_000000100_evaluated",
        "step_000000101",
    ]
    newest = checkpoints.newest_whole()
    assert newest is not None and newest.name == "step_000000101"
    assert torch.equal(load_file(best)["w"], torch.ones(2)) and read_metadata(best)["metrics"] == {"mAP": 0.5}


def truncate(path: Path) -> None:
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def flip(path: Path) -> None:
    content = bytearray((path / "training.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "training.pt").write_bytes(content)


DAMAGES: dict[str, Any] = {
    "truncated": truncate,
    "a flipped bit": flip,
    "a file gone": lambda path: (path / "state.json").unlink(),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "half a manifest": lambda path: (path / "manifest.json").write_text('{"model.safetensors": [1,'),
    "another manifest": lambda path: (path / "manifest.json").write_text("[1]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    whole = checkpoints.save(1, snapshot(1))
    broken = checkpoints.save(2, snapshot(2))
    DAMAGES[damage](broken)
    with caplog.at_level(logging.WARNING, logger="pretrainps"):
        assert checkpoints.newest_whole() == whole
    assert str(broken) in caplog.text and "going back" in caplog.text
    again = checkpoints.save(2, snapshot(2))
    assert again == broken and damage_of(again) is None, "the run comes by once more and writes it anew"
    DAMAGES[damage](again)
    DAMAGES[damage](whole)
    assert checkpoints.newest_whole() is None


def test_loading_runs_nothing(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path, keep=1).save(1, snapshot())

    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was-here",))

    torch.save({"optimizer": Harmful()}, path / "training.pt", pickle_module=pickle)
    with pytest.raises(CheckpointFormatError, match="refused"):
        load_snapshot(path)
    assert not (tmp_path / "was-here").exists()


@contextlib.contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Let the system refuse to write more than so many bytes to a file, as a full disk or a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_does_not_fit_leaves_no_trace(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    before = checkpoints.save(1, snapshot(1))
    best = checkpoints.save_best({"w": torch.ones(2)}, {"step": 1})
    with small_files(4096):
        with pytest.raises(CacheError, match=r"no space left.*step_000000001 is whole"):
            checkpoints.save(2, snapshot(2))
        with pytest.raises(CacheError, match="no space left"):
            checkpoints.save_best({"w": torch.ones(5000)}, {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "step_000000001"]
    assert damage_of(before) is None and torch.equal(load_file(best)["w"], torch.ones(2))
    with small_files(4096), pytest.raises(CacheError, match="No checkpoint was written yet"):
        Checkpoints(tmp_path / "new", keep=1).save(1, snapshot(1))
    assert not list((tmp_path / "new").iterdir())


def test_remains_of_a_killed_process_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(1, snapshot())
    (tmp_path / ".step_000000002.tmp").mkdir()
    (tmp_path / ".step_000000002.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".best.safetensors.x.tmp").write_bytes(b"half")
    checkpoints.clear_remains()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert json.loads((path / "state.json").read_text()) == snapshot().state
