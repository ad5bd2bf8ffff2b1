"""Write a whole detector as a graph, and see that it computes the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pretrainps._version import __version__
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, PretrainPSError, UnsupportedModelError
from pretrainps.graphs.capture import captured
from pretrainps.graphs.check import check_detecting, check_embedding
from pretrainps.graphs.formats import FORMATS, Format
from pretrainps.graphs.scenes import DetectGraph, Detector, EmbedGraph, SceneGraph
from pretrainps.store.files import new_file
from pretrainps.wrappers import unwrap

What = Literal["detect", "embed"]
_GRAPHS: Mapping[str, type[SceneGraph]] = {"detect": DetectGraph, "embed": EmbedGraph}
_CHECKS = {"detect": check_detecting, "embed": check_embedding}


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """What `export_graph` wrote."""

    differences: Mapping[str, float]
    """Largest differences from the model on a probe, by output, in the measures of `pretrainps.graphs.check.TOLERANCES`."""
    use: str
    """A line of Python that runs the file, and what goes in and comes out."""


def export_graph(model: nn.Module, path: Path | str, *, format: str, what: What = "detect") -> WrittenGraph:
    """Write a detector as a file that runs without this package, on one image of any size at a time.

    Resizing, normalising and padding lie in the graph; SeqNet's second stage looks only at what its first one found (and at one
    empty region). The score threshold is a buffer, in ONNX an initializer, of the name `score_threshold`, and may be set anew.

    Args:
        model: A detector. A copy of it on the CPU, in eval mode and float32, is written.
        path: Where to; ends in `.onnx`, `.pt` for TorchScript, or `.pt2`.
        format: "onnx"; "torchscript"; or "pt2", what `torch.export.save` writes.
        what: "detect": `image` (3, H, W), float32 RGB in 0..1, to `boxes` (K, 4) x1, y1, x2, y2 in its pixels, `scores` (K,)
            and `embeddings` (K, dim), the best first; K may be 0. "embed": `image` and `boxes` (N, 4), float32, N of at least
            1, to query `embeddings` (N, dim).

    Raises:
        UnsupportedModelError: no detector; or one that cannot be written so, or whose file finds something else. Nothing is
            left.
        MissingPackageError: ONNX needs the extra `export`.
        ArgumentError: an unknown format, or a file name whose ending is not the format's.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    model = unwrap(model)
    target = _format(format, path)
    if what not in _GRAPHS:
        raise ArgumentError(f"what must be 'detect' or 'embed', not {what!r}.")
    if not isinstance(model, PersonSearchDetector):
        raise UnsupportedModelError(
            f"a {type(model).__name__} is no detector, and only whole detectors are written as graphs. "
            "Its weights can be written with `pretrainps export-weights`."
        )
    if model.optimized:
        raise ArgumentError("this copy was optimised for inference; export the original, for runtimes optimise themselves.")
    target.require()
    # without the tables of the identity loss, which are as large as a small network
    detector = copy.deepcopy(model, {id(model.oim_loss): nn.Identity()}).cpu().float().eval().requires_grad_(False)
    graph = _GRAPHS[what](detector, target.resize)
    with new_file(path) as temporary:
        try:
            target.write(captured(graph), temporary, _metadata(model, graph, what))
            run = target.open(temporary)
            with torch.no_grad():
                differences = _CHECKS[what](detector, run)
        except (PretrainPSError, OSError, MemoryError):
            raise
        except Exception as error:  # the exporters and compilers raise anything
            raise UnsupportedModelError(
                f"{model.kind} on {model.backbone.arch} cannot be written as {format}: {_first_cause(error)} Nothing was kept. "
                "ResNets and ShuffleNetV1 can be written in all formats."
            ) from error
    return WrittenGraph(differences, _use(target, graph, path))


def _format(name: str, path: Path) -> Format:
    if name not in FORMATS:
        raise ArgumentError(f"format must be {', '.join(map(repr, FORMATS))}, not {name!r}.")
    if path.suffix != FORMATS[name].suffix:
        raise ArgumentError(f"{path.name}: a file of the format {name} ends in {FORMATS[name].suffix}.")
    return FORMATS[name]


def _metadata(model: Detector, graph: SceneGraph, what: str) -> dict[str, str]:
    """Return what the file says of itself; nothing of it names a place on this machine."""
    spec = getattr(model, "spec", None)
    known = {} if spec is None else {"model": spec.title if spec.name.startswith("file:") else spec.name}
    if spec is not None and spec.sha256:
        known["loaded_sha256"] = spec.sha256
    config = {
        "detector": {"kind": model.kind, "config": asdict(model.config)},
        "arch": model.backbone.arch,
        "arch_options": model.backbone.options(),
        "input": asdict(model.convention),
    }
    return {
        **known,
        "what": what,
        "inputs": " ".join(graph.inputs),
        "outputs": " ".join(graph.outputs),
        "config": json.dumps(config),
        "written_by": f"pretrainps {__version__}",
    }


def _use(target: Format, graph: SceneGraph, path: Path) -> str:
    number = "N" if "boxes" in graph.inputs else "K"
    shapes = {
        "image": "(3, H, W) float32 RGB in 0..1",
        "boxes": f"({number}, 4) x1, y1, x2, y2 in the image's pixels",
        "scores": f"({number},)",
        "embeddings": f"({number}, dim)",
    }
    line = target.use.format(
        file=str(path), tensors=", ".join(graph.inputs), arrays=", ".join(f"{name!r}: {name}" for name in graph.inputs)
    )
    described = [", ".join(f"{name} {shapes[name]}" for name in names) for names in (graph.inputs, graph.outputs)]
    return f"{line}  # {' -> '.join(described)}"


def _first_cause(error: BaseException) -> str:
    """Return in one line what an exporter's chain of errors began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line[:200]}."
