"""Plain pickles of arrays, as of detectron2, are read without NumPy's own unpickling; other pickles are refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.errors import CheckpointFormatError
from pretrainps.export.weights import export_weights
from pretrainps.weights.read import read_object, read_tensors
from pretrainps.weights.unpickle import Stranger

ARRAYS = {
    "float32": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "float64": np.array(2.5),
    "half": np.array([1, 2], dtype=np.float16),
    "whole": np.array([[1, -2]], dtype=np.int64),
    "bytes": np.array([0, 255], dtype=np.uint8),
    "truth": np.array([True, False]),
    "big endian": np.array([1.5, -2.5], dtype=">f4"),
    "columns first": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "large whole": np.array([70000], dtype=np.uint32),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_what_goes_in_comes_out(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "w.pkl"
    note = {"__author__": "someone", "matching_heuristics": True, "lr": 0.1, "steps": [1, 2], "nothing": None}
    path.write_bytes(pickle.dumps({"model": OrderedDict(ARRAYS), **note}, protocol=protocol))
    if protocol < 2:  # has no mark at its start by which a pickle is known
        with pytest.raises(CheckpointFormatError):
            read_object(path)
        return
    found = read_object(path)
    assert {key: found[key] for key in note} == note
    for key, value in ARRAYS.items():
        assert found["model"][key].tolist() == value.tolist() and tuple(found["model"][key].shape) == value.shape, key
    assert set(read_tensors(path, ("model",))) == set(ARRAYS)


@pytest.mark.parametrize("arch", ["resnet18", "resnet_tiny"])
def test_our_own_file_loads_back(tmp_path: Path, arch: str) -> None:
    model = build_backbone(arch).eval()
    export_weights(model, "detectron2", tmp_path / "w.pkl")
    seen = pretrainps.inspect(tmp_path / "w.pkl")
    assert seen.problem is None and seen.recognition is not None and seen.recognition.arch == arch
    assert seen.wrapper == ("model",) and seen.recognition.file.layout == "detectron2"
    loaded = pretrainps.load(f"file:{tmp_path / 'w.pkl'}")
    state = model.state_dict()
    assert loaded.load_report.ok and set(loaded.load_report.expected_missing) == {k for k in state if k.endswith("_tracked")}
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "what",
    [
        lambda folder: Calls(Path.touch, folder / "was-here"),
        lambda folder: Calls(np.lib.format.open_memmap, str(folder / "was-here")),
        lambda folder: Calls(bytes, 1 << 40),
        lambda folder: Calls(eval, "1"),
        lambda folder: np.array([Path("x")], dtype=object),
        lambda folder: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        lambda folder: np.array(["text"]),
        lambda folder: np.array(["2020-01-01"], dtype="datetime64[D]"),
    ],
)
def test_nothing_else_is_made(tmp_path: Path, what: Any) -> None:
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": ARRAYS["half"], "b": what(tmp_path)}}, protocol=2))
    try:
        model = read_object(path)["model"]
    except CheckpointFormatError as error:
        assert "refused" in str(error)
    else:  # an inert record of a name stands where it was
        assert isinstance(model["b"], Stranger) and isinstance(model["a"], torch.Tensor)
    assert not (tmp_path / "was-here").exists()


def test_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    whole = pickle.dumps({"model": ARRAYS}, protocol=2)
    for end in range(3, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointFormatError):
            read_object(path)
    shorter = pickle.dumps({"model": {"w": np.arange(6, dtype=np.float32)}}, protocol=2).replace(b"K\x06\x85", b"K\x09\x85")
    path.write_bytes(shorter)
    with pytest.raises(CheckpointFormatError, match="another size than its numbers"):
        read_object(path)
