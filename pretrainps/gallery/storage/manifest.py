"""A gallery's table of contents: which model looked at which images, and which files hold whom it saw.

It is small, for names of images lie in the files it lists. It names each of them with its sha256 and carries a checksum of
itself, and it is read back only if writing it again would give the very same bytes: nothing in a gallery can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pretrainps.errors import ArgumentError, GalleryError, IntegrityError, RegistryError
from pretrainps.files import write_text
from pretrainps.registry.parse import build_record

FORMAT = 1
"""Raised when an older version of the package could not read a gallery any more."""
NAME = "manifest.json"
OWN_FILES = re.compile(r"(people-[0-9a-f]{16}\.safetensors|neighbours-[0-9a-f]{16}\.faiss)")
"""Every name that a file of a gallery may have. A manifest that names anything else is none of ours."""
_LARGEST = 256 << 20
"""Bytes; a manifest of a billion people has a tenth of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMark:
    """The detector that a gallery is bound to."""

    name: str
    """For people; the fingerprint decides."""
    fingerprint: str
    """Hash of its tensors and settings."""
    kind: str
    dim: int
    """Length of an embedding."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Of its trunk, proposals and last stages while it looked at the images."""
    weighted: bool
    """Whether embeddings are multiplied by their detection scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceMark:
    """Where the images come from."""

    kind: Literal["folder", "video"]
    root: str
    """Absolute path of the folder or of the video."""
    fps: float | None = None
    """Frames a second that are looked at, of a video."""

    def __post_init__(self) -> None:
        fits = self.fps is None if self.kind == "folder" else self.fps is not None and 0 < self.fps < math.inf
        if not fits:
            raise ArgumentError(f"a video has frames a second above 0, and a folder none; this {self.kind} has {self.fps}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileMark:
    """A file of people, whole and unchanged."""

    file: str
    sha256: str
    size: int
    images: int
    people: int

    def __post_init__(self) -> None:
        _check_file(self.file)
        if min(self.size, self.images, self.people) < 0:
            raise ArgumentError(f"{self.file}: no size and no count is below 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighboursMark:
    """An index for approximate search (faiss), with what was measured of it."""

    file: str
    sha256: str
    size: int
    people: int
    lists: int
    """Into how many lists people are sorted,"""
    probes: int
    """and how many of them a search looks through."""
    recall: float
    """Share of the truly nearest that were found,"""
    nearest: int
    """of so many nearest,"""
    sample: int
    """for so many people taken as queries."""
    of: str
    """Digest of the files of people that it was made of (`Manifest.contents`)."""

    def __post_init__(self) -> None:
        _check_file(self.file)

    def __str__(self) -> str:
        return (
            f"faiss IVF, {self.probes} of {self.lists} lists searched: recall {self.recall:.1%} of the {self.nearest} nearest, "
            f"measured against exact search for {self.sample} people"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An image that could not be looked at."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is in a gallery."""

    model: ModelMark
    source: SourceMark
    files: tuple[FileMark, ...] = ()
    """In the order of people's rows."""
    failures: tuple[Failure, ...] = ()
    neighbours: NeighboursMark | None = None
    complete: bool = False
    """Whether the last run came to its end."""

    @property
    def people(self) -> int:
        """How many there are in all files."""
        return sum(mark.people for mark in self.files)

    @property
    def images(self) -> int:
        """How many were looked at, also those in which nobody was seen."""
        return sum(mark.images for mark in self.files)

    @property
    def contents(self) -> str:
        """Digest of everyone there is and their order."""
        return hashlib.sha256(" ".join(mark.sha256 for mark in self.files).encode()).hexdigest()

    def names(self) -> set[str]:
        """Return the names of all files that belong to it."""
        extra = {self.neighbours.file} if self.neighbours else set()
        return {mark.file for mark in self.files} | extra

    def to_text(self) -> str:
        """Return what the file holds."""
        content = {"format": FORMAT, **asdict(self)}
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, "checksum": checksum}, indent=1, sort_keys=True) + "\n"

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            CacheError: the folder cannot be written to.
        """
        write_text(folder / NAME, self.to_text())


def read_manifest(folder: Path) -> Manifest | None:
    """Read a gallery's manifest; `None` if there is none.

    Raises:
        GalleryError: it was written by a newer version.
        IntegrityError: it is damaged, or was changed by hand.
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
        GalleryError: it was written by a newer version.
        IntegrityError: it is damaged, or was changed by hand.
    """
    try:
        value = json.loads(raw.decode("ascii"))
        number = value["format"]
        if type(number) is int and number > FORMAT:
            raise GalleryError(
                f"{path} was written by a newer version of pretrainps (format {number}; this one reads up to {FORMAT}). "
                "Update the package, or index again into another folder."
            )
        manifest = _build(value)
        if manifest.to_text().encode() == raw:
            return manifest
        reason = "its content is not what its checksum says"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, GalleryError):
            raise
        reason = str(error).splitlines()[0][:200] if isinstance(error, RegistryError | ArgumentError) else "it is no manifest"
    raise IntegrityError(
        f"{path} is damaged ({reason}). The images are still where they were: index them again with rebuild=True, on the "
        "command line `pretrainps index ... --rebuild`."
    )


def _build(value: dict[str, Any]) -> Manifest:
    def records(cls: type[Any], name: str) -> tuple[Any, ...]:
        return tuple(build_record(cls, each, name) for each in value[name])

    neighbours = value["neighbours"]
    return Manifest(
        model=build_record(ModelMark, value["model"], "model"),
        source=build_record(SourceMark, value["source"], "source"),
        files=records(FileMark, "files"),
        failures=records(Failure, "failures"),
        neighbours=None if neighbours is None else build_record(NeighboursMark, neighbours, "neighbours"),
        complete=value["complete"] is True,
    )


def _check_file(name: str) -> None:
    if not OWN_FILES.fullmatch(name):
        raise ArgumentError(f"{name[:80]!r} is not how a file of a gallery is called.")
