"""Crop models and backbones as files: each computes what the model does, for any number of images of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pretrainps
from pretrainps import errors
from pretrainps.backbones import Backbone, build_backbone
from pretrainps.backbones.resnet import BasicBlock, ResNet
from pretrainps.backbones.solider_swin import SoliderSwin
from pretrainps.cli import main
from pretrainps.export.graph import check, formats
from pretrainps.export.graph.crops import LEAST_SIDE, BatchGraph, resampled
from pretrainps.export.graph.export import ExportResult, export_graph
from pretrainps.export.graph.running import Run
from pretrainps.heads import CropModel
from pretrainps.images.pixels import Preprocess, Size
from pretrainps.registry.specs import ASSUMED_INPUT, HeadSpec, InputConvention
from tests.support.detectors import small_detector
from tests.support.graphs import used

EMBEDDER, CLASSIFIER = HeadSpec(kind="embedding", embedding_dim=6), HeadSpec(kind="classifier", num_classes=5)
CAFFE = replace(
    ASSUMED_INPUT, colour="bgr", scale=255.0, mean=(103.5, 116.3, 123.7), std=(1.0, 1.0, 1.0), interpolation="bicubic"
)
CLOSE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest differences allowed here, by a row's length."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is written, and how."""

    build: Callable[[], Backbone]
    head: HeadSpec | None
    format: str
    precision: str = "float32"
    size: Size = (64, 32)
    convention: InputConvention = ASSUMED_INPUT


def _resnet() -> Backbone:
    return ResNet("resnet_narrow", BasicBlock, (1, 1, 1, 1), width=8)


def _swin() -> Backbone:
    return SoliderSwin("solider_swin_narrow", width=12, depths=(1, 1, 1, 2), heads=(1, 2, 2, 2))


# every family, head, format and precision, but not each with each
CASES = {
    "resnet": Case(_resnet, EMBEDDER, "onnx", size="crop"),
    "any size": Case(_resnet, None, "pt2", size="scene"),
    "shufflenet": Case(lambda: build_backbone("shufflenetv1"), CLASSIFIER, "torchscript", "float16"),
    "efficientnet": Case(lambda: build_backbone("timm:test_efficientnet"), None, "onnx", "float16", convention=CAFFE),
    "convnext": Case(lambda: build_backbone("timm:test_convnext"), EMBEDDER, "pt2", "bfloat16", convention=CAFFE),
    "swin": Case(_swin, HeadSpec(kind="embedding"), "torchscript", "bfloat16"),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A model and its file."""

    case: Case
    model: CropModel | Backbone
    written: ExportResult
    path: Path
    run: Run

    def expected(self, images: Tensor) -> dict[str, Tensor]:
        """Return what the package itself computes, picture by picture prepared."""
        preprocess = Preprocess(self.case.convention, size=self.case.size)
        with torch.no_grad():
            found = self.model(torch.stack([preprocess(image) for image in images]))
        return found if isinstance(found, dict) else {"scores" if self.case.head is CLASSIFIER else "embeddings": found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Write a model once."""
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in known:
            case, runs = CASES[name], []
            torch.manual_seed(0)
            backbone = case.build()
            model = (backbone if case.head is None else CropModel(backbone, case.head)).eval()
            target = formats.FORMATS[case.format]
            path = tmp_path_factory.mktemp("batches") / f"it's {name}{target.suffix}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(
                    formats.FORMATS, case.format, replace(target, open=lambda file: runs.append(target.open(file)) or runs[0])
                )
                written = export_graph(
                    model,
                    path,
                    format=case.format,
                    size=case.size,
                    precision=case.precision,  # type: ignore[arg-type]
                    convention=case.convention,
                )
            known[name] = Made(case, model, written, path, *runs)
        return known[name]

    return make


def pictures(number: int, height: int, width: int) -> Tensor:
    patches = torch.rand(number, 3, 4, 3, generator=torch.Generator().manual_seed(number))
    return nn.functional.interpolate(patches, (height, width))


each_case = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"graph {name}")) for name in CASES]
)


@each_case
def test_computes_as_the_model_does(made: Callable[[str], Made], name: str) -> None:
    it = made(name)
    sizes = [(1, 64, 64), (2, 64, 96), (5, 100, 70)] if it.case.size == "scene" else [(1, 64, 32), (2, 300, 40), (5, 20, 90)]
    for number, height, width in sizes:
        images = pictures(number, height, width)
        expected = it.expected(images)
        found = it.run({"images": images}, None)
        assert list(it.written.differences) == list(expected) and len(found) == len(expected)
        for value, wanted in zip(found, expected.values(), strict=True):
            assert value.dtype == torch.float32 and value.shape == wanted.shape
            off = (value - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
            assert float(off.max()) < CLOSE[it.case.precision], f"{number} images"
            if it.case.head is not None and it.case.head.kind == "embedding":
                torch.testing.assert_close(value.norm(dim=1), torch.ones(number))


@each_case
def test_the_printed_line_runs(made: Callable[[str], Made], name: str) -> None:
    it = made(name)
    outputs = tuple(it.written.differences)
    images = pictures(3, 80, 70)
    for value, wanted in zip(used(it.written, outputs, images=images), it.run({"images": images}, None), strict=True):
        torch.testing.assert_close(value, wanted)
    assert "images (N, 3, H, W) float32 RGB in 0..1" in it.written.use and "torchvision" not in it.written.use
    stated = f"H and W at least {LEAST_SIDE}" if it.case.size == "scene" else "resized to"
    assert stated in it.written.use


@pytest.mark.xdist_group("graph resnet")
def test_an_onnx_file_says_what_it_is(made: Callable[[str], Made]) -> None:
    import onnx

    it = made("resnet")
    document = onnx.load(it.path)
    onnx.checker.check_model(document)
    metadata = {each.key: each.value for each in document.metadata_props}
    assert metadata["what"] == "embed" and metadata["embedding_dim"] == "6" and metadata["image_size"] == "256x128"
    assert metadata["precision"] == "float32" and "RGB in 0..1, resized to 256x128 inside" in metadata["tensors"]
    assert json.loads(metadata["config"])["input"]["status"] == "assumed", "nothing said how the pixels go in"
    sizes = [
        [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (*document.graph.input, *document.graph.output)
    ]
    assert sizes == [["batch", 3, "height", "width"], ["batch", 6]]
    assert b"site-packages" not in it.path.read_bytes()


@pytest.mark.xdist_group("graph efficientnet")
def test_half_is_half_as_large(made: Callable[[str], Made]) -> None:
    import onnx

    it = made("efficientnet")
    weights = [each for each in onnx.load(it.path).graph.initializer if len(each.dims) == 4]
    assert weights and {each.data_type for each in weights} == {onnx.TensorProto.FLOAT16}
    assert [value.name for value in onnx.load(it.path).graph.output] == ["c2", "c3", "c4", "c5"]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("source", [(64, 32), (200, 31), (17, 100), (1, 1), (65, 33), (63, 500)])
def test_resizing_is_the_packages(source: tuple[int, int], interpolation: Any) -> None:
    images = torch.rand(2, 3, *source, generator=torch.Generator().manual_seed(0))
    preprocess = Preprocess(replace(ASSUMED_INPUT, interpolation=interpolation), size=(64, 32))
    expected = torch.stack([preprocess.resize(image) for image in images])
    found = resampled(images, (64, 32), interpolation)
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if source == (64, 32) else 5e-6)


def test_the_model_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CropModel(build_backbone("resnet_tiny"), EMBEDDER).half().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr("pretrainps.export.graph.export.captured", lambda graph: 1 / 0)
    with pytest.raises(
        errors.UnsupportedModelError, match=r"resnet_tiny with its head \(embed\) cannot be written as pt2: ZeroD"
    ):
        export_graph(model, tmp_path / "model.pt2", format="pt2", precision="bfloat16")
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_computes_something_else_is_refused() -> None:
    torch.manual_seed(0)
    model = build_backbone("timm:test_convnext").eval().requires_grad_(False)
    preprocess = Preprocess(ASSUMED_INPUT, size=(64, 32))
    graph = BatchGraph(model, preprocess, torch.float32)
    names = list(graph.outputs)

    def right(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return graph(**inputs)  # type: ignore[no-any-return]

    def first_of_all(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return tuple(each[:1].expand_as(each) for each in graph(**inputs))

    def unresized(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return tuple(model(preprocess.normalize(inputs["images"])).values())

    def bgr(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return graph(images=inputs["images"].flip(1))  # type: ignore[no-any-return]

    def overflown(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return (*graph(**inputs)[:-1], graph(**inputs)[-1] * torch.nan)

    def one_missing(inputs: Any, _: float | None) -> tuple[Tensor, ...]:
        return tuple(each[1:] for each in graph(**inputs))

    assert max(check.check_batches(model, preprocess, right, names, "float32").values()) < 1e-5
    for wrong in (first_of_all, unresized, bgr, overflown, one_missing):
        for precision in ("float32", "float16"):
            with pytest.raises(
                errors.UnsupportedModelError, match=r"does not find what the model finds.*float32 if it was half"
            ):
                check.check_batches(model, preprocess, wrong, names, precision)  # type: ignore[arg-type]


def test_options_that_cannot_be(tmp_path: Path) -> None:
    backbone = build_backbone("timm:test_convnext").eval()
    embedder, path = CropModel(backbone, EMBEDDER), tmp_path / "model.pt2"

    def write(model: nn.Module, **options: Any) -> None:
        export_graph(model, path, format="pt2", **options)

    with pytest.raises(errors.ArgumentError, match=r"what must be 'features'.*not 'embed'. Load it with head='embedding'"):
        write(backbone, what="embed")
    with pytest.raises(errors.ArgumentError, match="what must be 'embed' for this model, not 'detect'"):
        write(embedder, what="detect")
    with pytest.raises(errors.ArgumentError, match="precision of pt2 must be 'float32', 'float16', 'bfloat16', not 'int8'"):
        write(embedder, precision="int8")
    with pytest.raises(errors.ArgumentError, match="precision of onnx must be 'float32', 'float16', not 'bfloat16'"):
        export_graph(embedder, tmp_path / "model.onnx", format="onnx", precision="bfloat16")
    with pytest.raises(errors.ArgumentError, match="size must be"):
        write(embedder, size=(0, 5))
    detector = small_detector("oim", "resnet_tiny")
    for options in ({"size": "crop"}, {"precision": "float16"}, {"convention": CAFFE}):
        with pytest.raises(errors.ArgumentError, match=r"for crop models and backbones.*leave them out"):
            write(detector, **options)
    for half in (detector.backbone, CropModel(detector.backbone, EMBEDDER)):
        with pytest.raises(errors.UnsupportedModelError, match=r"half a backbone, without c5.*Export the detector"):
            write(half)
    for windowed in (_swin(), build_backbone("timm:tf_mobilenetv3_small_minimal_100")):
        with pytest.raises(errors.UnsupportedModelError, match=r"images of any size.*--size crop"):
            write(windowed, size="scene")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["export", "tiny-hybrid-synthetic", "--format", "torchscript", "--half", "--quiet"]
    assert main([*asked, "--what", "embed"]) == 0
    _, line = capsys.readouterr().out.split("use it: ")
    written = ExportResult({}, line)
    images = pictures(1, 256, 128)
    (found,) = used(written, ("embeddings",), images=images)
    model = pretrainps.load("tiny-hybrid-synthetic", head="embedding")
    with torch.no_grad():
        expected = model(pretrainps.preprocess("tiny-hybrid-synthetic").normalize(images))
    assert float(nn.functional.cosine_similarity(found, expected)) > 0.999
    extra = {"model": "", "licence": "", "precision": ""}
    with pytest.warns(Warning, match=r"torch\.jit"):
        torch.jit.load("tiny-hybrid-synthetic.pt", _extra_files=extra)
    assert extra["model"] == b"tiny-hybrid-synthetic" and extra["licence"].startswith(b"apache-2.0")  # type: ignore[attr-defined]
    assert extra["precision"] == b"float16"

    assert main(asked) == 1
    assert "exists already. Name another file with -o FILE.pt" in capsys.readouterr().err
    for size in ("0x4", "256", "scenes", "12x"):
        assert main([*asked, "--size", size]) == 1
        assert "--size must be crop, scene or HEIGHTxWIDTH" in capsys.readouterr().err
    assert main([*asked, "--what", "classify", "-o", "other.pt"]) == 1
    assert "what must be 'features'" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["tiny-hybrid-synthetic.pt"]
