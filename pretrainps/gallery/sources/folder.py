"""A folder of images: which files are new, which were changed, and their pixels, read ahead in threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.errors import ArgumentError, ImageError
from pretrainps.files import sha256_of
from pretrainps.gallery.sources.base import ImageSource, KnownImages, ReadImage, Survey
from pretrainps.gallery.storage.header import Failure, ImageRecord, SourceMark
from pretrainps.images.read import SUFFIXES, read_image
from pretrainps.inference.runner import READERS, ImageFailure, ImageInput, read_ahead


class FolderSource(ImageSource):
    """All images in a folder and below it. Names that begin with a dot are skipped, and links to folders are not followed.

    Args:
        folder: The folder.
        without: A folder that is skipped: the gallery's own, which may be inside.

    Raises:
        ArgumentError: There is no such folder.
    """

    def __init__(self, folder: Path, *, without: Path | None = None) -> None:
        if not folder.is_dir():
            raise ArgumentError(f"{folder} is not a folder. Give a folder of images, or a video.")
        self.root = Path(os.path.abspath(folder))
        self.mark = SourceMark(kind="folder", root=str(self.root))
        self._without = without

    def survey(self, known: KnownImages, failures: tuple[Failure, ...], *, complete: bool) -> Survey:
        """Find new and changed files: those of another size, or of another time and other bytes."""
        names, closed = self._names()
        if not names:
            raise ArgumentError(f"no images in {self.root}. Looked for {', '.join(sorted(SUFFIXES))}, in all folders below it.")
        with ThreadPoolExecutor(READERS) as pool:
            records = pool.map(lambda name: self._unchanged(known.get(name)), names)
            kept = {record.name: record for record in records if record is not None}
        wanted = tuple(name for name in names if name not in kept)
        return Survey(kept=kept, wanted=wanted, expected=len(wanted), failures=tuple(closed))

    def read(self, survey: Survey) -> Iterator[ReadImage]:
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

    def _read(self, name: str) -> ReadImage:
        path = self.root / name
        try:
            stat = path.stat()  # first: a change from here on shows in the time
            record = ImageRecord(name, stat.st_size, stat.st_mtime_ns, sha256_of(path))
            return ImageInput(key=record, pixels=pil_to_tensor(read_image(path)))
        except ImageError as error:
            return ImageFailure(key=name, error=error)
        except OSError as error:
            return ImageFailure(key=name, error=ImageError(f"{path} cannot be read ({error.strerror})."))
        except MemoryError:
            return ImageFailure(key=name, error=ImageError(f"{path} is too large for the memory of this machine."))
