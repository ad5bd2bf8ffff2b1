"""The formats: how a recorded graph is written, and how the file is run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from pretrainps.graphs.capture import exporting
from pretrainps.graphs.onnx_file import open_onnx, require_onnx, write_onnx
from pretrainps.graphs.running import Run, running
from pretrainps.graphs.scenes import Resize, gathered, interpolated
from pretrainps.graphs.torchscript import open_torchscript, write_torchscript


@dataclass(frozen=True, slots=True)
class Format:
    """A format."""

    suffix: str
    """How its files' names end."""
    resize: Resize
    """The resizing that its runtime computes as PyTorch does."""
    require: Callable[[], None]
    """Raises if a package is missing that it needs."""
    write: Callable[[ExportedProgram, Path, Mapping[str, str]], None]
    """Writes a graph with metadata."""
    open: Callable[[Path], Run]
    """Loads a file, as its user would."""
    use: str
    """A line of Python that runs the file {file} on inputs {inputs}."""


def _write_program(program: ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
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
        use="onnxruntime.InferenceSession({file!r}).run(None, {{{arrays}}})",
    ),
    "torchscript": Format(
        suffix=".pt",
        resize=interpolated,
        require=_nothing,
        write=write_torchscript,
        open=open_torchscript,
        use="import torchvision; torch.jit.load({file!r})({tensors})",
    ),
    "pt2": Format(
        suffix=".pt2",
        resize=interpolated,
        require=_nothing,
        write=_write_program,
        open=_open_program,
        use="import torchvision; torch.export.load({file!r}).module()({tensors})",
    ),
}
"""What `export_graph` writes, by name."""
