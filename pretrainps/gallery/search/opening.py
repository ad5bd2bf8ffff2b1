"""Which vector index a gallery gets when it is indexed, and which one it is searched with."""

from __future__ import annotations

import logging

import torch

from pretrainps.errors import ArgumentError, MissingPackageError
from pretrainps.gallery.search.protocol import VectorIndex, VectorIndexType
from pretrainps.gallery.search.registry import vector_index_type
from pretrainps.gallery.storage.stored import StoredDetections

EXACT, APPROXIMATE = "exact", "faiss"
"""The index that is not built, and the one that large galleries get."""
log = logging.getLogger("pretrainps")


def open_index(stored: StoredDetections, name: str | None, *, device: torch.device | str) -> VectorIndex:
    """Return the index that a version is searched with.

    Args:
        stored: The version.
        name: The index that is asked for; `None` takes the one that was built for this version, otherwise exact search.
        device: Where to compute, if that can be chosen.

    Raises:
        ArgumentError: The index that is asked for was not built for this version, or its back end is not registered.
        MissingPackageError: The library of the index is not installed.
        IntegrityError: The file of the index is damaged.
    """
    mark = stored.index
    if mark is not None and mark.version != stored.version:
        mark = None  # images were added or removed, and the run that did it has not ended yet
    if name is None:
        name = EXACT if mark is None else mark.kind
    kind = vector_index_type(name)
    if name == EXACT:
        return kind.open(stored, {}, None, device=device)
    if mark is None or mark.kind != name:
        raise ArgumentError(
            f"this gallery has no vector index {name!r}. Build it: Gallery.index(..., vector_index={name!r}), on the command "
            f"line `pretrainps index ... --vector-index {name}`."
        )
    return kind.open(stored, mark.facts, stored.index_file(), device=device)


def usable_index(name: str | None) -> VectorIndexType | None:
    """Return the back end of a name that must be built, known to be usable here; `None` if no name is given, or "exact".

    Raises:
        ArgumentError: There is no such back end.
        MissingPackageError: Its library is not installed.
    """
    if name is None:
        return None
    kind = vector_index_type(name)
    kind.require()
    return kind


def index_for(count: int, *, above: int) -> VectorIndexType | None:
    """Return the back end that a gallery of some size gets by default; `None` stands for exact search, which is not built."""
    if count <= above:
        return None
    kind = vector_index_type(APPROXIMATE)
    try:
        kind.require()
    except MissingPackageError:
        log.warning(
            "%s detections are searched exactly, which takes longer. For an index: pip install 'pretrainps[index]'.",
            f"{count:,}",
        )
        return None
    return kind
