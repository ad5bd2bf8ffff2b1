"""A gallery in a folder, as a `DetectionStore`: the store that comes with the package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pretrainps.errors import GalleryError
from pretrainps.gallery.storage.catalog import FolderCatalog
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.gallery.storage.manifest import read_manifest
from pretrainps.gallery.storage.writer import FolderWriter

_TRIES = 5
"""How often a gallery is opened again, if another run is just replacing its files."""


class FolderStore:
    """The folder of a gallery. Making the object touches nothing on disk.

    Args:
        folder: Its path.
    """

    def __init__(self, folder: Path | str) -> None:
        self.files = GalleryFiles(folder)
        self.folder = self.files.folder
        self.location = str(self.folder)

    def open(self, *, verify: bool = True) -> FolderCatalog:
        """Map the newest version into memory.

        Args:
            verify: Compare the sha256 of every file, as fast as it can be read. Otherwise only sizes and shapes are compared.

        Raises:
            GalleryError: There is no gallery, or it was written by a newer version of the package.
            IntegrityError: A file was damaged, cut off or changed.
        """
        for _ in range(_TRIES):
            manifest = self.files.manifest()
            try:
                return self.files.catalog(manifest, verify=verify)
            except FileNotFoundError as error:
                gone = error  # a run has just replaced the file, and the manifest too; or it was removed for good
        source = manifest.header.source.root
        raise GalleryError(f"{gone.filename} is gone. Index the images again: pretrainps index {source} -o {self.folder}")

    @contextlib.contextmanager
    def write(self, *, wait: bool, rebuild: bool) -> Iterator[FolderWriter]:
        """Hold the folder, so that no other run writes to it, and write."""
        with self.files.lock(wait=wait):
            yield FolderWriter(self.files, None if rebuild else read_manifest(self.folder))
