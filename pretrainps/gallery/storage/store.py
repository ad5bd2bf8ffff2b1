"""A gallery on disk: files of people that are written once and never changed, and what may be swept away.

    STORE/manifest.json                 what there is (`pretrainps.gallery.storage.manifest`)
    STORE/people-HASH.safetensors       everyone seen in some images, and the names of those images
    STORE/neighbours-HASH.faiss         an index for approximate search, of a very large gallery
    STORE/index.lock                    held while a run writes

A file is named by its own hash and listed only once it is whole. Whoever reads maps the files into memory, and keeps them even
while a run replaces them. What a killed run left unlisted, the next one removes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pretrainps.download.locks import LockedError, hold
from pretrainps.errors import CheckpointFormatError, GalleryError, IntegrityError
from pretrainps.files import disk_errors, new_file, sha256_of
from pretrainps.gallery.search.faiss_index import NEAREST, build
from pretrainps.gallery.storage.manifest import NAME, OWN_FILES, FileMark, Manifest, NeighboursMark, read_manifest
from pretrainps.weights.write import read_metadata, write_safetensors

_LOCK = "index.lock"
_FRESH = ("people.new", "neighbours.new")
"""What is written before its name, which depends on its bytes, is known."""
_READERS = 4
"""Threads that hash files; hashing lets other threads run."""
_AGAIN = "Index the images again with rebuild=True (`pretrainps index ... --rebuild`)."


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image that was looked at: how to know whether it is still the same."""

    name: str
    size: int
    """Of its file (or its video's), in bytes."""
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DetectionShard:
    """Everyone seen in some images: those of the first image, then those of the second, and so on."""

    images: tuple[ImageRecord, ...]
    numbers: Tensor
    """(N,) int32, each person's image; never falling."""
    boxes: Tensor
    """(N, 4) float32, x1, y1, x2, y2 in pixels of the upright image."""
    scores: Tensor
    """(N,) float32"""
    embeddings: Tensor
    """(N, D) float32, as the detector gives them for a gallery: unit vectors, times the score if its config says so."""

    def __len__(self) -> int:
        return len(self.scores)

    def rows_of(self, number: int) -> range:
        """Return the rows of one image's people."""
        start, stop = torch.searchsorted(self.numbers, torch.tensor([number, number + 1], dtype=torch.int32)).tolist()
        return range(start, stop)

    def changed(self, change: Callable[[ImageRecord], ImageRecord | None]) -> DetectionShard:
        """Return the same with each image's record replaced; an image for which that is `None` goes with its people."""
        new = [change(record) for record in self.images]
        keep = torch.tensor([record is not None for record in new], dtype=torch.bool)
        place = keep.cumsum(0, dtype=torch.int32) - 1  # of each image among those that stay
        images = self.numbers.long()
        stays = keep[images]
        return DetectionShard(
            images=tuple(record for record in new if record is not None),
            numbers=place[images][stays],
            boxes=self.boxes[stays],
            scores=self.scores[stays],
            embeddings=self.embeddings[stays],
        )


def joined(parts: Sequence[DetectionShard]) -> DetectionShard:
    """Put sightings of different images together, in order."""
    firsts = itertools.accumulate((len(part.images) for part in parts), initial=0)
    return DetectionShard(
        images=tuple(record for part in parts for record in part.images),
        numbers=torch.cat([part.numbers + first for part, first in zip(parts, firsts, strict=False)]),
        boxes=torch.cat([part.boxes for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        embeddings=torch.cat([part.embeddings for part in parts]),
    )


class GalleryStore:
    """The folder of a gallery. Making one touches nothing on disk.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(os.path.abspath(Path(folder).expanduser()))

    def manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            GalleryError: there is no gallery.
            IntegrityError: it is damaged.
        """
        found = read_manifest(self.folder)
        if found is None:
            what = "holds no gallery" if self.folder.is_dir() else "does not exist"
            folder = shlex.quote(str(self.folder))
            raise GalleryError(f"{self.folder} {what}. Make one: pretrainps index PHOTOS --model NAME -o {folder}")
        return found

    def write_people(self, people: DetectionShard) -> FileMark:
        """Write people to a file of their own.

        Raises:
            CacheError: the folder cannot be written to, or the disk is full.
        """
        tensors = {name: getattr(people, name) for name in ("numbers", "boxes", "scores", "embeddings")}
        fresh = self.folder / _FRESH[0]
        write_safetensors(tensors, fresh, {"images": [list(astuple(record)) for record in people.images]})
        name, digest, size = self._adopted(fresh, "people-{}.safetensors")
        return FileMark(file=name, sha256=digest, size=size, images=len(people.images), people=len(people))

    def write_neighbours(self, blocks: Sequence[Tensor], of: str) -> NeighboursMark:
        """Make and write an index for approximate search.

        Args:
            blocks: Everyone's embeddings, file by file.
            of: Digest of those files.

        Raises:
            MissingPackageError: faiss is not installed.
            CacheError: the folder cannot be written to, or the disk is full.
        """
        fresh = self.folder / _FRESH[1]
        with new_file(fresh) as temporary:
            measured = build(blocks, temporary)
        name, digest, size = self._adopted(fresh, "neighbours-{}.faiss")
        people = sum(map(len, blocks))
        return NeighboursMark(file=name, sha256=digest, size=size, people=people, of=of, nearest=NEAREST, **asdict(measured))

    def _adopted(self, fresh: Path, name: str) -> tuple[str, str, int]:
        """Give a new file its name, which its bytes decide; return that, its hash and its size."""
        digest, size = sha256_of(fresh), fresh.stat().st_size
        name = name.format(digest[:16])
        with disk_errors(self.folder):
            fresh.replace(self.folder / name)
        return name, digest, size

    def open_people(self, mark: FileMark, dim: int, *, verify: bool = True) -> DetectionShard:
        """Map a file of people into memory.

        Args:
            mark: What the manifest says of it.
            dim: Length of an embedding.
            verify: Hash the whole file first, and not only compare its size.

        Raises:
            FileNotFoundError: it is gone.
            IntegrityError: it is not the file that was written.
        """
        path = self.checked(mark.file, mark.size, mark.sha256 if verify else None)
        try:
            images = tuple(ImageRecord(*record) for record in read_metadata(path)["images"])
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in ("numbers", "boxes", "scores", "embeddings")}
            found = DetectionShard(images=images, **tensors)
        except (CheckpointFormatError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise IntegrityError(f"{path} is damaged ({error}). {_AGAIN}") from error
        if not _consistent(found, mark, dim):
            raise IntegrityError(f"{path} contradicts itself or the manifest. {_AGAIN}")
        return found

    def open_all(self, manifest: Manifest, *, verify: bool = True) -> list[DetectionShard]:
        """Map all files, in order.

        Raises:
            FileNotFoundError: one is gone.
            IntegrityError: one is not the file that was written.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda mark: self.open_people(mark, manifest.model.dim, verify=verify), manifest.files))

    def checked(self, name: str, size: int, sha256: str | None) -> Path:
        """Return the path of a file, once it is known to be unchanged.

        Raises:
            FileNotFoundError: it is gone.
            IntegrityError: it has another size, or another hash.
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
        """Hold the gallery, so that no other run writes to it.

        Args:
            wait: Wait for a run that holds it, instead of giving up.

        Raises:
            GalleryError: another run holds it; or the folder holds other things.
            CacheError: the folder cannot be written to.
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
        """Remove what does not belong to the gallery: replaced files, and what a killed run left. Hold the lock."""
        listed = manifest.names()
        for path in self.folder.iterdir():
            if _is_ours(path.name) and path.name not in listed:
                with contextlib.suppress(OSError):  # some systems keep a file that is mapped; the next run removes it
                    path.unlink()

    def _require_own(self) -> None:
        """See that the folder is a gallery, or empty: nothing of anybody else's is to be swept away."""
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
    """Return whether a name is one that files of people and indexes have, on their way too."""
    if OWN_FILES.fullmatch(name) or name in _FRESH:
        return True
    return name.endswith(".tmp") and name.startswith((".people", ".neighbours", f".{NAME}"))


def _consistent(found: DetectionShard, mark: FileMark, dim: int) -> bool:
    count = len(found.scores) if found.scores.ndim == 1 else -1
    shapes: list[tuple[Tensor, tuple[int, ...], Any]] = [
        (found.numbers, (count,), torch.int32),
        (found.boxes, (count, 4), torch.float32),
        (found.scores, (count,), torch.float32),
        (found.embeddings, (count, dim), torch.float32),
    ]
    if (count, len(found.images)) != (mark.people, mark.images):
        return False
    if any(tuple(tensor.shape) != shape or tensor.dtype != dtype for tensor, shape, dtype in shapes):
        return False
    if count and not (int(found.numbers[0]) >= 0 and int(found.numbers[-1]) < mark.images):
        return False
    return bool((found.numbers.diff() >= 0).all()) and all(map(_is_plain, found.images))


def _is_plain(record: ImageRecord) -> bool:
    """Return whether a record has the right types and its name stays within the folder of images."""
    types = (str, int, int, str)
    if any(type(value) is not wanted for value, wanted in zip(astuple(record), types, strict=True)):
        return False
    path = PurePosixPath(record.name)
    return bool(record.name) and not path.is_absolute() and ".." not in path.parts
