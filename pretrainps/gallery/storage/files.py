"""A gallery in a folder: files that are written once and never changed.

    FOLDER/manifest.json                    the table of contents (`pretrainps.gallery.storage.manifest`)
    FOLDER/detections-HASH.safetensors      the detections of some images, and the names of those images
    FOLDER/index-HASH.KIND                  a vector index, of a very large gallery
    FOLDER/index.lock                       held while a run writes

Files of format 1 are called `people-HASH.safetensors` and `neighbours-HASH.faiss`, until they are replaced.

A file's name has its own hash, and the manifest lists it only when it is whole. A reader maps the files into memory, and keeps
them even while a run replaces them. Files that a killed run left behind are removed by the next run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

from safetensors import SafetensorError, safe_open

from pretrainps.download.locks import LockedError, hold
from pretrainps.errors import CheckpointFormatError, GalleryError, IntegrityError
from pretrainps.files import disk_errors, new_file, sha256_of
from pretrainps.gallery.search.protocol import VectorIndexType
from pretrainps.gallery.storage.catalog import FolderCatalog
from pretrainps.gallery.storage.header import ImageRecord
from pretrainps.gallery.storage.manifest import NAME, OWN_FILES, FileMark, IndexFile, Manifest, read_manifest
from pretrainps.gallery.storage.shard import DetectionShard
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.weights.write import read_metadata, write_safetensors

_LOCK = "index.lock"
_FRESH = ("detections.new", "index.new")
"""Names of files whose final name is not known yet, because it depends on their bytes."""
_LEFT_OVER = (".detections", ".index", ".people", ".neighbours", f".{NAME}")
"""How names of temporary files begin, also those of format 1."""
_TENSORS = {"image_indices": "numbers", "boxes": "boxes", "scores": "scores", "embeddings": "embeddings"}
"""Parts of a shard, and what they are called in a file."""
_READERS = 4
"""Threads that hash files. Hashing lets other threads run."""
_AGAIN = "Index the images again with rebuild=True (`pretrainps index ... --rebuild`)."


class GalleryFiles:
    """The files of a gallery in a folder. Making the object touches nothing on disk.

    Args:
        folder: Its path.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(os.path.abspath(Path(folder).expanduser()))

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            GalleryError: There is no gallery.
            IntegrityError: It is damaged.
        """
        found = read_manifest(self.folder)
        if found is None:
            what = "holds no gallery" if self.folder.is_dir() else "does not exist"
            raise GalleryError(f"{self.folder} {what}. Make one: pretrainps index PHOTOS --model NAME -o {self.folder.name}")
        return found

    def catalog(self, manifest: Manifest, *, verify: bool) -> FolderCatalog:
        """Map a version into memory.

        Raises:
            FileNotFoundError: A file is gone.
            IntegrityError: A file is not the one that was written.
        """
        return FolderCatalog(manifest, self.open_all(manifest, verify=verify), self._index_path)

    def write_shard(self, shard: DetectionShard) -> FileMark:
        """Write detections to a file of their own.

        Raises:
            CacheError: The folder cannot be written to, or the disk is full.
        """
        tensors = {key: getattr(shard, name) for name, key in _TENSORS.items()}
        fresh = self.folder / _FRESH[0]
        write_safetensors(tensors, fresh, {"images": [list(astuple(record)) for record in shard.images]})
        name, digest, size = self._named(fresh, "detections-{}.safetensors")
        return FileMark(file=name, sha256=digest, size=size, images=len(shard.images), detections=len(shard))

    def write_index(self, kind: VectorIndexType, stored: StoredDetections) -> IndexFile:
        """Have a vector index built, and keep its file if it has one.

        Raises:
            MissingPackageError: A library that it needs is not installed.
            CacheError: The folder cannot be written to, or the disk is full.
        """
        fresh = self.folder / _FRESH[1]
        with new_file(fresh) as temporary:
            facts = dict(kind.build(stored, temporary))
        if not fresh.stat().st_size:
            fresh.unlink()
            return IndexFile(kind=kind.name, version=stored.version, facts=facts)
        name, digest, size = self._named(fresh, f"index-{{}}.{kind.name}")
        return IndexFile(kind=kind.name, version=stored.version, facts=facts, file=name, sha256=digest, size=size)

    def _named(self, fresh: Path, pattern: str) -> tuple[str, str, int]:
        """Give a new file the name that its bytes decide; return that name, the hash and the size."""
        digest, size = sha256_of(fresh), fresh.stat().st_size
        name = pattern.format(digest[:16])
        with disk_errors(self.folder):
            fresh.replace(self.folder / name)
        return name, digest, size

    def open_shard(self, mark: FileMark, dim: int, *, verify: bool = True) -> DetectionShard:
        """Map a file of detections into memory.

        Args:
            mark: The manifest's entry.
            dim: Length of an embedding.
            verify: Hash the whole file first, and do not only compare its size.

        Raises:
            FileNotFoundError: It is gone.
            IntegrityError: It is not the file that was written.
        """
        path = self.checked(mark.file, mark.size, mark.sha256 if verify else None)
        try:
            images = tuple(ImageRecord(*record) for record in read_metadata(path)["images"])
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(key) for name, key in _TENSORS.items()}
            found = DetectionShard(images=images, **tensors)
        except (CheckpointFormatError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise IntegrityError(f"{path} is damaged ({error}). {_AGAIN}") from error
        if not found.is_consistent(images=mark.images, detections=mark.detections, dim=dim):
            raise IntegrityError(f"{path} contradicts itself or the manifest. {_AGAIN}")
        return found

    def open_all(self, manifest: Manifest, *, verify: bool = True) -> list[DetectionShard]:
        """Map all files of detections, in order.

        Raises:
            FileNotFoundError: One is gone.
            IntegrityError: One is not the file that was written.
        """
        dim = manifest.header.model.dim
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda mark: self.open_shard(mark, dim, verify=verify), manifest.files))

    def _index_path(self, index: IndexFile) -> Path:
        assert index.file is not None and index.size is not None
        return self.checked(index.file, index.size, index.sha256)

    def checked(self, name: str, size: int, sha256: str | None) -> Path:
        """Return the path of a file that is known to be unchanged.

        Raises:
            FileNotFoundError: It is gone.
            IntegrityError: It has another size, or another hash.
        """
        path = self.folder / name
        found = path.stat().st_size
        if found != size:
            raise IntegrityError(f"{path} has {found} bytes instead of {size}: it is cut off or was changed. {_AGAIN}")
        if sha256 is not None and sha256_of(path) != sha256:
            raise IntegrityError(f"{path} is damaged or was changed: its sha256 is not the manifest's. {_AGAIN}")
        return path

    @contextlib.contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """Hold the folder, so that no other run writes to it.

        Args:
            wait: Wait for a run that holds it, instead of giving up.

        Raises:
            GalleryError: Another run holds it, or the folder holds other things.
            CacheError: The folder cannot be written to.
        """
        self._require_own()
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                with disk_errors(self.folder):
                    stack.enter_context(hold(self.folder / _LOCK, wait=wait))
            except LockedError as error:
                left = f" If none is, delete {error.marker}, which a killed run left." if error.marker else ""
                raise GalleryError(
                    f"another run is writing to {self.folder}. Let it end and start again, or wait for it: wait=True, "
                    f"on the command line --wait.{left}"
                ) from error
            yield

    def sweep(self, manifest: Manifest) -> None:
        """Remove replaced files, and those that a killed run left behind. The lock must be held."""
        listed = manifest.names()
        for path in self.folder.iterdir():
            if _is_ours(path.name) and path.name not in listed:
                with contextlib.suppress(OSError):  # some systems keep a file that is mapped; the next run removes it
                    path.unlink()

    def _require_own(self) -> None:
        """Check that the folder is a gallery, or is empty. Other things in it could be removed by mistake."""
        if self.folder.exists() and not self.folder.is_dir():
            raise GalleryError(f"{self.folder} is a file. Give a folder to make the gallery in.")
        if not self.folder.is_dir() or (self.folder / NAME).exists():
            return
        others = [path.name for path in self.folder.iterdir() if not path.name.startswith(_LOCK) and not _is_ours(path.name)]
        if others:
            raise GalleryError(
                f"{self.folder} is no gallery and holds other things ({sorted(others)[0]}, ...). Give a new folder for it."
            )


def _is_ours(name: str) -> bool:
    """Return whether a name is one of a gallery's files, finished or not."""
    if OWN_FILES.fullmatch(name) or name in _FRESH:
        return True
    return name.endswith(".tmp") and name.startswith(_LEFT_OVER)
