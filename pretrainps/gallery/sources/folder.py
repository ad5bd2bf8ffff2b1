"""Where a gallery's images come from: what is there, what of it is new, and its pixels, read ahead while a network works."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.errors import ArgumentError, ImageError
from pretrainps.files import sha256_of
from pretrainps.gallery.storage.manifest import Failure, SourceMark
from pretrainps.gallery.storage.store import ImageRecord
from pretrainps.images.read import SUFFIXES, read_image

READERS = 2
"""Threads that read images: decoding lets other threads run."""
_AHEAD = 4
"""Images read ahead of those that are asked for."""

Known = Mapping[str, ImageRecord]
Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What there is, compared with what is known."""

    kept: dict[str, ImageRecord]
    """Known images that are still the same; a record is renewed if its file was touched but not changed."""
    wanted: tuple[str, ...] | None
    """Images to look at, in order; `None` where that shows only on the way."""
    expected: int
    """About how many those are."""
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """An image that was read."""

    record: ImageRecord
    pixels: Tensor = field(repr=False)
    """(3, H, W) uint8, RGB, upright."""


class Source(ABC):
    """Images by name.

    Attributes:
        mark: What a manifest says of it.
        root: The folder that names are relative to.
    """

    mark: SourceMark
    root: Path

    @abstractmethod
    def survey(self, known: Known, failures: tuple[Failure, ...], *, complete: bool) -> Survey:
        """Compare what there is with what is known.

        Args:
            known: Images that were looked at before.
            failures: Images that could not be.
            complete: Whether that run came to its end.

        Raises:
            ArgumentError: there are no images.
        """

    @abstractmethod
    def read(self, survey: Survey) -> Iterator[Reading | Failure]:
        """Yield the wanted images, in order; in place of one that cannot be read, the reason."""

    @abstractmethod
    def picture(self, record: ImageRecord) -> Image.Image:
        """Read a known image again.

        Raises:
            ImageError: it is gone, damaged, or not the one that was looked at.
        """


class FolderSource(Source):
    """All images in a folder and below it. Names that begin with a dot are passed over, and links to folders not followed.

    Args:
        folder: The folder.
        without: A folder that is passed over: the gallery's own, which may lie in there.

    Raises:
        ArgumentError: there is no such folder.
    """

    def __init__(self, folder: Path, *, without: Path | None = None) -> None:
        if not folder.is_dir():
            raise ArgumentError(f"{folder} is no folder. Give a folder of images, or a video.")
        self.root = Path(os.path.abspath(folder))
        self.mark = SourceMark(kind="folder", root=str(self.root))
        self._without = without

    def survey(self, known: Known, failures: tuple[Failure, ...], *, complete: bool) -> Survey:
        """Find new and changed files: those of another size, or of another time and other bytes."""
        names, closed = self._names()
        if not names:
            raise ArgumentError(f"no images in {self.root}. Looked for {', '.join(sorted(SUFFIXES))}, in all folders below it.")
        with ThreadPoolExecutor(READERS) as pool:
            records = pool.map(lambda name: self._unchanged(known.get(name)), names)
            kept = {record.name: record for record in records if record is not None}
        wanted = tuple(name for name in names if name not in kept)
        return Survey(kept=kept, wanted=wanted, expected=len(wanted), failures=tuple(closed))

    def read(self, survey: Survey) -> Iterator[Reading | Failure]:
        """Read files in threads."""
        return read_ahead(self._read, survey.wanted or ())

    def picture(self, record: ImageRecord) -> Image.Image:
        """Read a known image again."""
        picture = read_image(self.root / record.name)
        if self._unchanged(record) is None:
            raise ImageError(f"{self.root / record.name} was changed since it was indexed. Run `pretrainps index` again.")
        return picture

    def _names(self) -> tuple[list[str], list[Failure]]:
        names: list[str] = []
        closed: list[Failure] = []

        def note(error: OSError) -> None:
            closed.append(Failure(image=str(error.filename), reason=f"this folder cannot be listed ({error.strerror})."))

        for place, folders, files in os.walk(self.root, onerror=note):
            here = Path(place)
            folders[:] = sorted(each for each in folders if not each.startswith(".") and here / each != self._without)
            for file in sorted(files):
                if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                    names.append((here / file).relative_to(self.root).as_posix())
        return names, closed

    def _unchanged(self, record: ImageRecord | None) -> ImageRecord | None:
        if record is None:
            return None
        path = self.root / record.name
        try:
            stat = path.stat()
            if stat.st_size != record.size:
                return None
            if stat.st_mtime_ns == record.mtime_ns:
                return record
            return replace(record, mtime_ns=stat.st_mtime_ns) if sha256_of(path) == record.sha256 else None
        except OSError:
            return None

    def _read(self, name: str) -> Reading | Failure:
        path = self.root / name
        try:
            stat = path.stat()  # first: a change from here on shows in the time
            record = ImageRecord(name, stat.st_size, stat.st_mtime_ns, sha256_of(path))
            return Reading(record=record, pixels=pil_to_tensor(read_image(path)))
        except ImageError as error:
            return Failure(image=name, reason=str(error))
        except OSError as error:
            return Failure(image=name, reason=f"{path} cannot be read ({error.strerror}).")
        except MemoryError:
            return Failure(image=name, reason=f"{path} is too large for the memory of this machine.")


def open_source(place: Path | str, *, fps: float | None = None, without: Path | None = None) -> Source:
    """Return a folder of images, or a video, as a source.

    Args:
        place: The folder or the video.
        fps: Frames of a video to look at a second; by default 1.
        without: A folder to pass over.

    Raises:
        ArgumentError: there is no such place; or it is one image; or frames a second were asked of a folder.
        MissingPackageError: it is a video, and the library that decodes them is not installed.
        ImageError: it is no video, or damaged.
    """
    path = Path(place).expanduser()
    if not path.exists():
        raise ArgumentError(f"{path} does not exist. Give a folder of images, or a video.")
    if path.is_dir():
        if fps is not None:
            raise ArgumentError(f"frames a second (fps={fps:g}) are for videos; {path} is a folder.")
        return FolderSource(path, without=without)
    if path.suffix.lower() in SUFFIXES:
        raise ArgumentError(f"{path} is one image. Give the folder it lies in, or a video.")
    from pretrainps.gallery.sources.video import VideoSource

    return VideoSource(path, fps=1.0 if fps is None else fps)


def read_ahead(make: Callable[[Item], Made], items: Iterable[Item], *, threads: int = READERS) -> Iterator[Made]:
    """Yield what is made of each item, in order, made in threads some items ahead."""
    ahead: deque[Future[Made]] = deque()
    waiting = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            for item in waiting:
                ahead.append(pool.submit(make, item))
                if len(ahead) > _AHEAD:
                    break
            if not ahead:
                return
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
