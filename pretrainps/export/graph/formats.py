"""The formats: how a recorded graph is written, and how the file is run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.export import ExportedProgram

from pretrainps.export.graph.capture import exporting
from pretrainps.export.graph.modules import Resize, gathered, interpolated
from pretrainps.export.graph.onnx_file import open_onnx, require_onnx, write_onnx
from pretrainps.export.graph.running import Run, running
from pretrainps.export.graph.signature import Graph
from pretrainps.export.graph.torchscript import open_torchscript, write_torchscript

Precision = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format."""

    suffix: str
    """How its files' names end."""
    resize: Resize
    """The resizing that its runtime computes as PyTorch does."""
    require: Callable[[], None]
    """Raises if a package is missing that it needs."""
    write: Callable[[ExportedProgram, Graph, Path, Mapping[str, str]], None]
    """Writes a recorded graph with metadata."""
    open: Callable[[Path], Run]
    """Loads a file, as its user would."""
    use: str
    """A line of Python that runs the file; see `line_of_use`."""
    precisions: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
    """What its runtime computes in on a CPU."""

    def line_of_use(self, graph: Graph, path: Path) -> str:
        """Return a line of Python that runs a file, and what goes in and comes out."""
        names, results = list(graph.inputs), list(graph.outputs)
        line = self.use.format(
            file=str(path),
            imports=", ".join(("torch", *graph.operators)),
            inputs=", ".join(names),
            named=", ".join(f"{name}={name}" for name in names),
            arrays=", ".join(f"{name!r}: {name}" for name in names),
            results=", ".join(results),
            listed=f"[{', '.join(results)}]",
        )
        return f"{line}  # {graph.described()}"


def _write_program(program: ExportedProgram, _: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    with exporting(), path.open("wb") as file:
        torch.export.save(program, file, extra_files=dict(metadata))


def _open_program(path: Path) -> Run:
    with exporting(), path.open("rb") as file:
        return running(torch.export.load(file).module())


def _nothing() -> None:
    """Need no package but PyTorch."""


FORMATS: Mapping[str, Format] = {
    "onnx": Format(
        suffix=".onnx",
        resize=gathered,
        require=require_onnx,
        write=write_onnx,
        open=open_onnx,
        use="import onnxruntime; {listed} = onnxruntime.InferenceSession({file!r}, providers=['CPUExecutionProvider'])"
        ".run(None, {{{arrays}}})",
        precisions=("float32", "float16"),
    ),
    "torchscript": Format(
        suffix=".pt",
        resize=interpolated,
        require=_nothing,
        write=write_torchscript,
        open=open_torchscript,
        use="import {imports}; {results} = torch.jit.load({file!r})({inputs})",
    ),
    "pt2": Format(
        suffix=".pt2",
        resize=interpolated,
        require=_nothing,
        write=_write_program,
        open=_open_program,
        use="import {imports}; {results} = torch.export.load({file!r}).module()({named})",
    ),
}
"""What `export_graph` writes, by name."""
