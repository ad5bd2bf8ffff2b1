"""Descriptions of files, for every layout that the package writes and for unknown files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.errors import PretrainPSError, StateDictMismatchError
from pretrainps.export.weights import export_weights
from pretrainps.weights.inspect import inspect
from pretrainps.weights.recognize import recognize
from tests.support.weights import FILES, authors_file, authors_tensors, random_values, torch_bytes

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("name", list(FILES))
def test_the_authors_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / FILES[name]
    path.write_bytes(authors_file(name))
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.arch == pretrainps.info(name).arch
    assert seen.wrapper == ("state_dict",) and not seen.recognition.extra
    text = str(seen)
    assert "torch zip" in text and f"'file:{path}'" in text and "all " in text


@pytest.mark.parametrize(
    ("arch", "layout", "suffix"),
    [
        ("resnet50", "torchvision", ".pth"),
        ("resnet50", "detectron2", ".pth"),
        ("resnet50", "nae", ".pth"),
        ("resnet50", "seqnet", ".safetensors"),
        ("resnet18", "mmdet", ".safetensors"),
        ("shufflenetv1", "mmdet", ".pth"),
        ("solider_swin_tiny", "solider", ".pth"),
        ("solider_swin_small", "solider", ".safetensors"),
    ],
)
def test_every_exported_layout_is_recognized_and_loads(tmp_path: Path, arch: str, layout: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    backbone = build_backbone(arch)
    export_weights(backbone, layout, path)
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.arch == arch
    model = pretrainps.load(f"file:{path}")
    state = model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("detector", "words"), [("nae", "NAE, 5532 identities, a queue of 5000"), ("seqnet", "SeqNet, 5532 identities")]
)
def test_whole_detectors_are_recognized_by_their_keys(tmp_path: Path, detector: str, words: str) -> None:
    shapes = {k: tuple(v) for k, v in json.loads((GOLDEN / f"{detector}_keys.json").read_text()).items()}
    path = tmp_path / "detector.pth"
    path.write_bytes(torch_bytes({"model": random_values(shapes), "epoch": 19}))
    seen = inspect(path)
    assert seen.detector is not None and words in seen.detector
    assert seen.recognition is not None and seen.recognition.arch == "resnet50" and not seen.recognition.extra
    model = pretrainps.load(f"file:{path}")
    assert model.load_report.share == 1 and len(model.load_report.ignored) == len(seen.recognition.known_extra)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder_q."])
def test_prefixes_and_classifiers(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "w.pth"
    tensors = {prefix + k: v for k, v in authors_tensors("resnet18-hybrid").items()}
    path.write_bytes(torch_bytes({"state_dict": {**tensors, "fc.weight": torch.zeros(751, 512)}, "optimizer": {"lr": 1}}))
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.file.prefix == prefix
    assert seen.recognition.extra == ("fc.weight",)
    assert "fc.weight [751, 512]" in str(seen)


def test_nearly_right_is_not_complete(tmp_path: Path) -> None:
    shapes = {k: tuple(v.shape) for k, v in authors_tensors("resnet18-hybrid").items()}
    assert (found := recognize(shapes)) is not None and not found.missing
    for near in ({k: v for k, v in shapes.items() if k != "layer4.1.bn2.bias"}, {**shapes, "layer4.1.bn2.bias": (7,)}):
        assert (found := recognize(near)) is not None and found.missing == ("layer4.1.bn2.bias",)
    assert recognize({}) is None and recognize({"conv1.weight": (64, 3, 7, 7)}) is None
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({k: v for k, v in authors_tensors("resnet18-hybrid").items() if not k.startswith("layer4.1")}))
    assert "like resnet18" in str(inspect(path)) and "layer4.1.conv1.weight" in str(inspect(path))
    with pytest.raises(StateDictMismatchError, match=r"MISSING.*layer4\.1"):
        pretrainps.load(f"file:{path}")


def test_what_we_saved_ourselves(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(authors_file("shufflenetv1-hybrid"))
    folder = pretrainps.save_pretrained(pretrainps.load(f"file:{path}", head="classifier", num_classes=3), tmp_path / "saved")
    text = str(inspect(folder))
    assert "saved by      pretrainps" in text and "gives the model that was saved" in text and "ignore" not in text


def test_unknown_tensors_are_described_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"encoder": {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}}))
    text = str(inspect(path))
    assert "not recognized (first keys: a.weight, a.bias)" in text and "encoder" in text and "1 float16" in text


def test_json_has_every_key(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(authors_file("shufflenetv1-hybrid"))
    found = json.loads(json.dumps(inspect(path).to_json()))
    assert found["tensors"] == len(found["keys"]) == 294 and found["architecture"] == "shufflenetv1"


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(PretrainPSError):
            inspect(path)
