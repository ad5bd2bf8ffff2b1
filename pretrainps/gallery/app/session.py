"""One visitor of the app: his photos in a folder of their own that is removed after he left, and what he asks of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.gallery.gallery import Gallery
from pretrainps.gallery.query_selection import from_left_to_right
from pretrainps.gallery.results import Person, SearchResult
from pretrainps.gallery.view.report import write_report
from pretrainps.images.drawing import ANSWER, draw_box, fitted, sight
from pretrainps.images.read import SUFFIXES

_THUMBNAIL = 480
_SCENE = 1600
"""Longest sides in pixels."""
_ANSWER = (320, 480)


@dataclass(frozen=True, slots=True)
class Added:
    """What became of uploaded files."""

    photos: int
    """That were looked at now."""
    people: int
    """In all photos."""
    refused: tuple[tuple[str, str], ...]
    """Names of files that are no use, and why."""


class Visit:
    """Photos of one visitor and the gallery made of them.

    Args:
        model: A detector in eval mode.
    """

    def __init__(self, model: PersonSearchDetector[Any]) -> None:
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="pretrainps-visit-")
        self._photos = Path(self._folder.name) / "photos"
        self._photos.mkdir()
        self._store = Path(self._folder.name) / "gallery"
        self._gallery: Gallery | None = None
        self._thumbnails: dict[str, Image.Image] = {}

    @property
    def names(self) -> list[str]:
        """The photos, in order."""
        return [] if self._gallery is None else sorted(self._gallery.image_names)

    def add(self, files: Sequence[Path], *, progress: bool = True) -> Added:
        """Take copies of files and look at those that are photos; the others are refused, and stop nothing.

        Args:
            files: Where they were uploaded to. They keep their names; one that is there already gets another.
            progress: Show a bar.
        """
        refused: list[tuple[str, str]] = []
        for file in files:
            if file.suffix.lower() in SUFFIXES:
                shutil.copyfile(file, self._free_place(file.name))
            else:
                refused.append((file.name, f"files of this kind are not read; those of {', '.join(sorted(SUFFIXES))} are"))
        if not any(self._photos.iterdir()):
            return Added(0, 0, tuple(refused))
        report = Gallery.index(self._photos, self._model, store=self._store, progress=progress)
        for failure in report.failures:
            (self._photos / failure.image).unlink(missing_ok=True)  # or each upload would try it again
            reason = failure.reason.replace(f"{self._photos}/", "").removeprefix(f"{failure.image} is ").rstrip(".")
            refused.append((failure.image, reason))
        self._gallery = Gallery.open(self._store)
        return Added(report.added, len(self._gallery), tuple(refused))

    def photo(self, name: str) -> Image.Image:
        """Return a photo, upright."""
        return self._opened().picture(name)

    def people(self, name: str) -> list[Person]:
        """Return everyone on a photo, in the order of their numbers."""
        return from_left_to_right(self._opened().people_of(name))

    def thumbnails(self) -> list[tuple[Image.Image, str]]:
        """Return all photos, small, with their names."""
        for name in self.names:
            if name not in self._thumbnails:
                self._thumbnails[name] = fitted(self.photo(name), most=_THUMBNAIL)
        return [(self._thumbnails[name], name) for name in self.names]

    def search(self, person: Person, *, top: int, rerank: bool = False, leave_out_own: bool = True) -> SearchResult:
        """Find where else somebody on a photo is.

        Args:
            person: One of `people`.
            top: Answers.
            rerank: Let people beside him help.
            leave_out_own: No answers from his own photo.
        """
        photo = self.photo(person.image)
        return self._opened().search(
            self._model,
            photo,
            person.box,
            top=top,
            rerank=rerank,
            query_name=person.image,
            leave_out_own=leave_out_own,
        )

    def answers(self, result: SearchResult) -> list[tuple[Image.Image, str]]:
        """Return the answers as pictures of the people, with rank and similarity."""
        return [
            (sight(self.photo(hit.person.image), hit.person.box, _ANSWER, ANSWER), f"{hit.rank} · {hit.similarity:.3f}")
            for hit in result.hits
        ]

    def scene(self, person: Person) -> Image.Image:
        """Return the whole photo that somebody is on, with his box."""
        photo = self.photo(person.image)
        shown = fitted(photo, most=_SCENE).copy()
        scale = shown.width / photo.width
        x1, y1, x2, y2 = (value * scale for value in person.box)
        draw_box(shown, (x1, y1, x2, y2), ANSWER, width=max(2, max(shown.size) // 300))
        return shown

    def report(self, result: SearchResult) -> Path:
        """Write a page of the answers, and return where it is."""
        return write_report(self._opened(), [result], Path(self._folder.name) / "people.html")

    def leave(self) -> None:
        """Remove everything."""
        self._folder.cleanup()

    def _opened(self) -> Gallery:
        if self._gallery is None:
            raise ArgumentError("there are no photos yet. Upload some first.")
        return self._gallery

    def _free_place(self, name: str) -> Path:
        place, number = self._photos / name, 2
        while place.exists():
            place = self._photos / f"{Path(name).stem} ({number}){Path(name).suffix}"
            number += 1
        return place
