"""Numbers, settings and lists among the tensors: left out and listed; `inspect` and `load` agree on every file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.errors import PretrainPSError, StateDictMismatchError
from pretrainps.weights.inspect import inspect
from tests.support.weights import torch_bytes

ARCH = "resnet_tiny"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> Tensors:
    return dict(build_backbone(ARCH).state_dict())


SIDE: dict[str, dict[str, Any]] = {
    "epoch": {"epoch": 3, "mAP": 0.4},
    "extra state": {"layer1._extra_state": None},
    "list": {"log": [1, 2]},
    "text": {"arch": "resnet18", "version": b"1"},
    "dictionaries": {"optimizer": {"lr": 0.1}, "meta": {"classes": {"a": 1}}},
    "settings": {"args": argparse.Namespace(lr=0.1)},
    "numpy": {"rank1": np.float32(0.9), "cmc": np.arange(3.0)},
    "sparse, of no tensor of the model": {"graph": torch.eye(2).to_sparse()},
    "under the wrapper's prefix": {"module.epoch": 1},
    "a key that is a number": {7: "seven"},
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("label", SIDE)
def test_what_is_no_tensor_is_left_out_and_listed(tmp_path: Path, state: Tensors, label: str, prefix: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({**{prefix + key: value for key, value in state.items()}, **SIDE[label]}))
    assert "would load" in str(inspect(path)) and set(inspect(path).side_data) == {str(key) for key in SIDE[label]}
    report = pretrainps.load(f"file:{path}").load_report
    assert set(report.side_data) == {str(key) for key in SIDE[label]} and not report.ignored
    assert "no tensors, left out" in str(report)


def test_what_is_named_to_be_ignored_is_in_one_list(tmp_path: Path, state: Tensors) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({**state, "epoch": 3, "log": [1], "fc.weight": torch.ones(2, 512)}))
    report = pretrainps.load(f"file:{path}", ignore=["epoch", "fc.*", "nothing"]).load_report
    assert report.ignored == ("fc.weight", "epoch") and report.side_data == ("log",)


def test_a_cached_conversion_lists_it_again(tmp_path: Path, state: Tensors, hub: Any) -> None:
    hub.add("o/r", {"w.pth": torch_bytes({**state, "epoch": 3})})
    for _ in range(2):
        assert pretrainps.load("hf:o/r/w.pth", progress=False).load_report.side_data == ("epoch",)


AT_A_KEY: dict[str, tuple[str, Any]] = {
    "sparse": ("layer1.0.conv1.weight", lambda value: value.to_sparse()),
    "list": ("layer1.0.bn1.bias", lambda value: value.tolist()),
    "array": ("layer1.0.bn1.bias", lambda value: value.numpy()),
    "number for a counter": ("layer1.0.bn1.num_batches_tracked", lambda value: int(value)),
    "None for a counter": ("bn1.num_batches_tracked", lambda value: None),
    "meta": ("conv1.weight", lambda value: value.to("meta")),
}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("label", AT_A_KEY)
def test_a_tensor_of_the_model_must_be_a_plain_one(tmp_path: Path, state: Tensors, label: str, prefix: str) -> None:
    key, change = AT_A_KEY[label]
    path = tmp_path / "w.pth"
    file = {prefix + each: value for each, value in state.items()}
    file[prefix + key] = change(state[key])
    path.write_bytes(torch_bytes(file))
    assert "would load" not in str(inspect(path))
    with pytest.raises(StateDictMismatchError, match="NO PLAIN TENSOR") as caught:
        pretrainps.load(f"file:{path}")
    report = caught.value.report
    assert [found for found, _ in report.no_tensor] == [key]
    assert key not in report.missing + report.expected_missing and not report.side_data


def test_the_remedies_for_tensors_that_are_not_plain(tmp_path: Path, state: Tensors) -> None:
    path = tmp_path / "w.pth"
    sparse, counter = state["conv1.weight"].to_sparse(), int(state["bn1.num_batches_tracked"])
    path.write_bytes(
        torch_bytes({**state, "conv1.weight": sparse.to_dense(), "bn1.num_batches_tracked": torch.as_tensor(counter)})
    )
    assert pretrainps.load(f"file:{path}").load_report.share == 1


def with_nan(state: Tensors) -> Tensors:
    return {**state, "bn1.bias": torch.full_like(state["bn1.bias"], float("nan"))}


def of_whole_numbers(state: Tensors) -> Tensors:
    return {**state, "bn1.bias": torch.zeros_like(state["bn1.bias"], dtype=torch.int64)}


def with_a_classifier(state: Tensors) -> Tensors:
    return {**state, "fc.weight": torch.full((5, 512), float("nan")), "fc.bias": torch.zeros(5)}


def without_counters(state: Tensors) -> Tensors:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("change", [dict, with_nan, of_whole_numbers, with_a_classifier, without_counters])
def test_inspect_promises_what_load_does(tmp_path: Path, state: Tensors, change: Any, suffix: str) -> None:
    from safetensors.torch import save

    path = tmp_path / f"w{suffix}"
    path.write_bytes(save(change(state)) if suffix == ".safetensors" else torch_bytes(change(state)))
    seen = inspect(path)
    promised = "would load" in str(seen)
    assert promised == (seen.refusal is None) and seen.to_json()["refusal"] == seen.refusal
    try:
        pretrainps.load(f"file:{path}", ignore=seen.recognition.extra if seen.recognition else ())
        done = True
    except PretrainPSError as error:
        done = False
        assert str(seen.refusal).splitlines()[0][:40] in str(error)
    assert done == promised
