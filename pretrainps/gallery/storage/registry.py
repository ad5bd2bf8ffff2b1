"""The places that keep detections, by the scheme of a URL: folders, and those of other packages."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from pretrainps.errors import ArgumentError
from pretrainps.gallery.backends import BackendTable
from pretrainps.gallery.storage.folder import FolderStore
from pretrainps.gallery.storage.protocol import DetectionStore

STORE_GROUP = "pretrainps.detection_stores"
"""Entry points of this group name functions from a URL to a `DetectionStore`."""
_TABLE: BackendTable[Callable[[str], DetectionStore]] = BackendTable(
    "detection store", group=STORE_GROUP, register="pretrainps.gallery.register_detection_store"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def register_detection_store(scheme: str, make: Callable[[str], DetectionStore]) -> None:
    """Add a place that keeps detections, for URLs that begin with "SCHEME://".

    An installed package can do without this call: an entry point in the group `pretrainps.detection_stores`, called like the
    scheme, names the function.

    Args:
        scheme: In lower case, such as "postgres".
        make: Returns the store of a whole URL. It must not write anything.

    Raises:
        ArgumentError: The scheme is taken, or cannot be one.
    """
    if scheme == "file":
        raise ArgumentError("the scheme 'file' belongs to folders. Choose another one.")
    _TABLE.add(scheme, make)


def unregister_detection_store(scheme: str) -> None:
    """Take a scheme out of the table again."""
    _TABLE.remove(scheme)


def open_store(place: str | PathLike[str] | DetectionStore) -> DetectionStore:
    """Return the store that a path, a URL or a store itself names.

    Args:
        place: A folder, as a path or as "file://PATH"; a URL of a registered scheme; or a store.

    Raises:
        ArgumentError: No store is registered for the scheme.
    """
    if not isinstance(place, str | PathLike):
        return place
    text = str(place)
    found = _SCHEME.match(text)
    if found is None or isinstance(place, Path):
        return FolderStore(text)
    scheme = found.group(1).lower()
    if scheme == "file":
        return FolderStore(text[found.end() :])
    return _TABLE.get(scheme)(text)
