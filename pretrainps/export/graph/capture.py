"""Record what a detector computes as one graph, whatever an image's size and however many people are in it.

`torch.export` follows sizes that depend on data, which the older tracer does not; and it is what PyTorch goes on with:
`torch.jit` and `torch.onnx.export(dynamo=False)` are deprecated. All formats are written from this one graph.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch
from torch.export import Dim, ExportedProgram

from pretrainps.export.graph.signature import Free, Graph


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Hold what PyTorch's exporters need, for recording as well as for whatever is made of the record."""
    with (
        warnings.catch_warnings(action="ignore"),  # of each other's and of torchvision's old names, and of torch.jit's end
        contextlib.redirect_stderr(io.StringIO()),  # where one that fails prints all it has seen; what it raises says enough
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=False),  # to choose a convolution, torch 2.11 asks how large an unknown map is
    ):
        yield


def captured(graph: Graph) -> ExportedProgram:
    """Record a graph."""
    example, shapes = {}, {}
    for name, slot in graph.inputs.items():
        free = {index: size for index, size in enumerate(slot.shape) if isinstance(size, Free)}
        example[name] = torch.ones([size.example if isinstance(size, Free) else int(size) for size in slot.shape])
        shapes[name] = {index: Dim(size.name, min=size.least) for index, size in free.items()}
    with exporting():
        program = torch.export.export(graph, (), example, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine, and would go into the file
    return program
