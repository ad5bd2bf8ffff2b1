"""Write reproducible safetensors files: the bytes depend only on the content.

The safetensors library writes its metadata in hash-map order, so a file with two metadata keys has a different sha256
each time. Therefore all metadata is written as sorted JSON under one key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pretrainps.download.kinds import safetensors_header
from pretrainps.files import new_file

METADATA_KEY = "pretrainps"


def write_safetensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors and JSON-ready metadata; the same input gives the same bytes, and a failure leaves `path` unchanged.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    # safetensors accepts neither shared nor strided storage; tied weights are written twice
    plain = {key: _own_storage(value, tensors) for key, value in sorted(tensors.items())}
    notes = {METADATA_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    with new_file(path) as temporary:
        save_file(plain, temporary, metadata=notes)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata from `write_safetensors`; empty if there is none.

    Raises:
        CheckpointFormatError: the header is damaged.
    """
    notes = safetensors_header(path).get("__metadata__") or {}
    try:
        found = json.loads(notes.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_storage(tensor: Tensor, all_tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensor.detach().cpu()
    storage = tensor.untyped_storage()
    if tensor.is_contiguous() and storage.nbytes() == tensor.numel() * tensor.element_size():
        pointer = storage.data_ptr()
        if sum(other.untyped_storage().data_ptr() == pointer for other in all_tensors.values()) == 1:
            return tensor
    return tensor.contiguous().clone()
