"""Write a model's weights under another code base's key names."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.detectors.key_layouts import families, layout_of, layouts_of
from pretrainps.errors import ArgumentError, LayoutError
from pretrainps.files import new_file
from pretrainps.heads import CropModel
from pretrainps.hub.load import Model
from pretrainps.hub.saving import backbone_of, own_model, state_to_save
from pretrainps.weights import write_safetensors
from pretrainps.weights.key_layout import KeyLayout
from pretrainps.weights.unwrap import unwrap

SUFFIXES = (".pth", ".pt", ".pkl", ".safetensors")


def layout_names() -> list[str]:
    """Return the names of all key layouts of all families."""
    return sorted({name for layouts in families().values() for name in layouts})


def export_weights(model: Model, layout: str, path: Path | str) -> str:
    """Write a model's weights so that another code base finds every key it looks for.

    Args:
        model: The model; it is taken out of a wrapper such as torch.compile's or DistributedDataParallel. A detector is
            written whole where the layout is its own code base's (see `DetectorEntry.key_layouts`) or "native"; otherwise, and
            of a model with a head for crops, the backbone alone is written.
        layout: The code base's key layout, see `layout_names`.
        path: Where to. `.pth` and `.pt` are torch files with the tensors where that code base looks for them;
            `.safetensors` holds the tensors alone; `.pkl` is detectron2's own format and for its layout only.

    Returns:
        One line on how that code base loads the file; empty for our own layout.

    Raises:
        ArgumentError: it is no model of this package, a copy that was optimized for inference, or sharded over processes.
        StateDictMismatchError: its tensors are not those of such a model (it is pruned, quantized, has adapters).
        LayoutError: the model's family does not know the layout.
        ArgumentError: a file name whose ending does not fit.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path).expanduser()
    model = own_model(model)
    family, native = _tensors(model, layout)
    target = layout_of(family, layout)
    if path.suffix not in SUFFIXES:
        raise ArgumentError(f"{path.name}: the ending says the format; use one of {', '.join(SUFFIXES)}.")
    if path.suffix == ".pkl" and target.suffix != ".pkl":
        raise LayoutError(f"a .pkl file is detectron2's format, not that of {layout!r}. Write {path.with_suffix('.pth')}.")
    tensors = target.from_native({key: value.detach().cpu().contiguous() for key, value in native.items()})
    backbone = unwrap(model.backbone) if isinstance(model, CropModel | PersonSearchDetector) else model
    if path.suffix == ".safetensors":
        write_safetensors(tensors, path)
        return _usage(target, backbone.arch, path)
    with new_file(path) as temporary:
        if path.suffix == ".pkl":
            # NumPy has no bfloat16
            arrays = {
                key: (value.float() if value.dtype is torch.bfloat16 else value).numpy() for key, value in tensors.items()
            }
            document = {"model": arrays, "__author__": "pretrainps", "matching_heuristics": True}
            # NumPy 2 moved the function that unpickling calls; under its old name every version finds it
            body = pickle.dumps(document, protocol=2)
            temporary.write_bytes(body.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1))
        else:
            # cloned, because torch.save would write the whole mapped file behind each tensor
            torch.save(_wrapped({key: value.clone() for key, value in tensors.items()}, target.wrapper), temporary)
    return _usage(target, backbone.arch, path)


def _tensors(model: Model, layout: str) -> tuple[str, Mapping[str, Tensor]]:
    """Return what is to be written under our own names, and the family that knows the layout."""
    state = state_to_save(model)
    if isinstance(model, PersonSearchDetector) and layout in layouts_of(model.family):
        return model.family, state
    backbone = unwrap(model.backbone) if isinstance(model, CropModel | PersonSearchDetector) else model
    return backbone.family, backbone_of(model, state)


def _usage(layout: KeyLayout, arch: str, path: Path) -> str:
    """Fill in the layout's line of use."""
    if path.suffix == ".safetensors":
        state = f"safetensors.torch.load_file({str(path)!r})"
    else:
        state = f"torch.load({str(path)!r}, weights_only=True)" + "".join(f"[{key!r}]" for key in layout.wrapper)
    name = arch.removeprefix("timm:")
    return layout.use.format(file=str(path), state=state, arch=name, depth="".join(c for c in name if c.isdigit()))


def _wrapped(tensors: Mapping[str, Any], wrapper: tuple[str, ...]) -> Mapping[str, Any]:
    for key in reversed(wrapper):
        tensors = {key: tensors}
    return tensors
