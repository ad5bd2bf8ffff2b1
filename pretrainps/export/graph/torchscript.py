"""TorchScript made of a recorded graph, for runtimes that load nothing newer.

PyTorch says that `torch.jit` is deprecated, and that it may break from Python 3.14 on. It is used here alone, and only to
compile a straight list of operations: nothing of ours has to be TorchScript.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from pretrainps.export.graph.capture import exporting
from pretrainps.export.graph.running import Run, running
from pretrainps.export.graph.signature import Graph

_aten = torch.ops.aten
_CLAIMS = {_aten._assert_scalar.default, _aten._assert_tensor_metadata.default, _aten.promote_types.default}
"""Operations that only state what the exporter knows; TorchScript does not know them."""
_NAMES = {_aten.item.default: builtins.int, torch.sym_min: builtins.min, torch.sym_max: builtins.max}
"""What TorchScript calls them; every number that a graph takes out of a tensor is a count."""


def write_torchscript(program: ExportedProgram, _: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a TorchScript archive; the metadata lie in its extra files."""
    with exporting(), path.open("wb") as file:
        torch.jit.save(torch.jit.script(_plain(program.module())), file, _extra_files=dict(metadata))


def open_torchscript(path: Path) -> Run:
    """Load a TorchScript archive."""
    with exporting(), path.open("rb") as file:
        return running(torch.jit.load(file))


def _plain(module: torch.nn.Module) -> fx.GraphModule:
    """Return a recorded graph in operations and types that TorchScript has too."""
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    for node in reversed(graph.nodes):
        if node.op == "call_module" or node.target in _CLAIMS or (not node.users and not _matters(node)):
            graph.erase_node(node)
    for node in graph.nodes:
        if node.op == "output" and len(node.args[0]) == 1:
            node.args = tuple(node.args[0])  # recorded as a tuple of one; the model returns it bare
        if node.op != "call_function":
            continue
        if node.target is _aten.sym_size.int:
            node.op, node.target = "call_method", "size"
        elif node.target in _NAMES:
            node.target = _NAMES[node.target]
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket  # TorchScript finds the overload by the arguments
        node.args = tuple(_argument(each) for each in node.args)
        node.kwargs = {name: _argument(each) for name, each in node.kwargs.items() if name != "pin_memory"}
    graph.set_codegen(fx.graph.CodeGen())  # inputs and outputs as they are, not packed and unpacked
    return fx.GraphModule(module, graph)


def _matters(node: fx.Node) -> bool:
    changes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return changes or node.op in ("placeholder", "output")


def _argument(value: Any) -> Any:
    return str(value) if isinstance(value, torch.device) else value
