"""Detectors as files: each finds what the model finds, for images of any size and any number of people."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.export.graph import check, export, onnx_file
from pretrainps.export.graph.export import ExportResult, export_graph
from pretrainps.export.graph.formats import FORMATS
from pretrainps.export.graph.modules import DetectGraph, gathered, interpolated, resized_sides
from pretrainps.export.graph.running import Run
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import TINY, lively_detector, small_detector
from tests.support.graphs import used

Detector = PersonSearchDetector[Any]
SIZES = [(96, 128), (101, 77), (90, 400)]
# every format and every detector, but not each with each: all are written from one graph, and ONNX takes half a minute
DETECT = [("seqnet", "onnx"), ("nae+", "torchscript"), ("oim", "pt2"), ("nae", "torchscript")]
EMBED = [("seqnet", "torchscript"), ("nae+", "pt2")]
Written = tuple[Detector, ExportResult, Path, Run]
Make = Callable[[str, str, str], Written]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Write a detector once, and run its file."""
    known: dict[tuple[str, str, str], Written] = {}

    def make(kind: str, format: str, what: str) -> Written:
        if (kind, format, what) not in known:
            # 0.5 is what every real detector has, and a number that a graph also holds for other ends
            model, target, runs = lively_detector(kind, "resnet_tiny", score_threshold=0.5), FORMATS[format], []
            path = tmp_path_factory.mktemp("graphs") / f"{what}{target.suffix}"
            with pytest.MonkeyPatch.context() as patch:  # a file that was loaded to be checked need not be loaded again
                patch.setitem(FORMATS, format, replace(target, open=lambda file: runs.append(target.open(file)) or runs[0]))
                written = export_graph(model, path, format=format, what=what)  # type: ignore[arg-type]
            known[kind, format, what] = (model, written, path, *runs)
        return known[kind, format, what]

    return make


def together(cases: list[tuple[str, str]]) -> list[Any]:
    """Keep all tests of a file on one worker, so that it is written once."""
    return [pytest.param(*case, marks=pytest.mark.xdist_group("graphs " + " ".join(case))) for case in cases]


def picture(size: tuple[int, int]) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(sum(size)))


def close(found: dict[str, Tensor], expected: dict[str, Tensor], exactly: bool) -> None:
    for name, value in found.items():
        tolerance = 0.0 if exactly else 2e-3 if name == "boxes" else 1e-4
        torch.testing.assert_close(value, expected[name], rtol=0.0, atol=tolerance)


@pytest.mark.parametrize(("kind", "format"), together(DETECT))
def test_detects_as_the_model_does(made: Make, kind: str, format: str) -> None:
    model, written, _, run = made(kind, format, "detect")
    assert set(written.differences) == {"boxes", "scores", "embeddings"}
    everyone = copy.copy(model)
    everyone.config = replace(model.config, score_threshold=0.0)
    for size in SIZES:
        image = picture(size)
        own, all_of_them = model([image])[0], everyone([image])[0]
        scores = all_of_them["scores"].tolist()
        for threshold, people, expected in (
            (None, len(own["scores"]), own),
            ((scores[0] + scores[1]) / 2, 1, all_of_them),
            ((scores[4] + scores[5]) / 2, 5, all_of_them),
            (1.0, 0, all_of_them),
        ):
            found = dict(zip(("boxes", "scores", "embeddings"), run({"image": image}, threshold), strict=True))
            assert [len(each) for each in found.values()] == [people] * 3 and found["boxes"].shape[1] == 4
            close(found, {name: expected[name][:people] for name in found}, exactly=format != "onnx" and threshold is None)


@pytest.mark.parametrize(("kind", "format"), together(EMBED))
def test_embeds_as_the_model_does(made: Make, kind: str, format: str) -> None:
    model, _, _, run = made(kind, format, "embed")
    for size in SIZES:
        for boxes in ([[5.0, 6, 40, 70]], [[0.0, 0, 20, 20], [-5, 10, 500, 60], [7.5, 8, 70, 90]]):
            query = torch.tensor(boxes)
            (found,) = run({"image": picture(size), "boxes": query}, None)
            close({"vectors": found}, {"vectors": model.embed([picture(size)], [query])[0]}, exactly=False)


@pytest.mark.parametrize(("kind", "format"), together([("seqnet", "onnx"), ("oim", "pt2"), ("nae", "torchscript")]))
def test_the_printed_line_runs(made: Make, kind: str, format: str) -> None:
    _, written, _, run = made(kind, format, "detect")
    image = picture(SIZES[0])
    found = used(written, ("boxes", "scores", "embeddings"), image=image)
    for value, wanted in zip(found, run({"image": image}, None), strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.xdist_group("graphs seqnet onnx")
def test_an_onnx_file_says_what_it_is(made: Make) -> None:
    import onnx

    model, written, path, _ = made("seqnet", "onnx", "detect")
    document = onnx.load(path)
    onnx.checker.check_model(document)
    metadata = {each.key: each.value for each in document.metadata_props}
    config = json.loads(metadata["config"])
    assert config["detector"]["kind"] == "seqnet" and config["arch"] == "resnet_tiny" and metadata["what"] == "detect"
    assert config["detector"]["config"]["min_size"] == model.config.min_size
    (image,) = document.graph.input
    assert [each.dim_param or each.dim_value for each in image.type.tensor_type.shape.dim] == [3, "height", "width"]
    assert [each.name for each in document.graph.output] == ["boxes", "scores", "embeddings"]
    assert "score_threshold" in {each.name for each in document.graph.initializer}
    assert b"site-packages" not in path.read_bytes(), "nothing of this machine is in it"
    assert path.stat().st_size < 1.05 * 4 * sum(parameter.numel() for parameter in model.parameters())
    assert "onnxruntime" in written.use and "boxes (K, 4)" in written.use


@pytest.mark.xdist_group("graphs oim pt2")
def test_a_program_says_what_it_is(made: Make) -> None:
    _, written, path, _ = made("oim", "pt2", "detect")
    with zipfile.ZipFile(path) as archive:  # torch.export.load(path, extra_files=...) takes seconds
        extra = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if "/extra/" in name}
    assert extra["what"] == b"detect" and json.loads(extra["config"])["detector"]["kind"] == "oim"
    assert b"site-packages" not in path.read_bytes() and "torch.export.load" in written.use


@pytest.mark.xdist_group("graphs nae torchscript")
def test_a_script_says_what_it_is(made: Make) -> None:
    _, written, path, _ = made("nae", "torchscript", "detect")
    extra = {"what": "", "config": ""}
    with pytest.warns(Warning, match=r"torch\.jit"):
        torch.jit.load(path, _extra_files=extra)
    assert extra["what"] == b"detect" and json.loads(extra["config"])["detector"]["kind"] == "nae"
    assert "torch.jit.load" in written.use


def test_sides_and_resizing_are_the_models() -> None:
    model = small_detector("oim", min_size=900, max_size=1500)
    generator = torch.Generator().manual_seed(0)
    for height, width in torch.randint(2, 3000, (2000, 2), generator=generator).tolist():
        scale = min(900 / min(height, width), 1500 / max(height, width))
        assert resized_sides(height, width, 900, 1500).tolist() == [int(height * scale), int(width * scale)]
    for size in SIZES:
        (group,) = model.eval().transform.groups([picture(size)])
        height, width = resized_sides(*size, 900, 1500).tolist()
        assert group.batch.image_sizes == [(height, width)]
        for resize in (interpolated, gathered):
            torch.testing.assert_close(
                resize(model.transform.normalize(picture(size)), (height, width)),
                group.batch.tensors[0, :, :height, :width],
                rtol=0,
                atol=2e-4,  # noise, whose pixels differ by 4, and places rounded to 3e-5
            )


def test_a_graph_is_the_model_run_eagerly() -> None:
    """BGR pixels, and a threshold of its own."""
    torch.manual_seed(0)
    settings = {"num_identities": 5, "queue_size": 5, "min_size": 64, "max_size": 128, "score_threshold": 0.0}
    bgr = replace(ASSUMED_INPUT, colour="bgr")
    model = assemble("seqnet", build_backbone("resnet18"), settings, bgr).eval().requires_grad_(False)
    image = picture((60, 90))
    boxes, scores, embeddings = DetectGraph(model, interpolated)(image)
    expected = model([image])[0]
    assert len(boxes)
    for found, name in ((boxes, "boxes"), (scores, "scores"), (embeddings, "embeddings")):
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4)


def test_the_model_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_detector("seqnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    monkeypatch.setattr(export, "captured", lambda graph: 1 / 0)
    with pytest.raises(errors.UnsupportedModelError, match="seqnet on resnet18 cannot be written as pt2: ZeroDivisionError"):
        export_graph(model, tmp_path / "model.pt2", format="pt2")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "box_head" in name)
    assert list(tmp_path.iterdir()) == []


class _Fork(torch.nn.Module):
    """What no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if bool(x.sum() > 0) else x


def test_what_cannot_be_followed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = small_detector("oim")
    model.backbone.get_submodule("layer1").append(_Fork())  # type: ignore[operator]
    with pytest.raises(errors.UnsupportedModelError, match="oim on resnet18 cannot be written as pt2") as caught:
        export_graph(model, tmp_path / "model.pt2", format="pt2")
    assert len(str(caught.value).splitlines()) == 1 and "Nothing was kept" in str(caught.value)
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


@pytest.mark.xdist_group("graphs oim pt2")
def test_a_graph_that_finds_something_else_is_refused(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PROBES", 1)
    model, _, _, run = made("oim", "pt2", "detect")
    model = model.requires_grad_(False)

    def moved(inputs: Any, threshold: float | None) -> tuple[Tensor, ...]:
        boxes, scores, embeddings = run(inputs, threshold)
        return boxes + 1, scores, embeddings

    def fewer(inputs: Any, threshold: float | None) -> tuple[Tensor, ...]:
        return tuple(each[1:] for each in run(inputs, threshold))

    def unfiltered(inputs: Any, threshold: float | None) -> tuple[Tensor, ...]:
        return run(inputs, threshold if threshold != 1.0 else 0.0)

    assert check.check_detecting(model, run) == {"boxes": 0.0, "scores": 0.0, "embeddings": 0.0}
    for wrong in (moved, fewer, unfiltered):
        with pytest.raises(errors.UnsupportedModelError, match="does not find what the model finds"):
            check.check_detecting(model, wrong)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(errors.MissingPackageError, match=r"onnxscript, which is .*pip install 'pretrainps\[export\]'"):
        export_graph(small_detector("oim"), tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "format", "kind"),
    [
        ("model.onnx", "tflite", errors.ArgumentError),
        ("model.pt", "onnx", errors.ArgumentError),
        ("model.pth", "torchscript", errors.ArgumentError),
        ("model", "pt2", errors.ArgumentError),
    ],
)
def test_bad_names(tmp_path: Path, file: str, format: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"format|ends in"):
        export_graph(small_detector("oim"), tmp_path / file, format=format)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for other in (torch.nn.Linear(2, 2), torch.nn.Sequential(build_backbone("resnet_tiny"))):
        with pytest.raises(errors.UnsupportedModelError, match="is no detector, crop model or backbone"):
            export_graph(other, tmp_path / "model.onnx", format="onnx")
    with pytest.raises(errors.ArgumentError, match="what must be"):
        export_graph(small_detector("oim"), tmp_path / "model.pt2", format="pt2", what="both")  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match="export the original"):
        export_graph(small_detector("oim").eval().optimize_for_inference(), tmp_path / "model.pt2", format="pt2")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from pretrainps import build_detector, save_pretrained

    saved = tmp_path / "model"
    small = {"num_identities": 5, "queue_size": 5, "min_size": 64, "max_size": 96, "rpn_proposals": 10}
    save_pretrained(build_detector("nae", backbone=build_backbone("resnet18"), config=small), saved)
    file = tmp_path / "query.pt"
    command = ["export", f"file:{saved}", "--format", "torchscript", "--what", "embed", "-o", str(file), "--quiet"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"{file}: torchscript, " in out and "embeddings 0" in out
    assert f"torch.jit.load({str(file)!r})(image, boxes)" in out and "-> embeddings (N, dim)" in out
    assert main(["export", f"file:{saved}", "--format", "onnx", "-o", str(file), "--quiet"]) == 1
    assert "ends in .onnx" in capsys.readouterr().err
    assert main(["export", f"file:{saved}", "--format", "onnx", "-o", str(file), "--quiet", "--set", "min_sise=80"]) == 1
    assert "Did you mean 'min_size'" in capsys.readouterr().err


def test_settings_go_into_the_file(tmp_path: Path) -> None:
    """Those that were set, and those of a copy."""
    model, image, file = lively_detector("nae+", "resnet_tiny", **TINY), torch.rand(3, 50, 70), tmp_path / "set.pt2"
    model.config = model.config.changed({"min_size": 80, "max_size": 110})
    other = model.configured(score_threshold=0.9, max_detections=3)
    export_graph(other, file, format="pt2")
    boxes, scores, _ = FORMATS["pt2"].open(file)({"image": image}, None)
    (expected,) = other([image])
    assert 0 < len(scores) == len(expected["scores"]) <= 3
    torch.testing.assert_close(boxes, expected["boxes"], rtol=1e-3, atol=0.05)
