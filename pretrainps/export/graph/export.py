"""Write a model as a graph, and see that it computes the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from pretrainps._version import __version__
from pretrainps.backbones import Backbone
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, PretrainPSError, UnsupportedModelError
from pretrainps.export.graph.capture import captured
from pretrainps.export.graph.check import check_batches, check_detecting, check_embedding
from pretrainps.export.graph.crops import BatchGraph, BatchModel
from pretrainps.export.graph.formats import FORMATS, Format, Precision
from pretrainps.export.graph.modules import DetectGraph, Detector, EmbedGraph, SceneGraph
from pretrainps.export.graph.running import Run
from pretrainps.export.graph.signature import Graph
from pretrainps.files import new_file
from pretrainps.heads import CropModel
from pretrainps.images.pixels import Preprocess, Size
from pretrainps.registry.specs import ASSUMED_INPUT, InputConvention
from pretrainps.weights.unwrap import unwrap

M = TypeVar("M", bound=nn.Module)
What = Literal["detect", "embed", "classify", "features"]
_GRAPHS: Mapping[str, type[SceneGraph]] = {"detect": DetectGraph, "embed": EmbedGraph}
_CHECKS = {"detect": check_detecting, "embed": check_embedding}


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What `export_graph` wrote."""

    differences: Mapping[str, float]
    """Largest differences from the model on a probe, by output, in the measures of `pretrainps.export.graph.check`."""
    use: str
    """A line of Python that runs the file, and what goes in and comes out."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be written."""

    subject: str
    """The model in a few words, for errors."""
    graph: Graph
    """The function to record."""
    check: Callable[[Run], dict[str, float]]
    """Compares the written file with the model."""
    about: Mapping[str, str]
    """What the file says of itself beside its inputs, outputs and origin."""
    advice: str
    """What else can be tried if it cannot be written."""


def export_graph(
    model: nn.Module,
    path: Path | str,
    *,
    format: str,
    what: What | None = None,
    size: Size | None = None,
    precision: Precision = "float32",
    convention: InputConvention | None = None,
) -> ExportResult:
    """Write a model as a file that runs without this package, on images in 0..1 as they are.

    A detector takes one image of any size at a time. Resizing, normalizing and padding lie in the graph; a second
    stage looks only at what the first one found (and at one empty region). The score threshold is a buffer, in ONNX an
    initializer, of the name `score_threshold`, and may be set anew.

    A model for crops or a bare backbone takes a batch of any number of images, from one on, all of one size. What
    `pretrainps.preprocess` does lies in the graph: resizing and normalizing.

    Args:
        model: A detector, a crop model or a backbone. A copy of it on the CPU, in eval mode, is written.
        path: Where to; ends in `.onnx`, `.pt` for TorchScript, or `.pt2`.
        format: "onnx"; "torchscript"; or "pt2", what `torch.export.save` writes.
        what: What the graph computes. A detector's may be "detect" (default), `image` (3, H, W), float32 RGB in 0..1, to
            `boxes` (K, 4) x1, y1, x2, y2 in its pixels, `scores` (K,) and `embeddings` (K, dim), the best first; K may be 0.
            Or "embed": `image` and `boxes` (N, 4), float32, N of at least 1, to query `embeddings` (N, dim). All others compute
            one thing, from `images` (N, 3, H, W), float32 RGB in 0..1: "embed", to `embeddings` (N, dim) of length 1;
            "classify", to `scores` (N, classes), logits; "features", of a bare backbone, to its maps `c2` to `c5`.
        size: What a crop model's or a backbone's images are resized to, as `pretrainps.preprocess` takes it. "crop" (default)
            and (height, width) accept images of any size. "scene" keeps each batch's own size of at least 64 pixels a side,
            which not every network can be written for.
        precision: What a crop model's or a backbone's backbone computes in; inputs and outputs stay float32. ONNX knows no
            "bfloat16" on a CPU.
        convention: How the pixels of a crop model or a backbone go in; by default as its weights say, or for one that
            `pretrainps.load` did not return, RGB with ImageNet's statistics.

    Raises:
        UnsupportedModelError: none of these; or one that cannot be written so, or whose file computes something else. Nothing
            is left.
        MissingPackageError: ONNX needs the extra `export`.
        ArgumentError: an unknown format, a file name whose ending is not the format's, or an option that does not go with the
            model.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    model = unwrap(model)
    target = _format(format, path)
    if isinstance(model, PersonSearchDetector):
        plan = _detector_plan(model, target, what or "detect", size, precision, convention)
    elif isinstance(model, CropModel | Backbone):
        if precision not in target.precisions:
            raise ArgumentError(f"precision of {format} must be {', '.join(map(repr, target.precisions))}, not {precision!r}.")
        plan = _batch_plan(model, what, size or "crop", precision, convention)
    else:
        raise UnsupportedModelError(
            f"a {type(model).__name__} is no detector, crop model or backbone, so it cannot be written as a graph. Give what "
            "pretrainps.load or build_detector returns."
        )
    target.require()
    with new_file(path) as temporary:
        try:
            target.write(captured(plan.graph), plan.graph, temporary, _metadata(model, plan))
            run = target.open(temporary)
            with torch.no_grad():
                differences = plan.check(run)
        except (PretrainPSError, OSError, MemoryError):
            raise
        except Exception as error:  # the exporters and compilers raise anything
            raise UnsupportedModelError(
                f"{plan.subject} cannot be written as {format}: {_first_cause(error)} Nothing was kept. {plan.advice}"
            ) from error
    return ExportResult(differences, target.line_of_use(plan.graph, path))


def _format(name: str, path: Path) -> Format:
    if name not in FORMATS:
        raise ArgumentError(f"format must be {', '.join(map(repr, FORMATS))}, not {name!r}.")
    if path.suffix != FORMATS[name].suffix:
        raise ArgumentError(f"{path.name}: a file of the format {name} ends in {FORMATS[name].suffix}.")
    return FORMATS[name]


def _detector_plan(
    model: Detector, target: Format, what: str, size: Size | None, precision: str, convention: InputConvention | None
) -> _Plan:
    if what not in _GRAPHS:
        raise ArgumentError(f"what must be 'detect' or 'embed' for a detector, not {what!r}.")
    if size is not None or precision != "float32" or convention is not None:
        raise ArgumentError(
            "size, precision and convention are for crop models and backbones. A detector takes images of any size, is "
            "written in float32, and has its own convention; leave them out."
        )
    if model.optimized:
        raise ArgumentError("this copy was optimized for inference; export the original, for runtimes optimize themselves.")
    if what == "embed" and not model.embeds_boxes:
        raise UnsupportedModelError(
            f"{model.kind} cannot embed a given box, only what it detects. Export it with what='detect' (--what detect), and "
            "take the detection that overlaps the box best."
        )
    # what losses alone need, such as identity tables, may be as large as a small network
    detector = _still(copy.deepcopy(model, {id(model.get_submodule(name)): nn.Identity() for name in model.training_only}))
    config = {
        "detector": {"kind": model.kind, "config": asdict(model.config)},
        "arch": model.backbone.arch,
        "arch_options": model.backbone.options(),
        "input": asdict(model.convention),
    }
    return _Plan(
        subject=f"{model.kind} on {model.backbone.arch}",
        graph=_GRAPHS[what](detector, target.resize),
        check=lambda run: _CHECKS[what](detector, run),
        about={"what": what, "precision": precision, "config": json.dumps(config)},
        advice="ResNets and ShuffleNetV1 can be written in all formats.",
    )


def _batch_plan(
    model: BatchModel, what: str | None, size: Size, precision: Precision, convention: InputConvention | None
) -> _Plan:
    own, backbone = ("features", model) if isinstance(model, Backbone) else (_of_head(model), model.backbone)
    if what not in (None, own):
        hint = " Load it with head='embedding' (on the command line: --what embed)." if what == "embed" else ""
        raise ArgumentError(f"what must be {own!r} for this model, not {what!r}.{hint}")
    lacking = [name for name in backbone.segments if not any(True for _ in _learned(backbone, name))]
    if lacking:
        raise UnsupportedModelError(
            f"this {backbone.arch} is half a backbone, without {', '.join(lacking)}, as a detector holds it. Export the "
            "detector, or the backbone that pretrainps.load returns."
        )
    spec = getattr(model, "spec", None)
    convention = convention or (spec.input if spec is not None else ASSUMED_INPUT)
    preprocess = Preprocess(convention, size=size)
    still = _still(copy.deepcopy(model))
    graph = BatchGraph(copy.deepcopy(still), preprocess, getattr(torch, precision))
    shape = "own" if preprocess.size is None else "{}x{}".format(*preprocess.size)
    config = {
        "arch": backbone.arch,
        "arch_options": backbone.options(),
        "head": None if isinstance(model, Backbone) else asdict(model.head_spec),
        "input": asdict(replace(convention, size=preprocess.size or convention.size)),
    }
    dim = {} if own != "embed" else {"embedding_dim": str(graph.outputs["embeddings"].shape[1])}
    return _Plan(
        subject=backbone.arch if own == "features" else f"{backbone.arch} with its head ({own})",
        graph=graph,
        check=lambda run: check_batches(still, preprocess, run, list(graph.outputs), precision),
        about={"what": own, "precision": precision, "image_size": shape, **dim, "config": json.dumps(config)},
        advice="Try another format." if preprocess.size else "Try another format, or give the size that images are resized to.",
    )


def _of_head(model: CropModel) -> str:
    return "embed" if model.head_spec.kind == "embedding" else "classify"


def _learned(backbone: Backbone, segment: str) -> Any:
    return (parameter for module in backbone.segment_modules(segment) for parameter in module.parameters())


def _still(model: M) -> M:
    """Bring a copy into the state that is written."""
    return model.cpu().float().eval().requires_grad_(False)


def _metadata(model: nn.Module, plan: _Plan) -> dict[str, str]:
    """Return what the file says of itself; nothing of it names a place on this machine."""
    spec = getattr(model, "spec", None)
    known = {}
    if spec is not None:
        known = {"model": spec.title if spec.name.startswith("file:") else spec.name}
        known["licence"] = " ".join(part for part in (spec.licence.id, spec.licence.note) if part)
        if spec.sha256:
            known["loaded_sha256"] = spec.sha256
    return {
        **known,
        **plan.about,
        "inputs": " ".join(plan.graph.inputs),
        "outputs": " ".join(plan.graph.outputs),
        "tensors": plan.graph.described(),
        "written_by": f"pretrainps {__version__}",
    }


def _first_cause(error: BaseException) -> str:
    """Return in one line what an exporter's chain of errors began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}."
