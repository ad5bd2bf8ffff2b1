"""Whole detectors under the originals' names: read, recognized, written back."""

from __future__ import annotations

import fnmatch
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pretrainps
from pretrainps import errors
from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.export.weights import export_weights
from pretrainps.registry.specs import LocalSource
from pretrainps.weights import compare
from pretrainps.weights.inspect import inspect
from pretrainps.weights.recognize_detector import identify, recognize_detector
from tests.support.detectors import original_shapes, original_tensors, small_detector
from tests.support.weights import torch_bytes

ORIGINALS = [("nae", "nae"), ("naeplus_fuse", "nae+"), ("naeplus_res5only", "nae+"), ("seqnet", "seqnet")]
UNUSED = "roi_heads.box_predictor.cls_score"


@pytest.mark.parametrize(("keys", "kind"), ORIGINALS)
def test_an_originals_file_is_recognized_loaded_and_written_back(tmp_path: Path, keys: str, kind: str) -> None:
    theirs = original_tensors(keys)
    path = tmp_path / "epoch_19.pth"
    path.write_bytes(torch_bytes({"model": theirs, "optimizer": {"state": {}}, "epoch": 19}))
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.detector is not None, seen.problem
    assert seen.recognition.detector.kind == kind and not seen.recognition.extra and not seen.recognition.missing
    assert f"gives the {kind} on resnet50 detector" in str(seen)
    model = pretrainps.load(f"file:{path}")
    assert isinstance(model, PersonSearchDetector) and model.load_report.share == 1 and not model.training
    assert model.load_report.expected_missing == ("oim_loss.cursor",)
    # what is not used is declared, and nothing else is left out
    assert all(key.startswith(UNUSED) for key in model.load_report.ignored)
    usage = export_weights(model, "seqnet" if kind == "seqnet" else "nae", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert "strictly" in usage and back.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(back[key], torch.zeros_like(value) if key.startswith(UNUSED) else value), key


def test_sizes_are_read_off_the_file() -> None:
    """PRW's files have other tables."""
    shapes = original_shapes("seqnet")
    shapes |= {"roi_heads.reid_loss.lut": (482, 256), "roi_heads.reid_loss.cq": (500, 256)}
    found = recognize_detector(shapes)
    assert found is not None and found.detector is not None
    assert found.detector.config == {"num_identities": 482, "queue_size": 500}


@pytest.mark.parametrize(
    ("change", "missing", "left_over"),
    [
        ({"roi_heads.reid_loss.lut": (5532,)}, "oim_loss.lookup_table", "roi_heads.reid_loss.lut"),
        ({"roi_heads.reid_loss.lut": (0, 256)}, "oim_loss.lookup_table", "roi_heads.reid_loss.lut"),
        ({"rpn.head.cls_logits.weight": (9, 1024, 1, 1)}, "rpn.head.cls_logits.weight", "rpn.head.cls_logits.weight"),
        ({"roi_heads.extra.weight": (3, 3)}, None, "roi_heads.extra.weight"),
        ({"roi_heads.embedding_head.rescaler.bias": None}, "embedding_head.rescaler.bias", None),
        ({"rpn.head.conv.0.0.weight": (1024, 1024, 3, 3)}, None, "rpn.head.conv.0.0.weight"),
    ],
)
def test_what_is_not_quite_a_detector_is_still_one(
    change: dict[str, tuple[int, ...] | None], missing: str | None, left_over: str | None
) -> None:
    shapes = original_shapes("seqnet")
    for key, shape in change.items():
        if shape is None:
            del shapes[key]
        else:
            shapes[key] = shape
    found = identify(shapes)
    assert found is not None and found.detector is not None and found.detector.kind == "seqnet"
    assert found.missing == ((missing,) if missing else ()) and found.extra + found.trunk == ((left_over,) if left_over else ())


def test_the_backbone_alone_comes_when_its_architecture_is_named(tmp_path: Path) -> None:
    theirs = original_tensors("seqnet")
    path = tmp_path / "epoch_19.pth"
    path.write_bytes(torch_bytes({"model": theirs}))
    backbone = pretrainps.load(f"file:{path}", arch="resnet50")
    assert isinstance(backbone, Backbone)
    state = backbone.state_dict()
    assert torch.equal(state["layer4.0.conv1.weight"], theirs["roi_heads.box_head.layer4.0.conv1.weight"])


def test_a_damaged_detector_is_refused_with_its_report(tmp_path: Path) -> None:
    theirs = original_tensors("nae")
    spec = pretrainps.info("nae-resnet50-cuhk")
    del theirs["roi_heads.embedding_head.rescaler.bias"]
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(torch_bytes({"model": theirs}))
    with pytest.raises(errors.StateDictMismatchError, match=r"MISSING.*embedding_head\.rescaler\.bias"):
        pretrainps.load(replace(spec, sources=(LocalSource(path=str(path)),)))


@pytest.mark.parametrize("name", pretrainps.list_models("*-resnet50-*", task="detector"))
def test_what_a_registered_detector_declares_is_what_its_file_has(name: str) -> None:
    """By keys and shapes alone: the file's are the original's, with tables of the declared sizes."""
    spec = pretrainps.info(name)
    assert spec.detector is not None
    tables = {"lut": spec.detector.config["num_identities"], "cq": spec.detector.config["queue_size"]}
    shapes = original_shapes(spec.detector.kind)
    shapes |= {f"roi_heads.reid_loss.{table}": (size, 256) for table, size in tables.items()}
    with torch.device("meta"):
        model = assemble(spec.detector.kind, build_backbone(spec.arch, empty=True), spec.detector.config, spec.input)
        counts = {key: torch.int64 for key in shapes if key.endswith("num_batches_tracked")}
        theirs = {key: torch.empty(shape, dtype=counts.get(key)) for key, shape in shapes.items()}
    unused = {key for key in theirs if any(fnmatch.fnmatchcase(key, pattern) for pattern in spec.file.ignored)}
    layout = layout_of(model.family, spec.file.layout)
    native = layout.to_native({key: value for key, value in theirs.items() if key not in unused})
    report = compare(model, native, name=name, expected_missing=spec.file.expected_missing)
    assert report.ok and report.share == 1 and len(report.matched) == spec.file.tensors
    assert report.expected_missing == ("oim_loss.cursor",) and report.parameters == spec.parameters


def test_a_detector_on_another_backbone_has_no_original_layout(tmp_path: Path) -> None:
    model = small_detector("seqnet", "shufflenetv1")
    with pytest.raises(errors.LayoutError, match="seqnet"):
        export_weights(model, "seqnet", tmp_path / "w.pth")
    export_weights(model, "mmdet", tmp_path / "w.pth")  # its backbone alone
    keys = torch.load(tmp_path / "w.pth", weights_only=True)["state_dict"].keys()
    assert not any(key.startswith(("rpn", "box_")) for key in keys) and "layers.2.0.g_conv_1x1_compress.conv.weight" in keys
