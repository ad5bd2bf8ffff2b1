"""Format 1 of a gallery's manifest (0.1.0 before its release) under the names of format 2, and back."""

from __future__ import annotations

from typing import Any

_FILES = {"people": "detections"}
_INDEX = {
    "people": "detections",
    "lists": "nlist",
    "probes": "nprobe",
    "recall": "recall",
    "nearest": "nearest",
    "sample": "sample",
}
"""Names of format 1 and the facts of a faiss index that they became."""


def upgrade(value: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest of format 1 as format 2 has it.

    Raises:
        KeyError: Something is missing.
        TypeError: Something has another type.
    """
    files = [{_FILES.get(key, key): part for key, part in mark.items()} for mark in value["files"]]
    content = {key: part for key, part in value.items() if key != "neighbours"}
    old = value["neighbours"]
    index = None
    if old is not None:
        facts = {new: old[key] for key, new in _INDEX.items()}
        index = {"kind": "faiss", "version": old["of"], "facts": facts, **{key: old[key] for key in ("file", "sha256", "size")}}
    return {**content, "format": 2, "files": files, "index": index}


def downgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest as format 1 has it: what shows that an old manifest was read without loss."""
    names = {new: old for old, new in _FILES.items()}
    files = [{names.get(key, key): part for key, part in mark.items()} for mark in content["files"]]
    index = content["index"]
    neighbours = None
    if index is not None:
        facts = {old: index["facts"][new] for old, new in _INDEX.items()}
        neighbours = {**facts, "of": index["version"], **{key: index[key] for key in ("file", "sha256", "size")}}
    old = {key: part for key, part in content.items() if key != "index"}
    return {**old, "format": 1, "files": files, "neighbours": neighbours}
