"""The table of contents of a gallery's folder: the model, the source of the images, and the files of detections.

It is small, because names of images are in the files that it lists. It has the sha256 of each file and a checksum of itself. It
is accepted only if writing it again gives the same bytes, so that nothing in a gallery can change unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrainps.errors import ArgumentError, GalleryError, IntegrityError, RegistryError
from pretrainps.files import write_text
from pretrainps.gallery.storage.format_1 import downgrade, upgrade
from pretrainps.gallery.storage.header import Failure, GalleryHeader, ModelMark, SourceMark
from pretrainps.registry.parse import build_record

FORMAT = 2
"""It is raised when older versions of the package could not read a gallery any more. Format 1 is still read."""
NAME = "manifest.json"
OWN_FILES = re.compile(
    r"(detections-[0-9a-f]{16}\.safetensors|index-[0-9a-f]{16}\.[a-z][a-z0-9+.-]{0,31}"
    r"|people-[0-9a-f]{16}\.safetensors|neighbours-[0-9a-f]{16}\.faiss)"
)
"""All names that files of a gallery can have. The last two are names of format 1. Manifests with other names are refused."""
_LARGEST = 256 << 20
"""Bytes. The manifest of a billion detections has a tenth of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileMark:
    """A file of detections."""

    file: str
    """Its name in the gallery's folder."""
    sha256: str
    """Its hash."""
    size: int
    """Its length in bytes."""
    images: int
    """Number of images in it."""
    detections: int
    """Number of detections in it."""

    def __post_init__(self) -> None:
        _check_file(self.file)
        if min(self.size, self.images, self.detections) < 0:
            raise ArgumentError(f"{self.file}: sizes and counts are 0 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexFile:
    """A vector index that was saved with the gallery."""

    kind: str
    """Name of the back end that built it."""
    version: str
    """The version of the detections that it was built for (`Manifest.version`)."""
    facts: dict[str, Any]
    """What the back end wants back when it opens the index: numbers and short texts."""
    file: str | None = None
    """Name of its file. Some back ends need none."""
    sha256: str | None = None
    """Hash of that file."""
    size: int | None = None
    """Bytes of that file."""

    def __post_init__(self) -> None:
        if len({value is None for value in (self.file, self.sha256, self.size)}) != 1:
            raise ArgumentError("an index has a file with a hash and a size, or none of them.")
        if self.file is not None:
            _check_file(self.file)
        for key, value in self.facts.items():
            if type(value) not in (int, float, str, bool) or (type(value) is float and not math.isfinite(value)):
                raise ArgumentError(f"{key[:80]!r} of an index: a number, a text or a truth value is expected.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is in a gallery."""

    header: GalleryHeader
    """What is known of the gallery as a whole."""
    files: tuple[FileMark, ...] = ()
    """Files of detections, in the order of rows."""
    index: IndexFile | None = None
    """The vector index that was saved last."""

    @property
    def detections(self) -> int:
        """Number of detections in all files."""
        return sum(mark.detections for mark in self.files)

    @property
    def images(self) -> int:
        """Number of indexed images, with those that have no detections."""
        return sum(mark.images for mark in self.files)

    @property
    def version(self) -> str:
        """Digest of all detections in their order."""
        return hashlib.sha256(" ".join(mark.sha256 for mark in self.files).encode()).hexdigest()

    def names(self) -> set[str]:
        """Return the names of all files that belong to the gallery."""
        extra = {self.index.file} if self.index and self.index.file else set()
        return {mark.file for mark in self.files} | extra

    def content(self) -> dict[str, Any]:
        """Return everything but the checksum as JSON-ready values."""
        index = None if self.index is None else asdict(self.index)
        return {"format": FORMAT, **asdict(self.header), "files": [asdict(mark) for mark in self.files], "index": index}

    def to_text(self) -> str:
        """Return the text of the manifest's file."""
        return _with_checksum(self.content())

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all.

        Raises:
            CacheError: The folder cannot be written to.
        """
        write_text(folder / NAME, self.to_text())


def read_manifest(folder: Path) -> Manifest | None:
    """Read a gallery's manifest; `None` if there is none.

    Raises:
        GalleryError: It was written by a newer version.
        IntegrityError: It is damaged, or was changed by hand.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalleryError(f"{path} cannot be read ({error.strerror}). Is {folder} a gallery, and yours to read?") from error
    return parse_manifest(raw, path)


def parse_manifest(raw: bytes, path: Path) -> Manifest:
    """Return the manifest that bytes hold.

    Args:
        raw: What the file holds.
        path: The file, for the message.

    Raises:
        GalleryError: It was written by a newer version.
        IntegrityError: It is damaged, or was changed by hand.
    """
    try:
        value = json.loads(raw.decode("ascii"))
        number = value["format"]
        if type(number) is int and number > FORMAT:
            raise GalleryError(
                f"{path} was written by a newer version of pretrainps (format {number}; this one reads up to {FORMAT}). "
                "Update the package, or index again into another folder."
            )
        manifest = _build(upgrade(value) if number == 1 else value)
        content = downgrade(manifest.content()) if number == 1 else manifest.content()
        if _with_checksum(content).encode() == raw:
            return manifest
        reason = "its content does not match its checksum"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, GalleryError):
            raise
        reason = (
            str(error).splitlines()[0][:200] if isinstance(error, RegistryError | ArgumentError) else "it is not a manifest"
        )
    raise IntegrityError(
        f"{path} is damaged ({reason}). The images are still where they were: index them again with rebuild=True, on the "
        "command line `pretrainps index ... --rebuild`."
    )


def _build(value: dict[str, Any]) -> Manifest:
    def records(cls: type[Any], name: str) -> tuple[Any, ...]:
        return tuple(build_record(cls, each, name) for each in value[name])

    header = GalleryHeader(
        model=build_record(ModelMark, value["model"], "model"),
        source=build_record(SourceMark, value["source"], "source"),
        failures=records(Failure, "failures"),
        complete=value["complete"] is True,
    )
    index = value["index"]
    return Manifest(
        header=header,
        files=records(FileMark, "files"),
        index=None if index is None else build_record(IndexFile, index, "index"),
    )


def _with_checksum(content: dict[str, Any]) -> str:
    """Return content as JSON with a checksum of itself."""
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=1, sort_keys=True) + "\n"


def _check_file(name: str) -> None:
    if not OWN_FILES.fullmatch(name):
        raise ArgumentError(f"{name[:80]!r} is not how a file of a gallery is called.")
