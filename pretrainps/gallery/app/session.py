"""One visitor of the app: their photos, in a folder that is removed after they leave, and their searches."""

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
from pretrainps.gallery.results import Detection, SearchResult
from pretrainps.gallery.view.report import write_report
from pretrainps.images.drawing import ANSWER, crop_with_margin, draw_box, fitted
from pretrainps.images.read import SUFFIXES

_THUMBNAIL = 480
_SCENE = 1600
"""Longest sides in pixels."""
_ANSWER = (320, 480)
"""Width and height of an answer in pixels."""


@dataclass(frozen=True, slots=True)
class Added:
    """What became of uploaded files."""

    photos: int
    """How many photos were indexed now."""
    detections: int
    """How many detections there are in all photos."""
    refused: tuple[tuple[str, str], ...]
    """Names of files that cannot be used, each with the reason."""


class Session:
    """The photos of one visitor, and the gallery of them.

    Args:
        model: A detector in eval mode.
    """

    def __init__(self, model: PersonSearchDetector[Any]) -> None:
        self._model = model
        self._folder = tempfile.TemporaryDirectory(prefix="pretrainps-session-")
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
        """Copy files and index those that are photos. The others are refused, and stop nothing.

        Args:
            files: The uploaded files. They keep their names, but a name that is taken already is changed.
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

    def detections(self, name: str) -> list[Detection]:
        """Return the detections in a photo, in the order of their numbers."""
        return from_left_to_right(self._opened().detections_of(name))

    def thumbnails(self) -> list[tuple[Image.Image, str]]:
        """Return all photos, small, with their names."""
        for name in self.names:
            if name not in self._thumbnails:
                self._thumbnails[name] = fitted(self.photo(name), most=_THUMBNAIL)
        return [(self._thumbnails[name], name) for name in self.names]

    def search(self, detection: Detection, *, top: int, rerank: bool = False, exclude_query_image: bool = True) -> SearchResult:
        """Find where else a person in a photo is seen.

        Args:
            detection: One of `detections`.
            top: How many answers.
            rerank: Compare the people who are seen together with them, too.
            exclude_query_image: No answers from the same photo.
        """
        return self._opened().search(
            self._model,
            self.photo(detection.image),
            detection.box,
            top=top,
            rerank=rerank,
            query_name=detection.image,
            exclude_query_image=exclude_query_image,
        )

    def answers(self, result: SearchResult) -> list[tuple[Image.Image, str]]:
        """Return the answers as pictures of the people, with rank and similarity."""
        return [
            (
                crop_with_margin(self.photo(hit.detection.image), hit.detection.box, _ANSWER, ANSWER),
                f"{hit.rank} · {hit.similarity:.3f}",
            )
            for hit in result.hits
        ]

    def scene(self, detection: Detection) -> Image.Image:
        """Return the whole photo that a person is in, with their box."""
        photo = self.photo(detection.image)
        shown = fitted(photo, most=_SCENE).copy()
        scale = shown.width / photo.width
        x1, y1, x2, y2 = (value * scale for value in detection.box)
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
