"""ONNX files: written by PyTorch's exporter, read by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pretrainps.errors import MissingPackageError
from pretrainps.export.graph.capture import exporting
from pretrainps.export.graph.running import THRESHOLD, Run
from pretrainps.export.graph.signature import Free, Graph

_OPSET = 18
"""Version of the operator set: what PyTorch's exporter translates to, and runtimes since 2023 read."""
_UNLIKE = 0.1234567
"""A threshold while a graph is written: of equal numbers the exporter makes one, and 0.5 is also what halves a box."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Check that the packages of the extra `export` are there.

    Raises:
        MissingPackageError: one is not; says what to install.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"writing ONNX needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. "
            "Install what is missing: pip install 'pretrainps[export]'"
        )


def write_onnx(program: ExportedProgram, graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX file that holds its weights and the metadata."""
    from onnx_ir import Shape, tensor

    threshold = program.state_dict.get(THRESHOLD)
    own = None if threshold is None else threshold.clone()
    with exporting():
        if threshold is not None:
            threshold.fill_(_UNLIKE)
        written = torch.onnx.export(program, dynamo=True, verbose=False, output_names=list(graph.outputs), opset_version=_OPSET)
        assert written is not None
        model = written.model
        if own is not None:
            model.graph.initializers[THRESHOLD].const_value = tensor(own.numpy(), name=THRESHOLD)
        slots = {**graph.inputs, **graph.outputs}
        for value in (*model.graph.inputs, *model.graph.outputs):  # whose sizes would be called s62 and Min(300, u15)
            assert value.shape is not None and value.name is not None
            pairs = zip(value.shape, slots[value.name].shape, strict=True)
            value.shape = Shape([free.name if isinstance(free, Free) else size for size, free in pairs])
        for node in model.graph.all_nodes():
            node.metadata_props.clear()  # where in the code it came from, which thrice outgrows the graph
        model.metadata_props.update(metadata)
        written.save(path, external_data=False)


def open_onnx(path: Path) -> Run:
    """Load an ONNX file into onnxruntime on the CPU."""
    import onnxruntime  # type: ignore[import-untyped]

    document = path.read_bytes()

    @lru_cache(maxsize=1)  # a session keeps the memory of its largest run, which may be gigabytes
    def session(threshold: float | None) -> tuple[onnxruntime.InferenceSession, object]:
        """Return a session, and memory that it goes on reading without holding it."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors: of half precision it warns for every operation that it widens
        lent = None
        if threshold is not None:
            number = torch.tensor(threshold).numpy()
            lent = (number, onnxruntime.OrtValue.ortvalue_from_numpy(number))
            options.add_initializer(THRESHOLD, lent[1])
        return onnxruntime.InferenceSession(document, options, providers=["CPUExecutionProvider"]), lent

    def run(inputs: Mapping[str, Tensor], threshold: float | None) -> tuple[Tensor, ...]:
        found = session(threshold)[0].run(None, {name: each.numpy() for name, each in inputs.items()})
        return tuple(torch.from_numpy(each) for each in found)

    return run
