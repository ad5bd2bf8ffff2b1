"""A gallery: everyone in a folder of images or in a video, found again by showing one of them."""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, GalleryError, ImageError
from pretrainps.evaluation.cbgm import require_scipy
from pretrainps.evaluation.protocols import PRW_CONTEXT, ContextMatching
from pretrainps.gallery.indexing import IndexReport, fill
from pretrainps.gallery.model_match import fingerprint, require_detector, require_same
from pretrainps.gallery.query import checked_box, embed_person, matched
from pretrainps.gallery.results import Box, Hit, Person, SearchResult
from pretrainps.gallery.search.exact_search import ExactSearch, check_vectors
from pretrainps.gallery.search.faiss_index import ABOVE, ApproximateSearch
from pretrainps.gallery.sources.folder import Source, open_source
from pretrainps.gallery.storage.catalog import Contents, Place
from pretrainps.gallery.storage.manifest import Manifest, NeighboursMark
from pretrainps.gallery.storage.store import GalleryStore
from pretrainps.images.read import read_image, to_rgb
from pretrainps.inference.detections import F32, I64
from pretrainps.inference.runner import Precision

_TRIES = 5
"""To open a gallery whose files a run replaces just now."""


class Gallery:
    """Everyone whom one detector saw in some images, ready to be searched. Made by `index`, read by `open`.

    People have rows, from 0; those of one image follow each other. Files are mapped into memory and stay as they were when the
    gallery was opened, even while a run brings it up to date.

    Example:
        >>> import pretrainps
        >>> model = pretrainps.load(NAME)                                                       # doctest: +SKIP
        >>> print(pretrainps.Gallery.index("photos", model, store="photos.gallery"))            # doctest: +SKIP
        >>> gallery = pretrainps.Gallery.open("photos.gallery")                                 # doctest: +SKIP
        >>> gallery.search(model, "photos/party.jpg", (310, 80, 395, 330)).hits[0].person.image # doctest: +SKIP
        'beach/0113.jpg'

    Attributes:
        store: The folder that it was read from.
        model_name: What it was made with.
    """

    def __init__(
        self, store: GalleryStore, manifest: Manifest, contents: Contents, source_root: Path, device: torch.device | str
    ) -> None:
        self.store = store.folder
        self.model_name = manifest.model.name
        self._store, self._manifest, self._contents = store, manifest, contents
        self._place, self._device = source_root, device

    @classmethod
    def index(
        cls,
        source: Path | str,
        model: PersonSearchDetector[Any],
        *,
        store: Path | str,
        fps: float | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        rebuild: bool = False,
        wait: bool = False,
        progress: bool = True,
        approximate_above: int = ABOVE,
    ) -> IndexReport:
        """Make a gallery, or bring it up to date: look at new and changed images, drop those that are gone.

        An image is known by its size and time; if only its time is another, by its bytes. A run that was interrupted is gone on
        with. An image that cannot be read is reported and tried again by the next run.

        Args:
            source: A folder, searched recursively, or a video.
            model: A detector in eval mode, as it was loaded. The gallery is bound to its tensors and settings.
            store: The gallery's folder; it may lie within the folder of images.
            fps: Frames of a video to look at a second (by default 1).
            batch_size: Images of equal size a forward pass; by default 1 on a CPU, else 8.
            precision: Of the detector's trunk, proposals and last stages.
            rebuild: Begin anew, whatever is there.
            wait: Wait for another run that writes to the gallery, instead of giving up.
            progress: Show a bar.
            approximate_above: People from which on an index for approximate search is made, if faiss is installed.

        Raises:
            ArgumentError: no images, or a model or settings that cannot be.
            GalleryError: another run is writing there; or it is a gallery of another model or folder, or no gallery.
            IntegrityError: its manifest is damaged.
            MissingPackageError: for a video, PyAV is not installed.
            ImageError: a video cannot be read.
            CacheError: the gallery's folder cannot be written to, or the disk is full.
        """
        model = require_detector(model)
        place = GalleryStore(store)
        on_cpu = next(model.parameters()).device.type == "cpu"
        return fill(
            open_source(source, fps=fps, without=place.folder),
            model,
            place,
            batch_size=(1 if on_cpu else 8) if batch_size is None else batch_size,
            precision=precision,
            rebuild=rebuild,
            wait=wait,
            progress=progress,
            approximate_above=approximate_above,
        )

    @classmethod
    def open(
        cls, store: Path | str, *, root: Path | str | None = None, device: torch.device | str = "cpu", verify: bool = True
    ) -> Gallery:
        """Open a gallery.

        Args:
            store: Its folder.
            root: Where its images (or its video) lie now, if they were moved.
            device: Where similarities are computed; on another device than the CPU, everybody is copied there.
            verify: Compare every file's sha256, as fast as it can be read; without, sizes and shapes only.

        Raises:
            GalleryError: there is none, or one of a newer version.
            IntegrityError: a file was damaged, cut off or changed.
        """
        place = GalleryStore(store)
        for _ in range(_TRIES):
            manifest = place.manifest()
            try:
                contents = Contents(place.open_all(manifest, verify=verify))
            except FileNotFoundError as error:
                gone = error
                continue  # a run has just replaced it, and the manifest too; or it was removed for good
            return cls(place, manifest, contents, Path(os.path.abspath(manifest.source.root if root is None else root)), device)
        raise GalleryError(
            f"{gone.filename} is gone. Index the images again: pretrainps index {manifest.source.root} -o {place.folder}"
        )

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def root(self) -> Path:
        """The folder that images' names are relative to."""
        return self._place.parent if self._manifest.source.kind == "video" else self._place

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._manifest.model.dim

    @property
    def complete(self) -> bool:
        """Whether the last run that indexed came to its end."""
        return self._manifest.complete

    @property
    def method(self) -> str:
        """How it is searched: "exact", or an approximation with the recall that was measured."""
        return "exact" if self._neighbours is None else str(self._neighbours)

    @property
    def image_names(self) -> tuple[str, ...]:
        """Every image that was looked at, also those in which nobody was seen."""
        return tuple(self._contents.images)

    def matches(self, model: PersonSearchDetector[Any]) -> bool:
        """Return whether a model is the one that the gallery was made with: the same tensors and settings."""
        return fingerprint(model) == self._manifest.model.fingerprint

    def person(self, row: int) -> Person:
        """Return who stands in a row.

        Raises:
            ArgumentError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise ArgumentError(f"there is no row {row}: the gallery has {len(self)} people.")
        return self._contents.person(row)

    def people_of(self, image: str) -> list[Person]:
        """Return everyone seen in an image, the surest first.

        Raises:
            ArgumentError: the gallery has no such image.
        """
        return [self._contents.person(row) for row in self._contents.rows_of(self._known(image))]

    def picture(self, image: str) -> Image.Image:
        """Read an image again, upright.

        Raises:
            ArgumentError: the gallery has no such image.
            ImageError: it is gone, damaged, or was changed since.
        """
        return self._source.picture(self._contents.record(self._known(image)))

    def name_of(self, path: Path | str) -> str | None:
        """Return the name of an image file in this gallery, or `None` if it has none."""
        try:
            name = Path(os.path.abspath(Path(path).expanduser())).relative_to(self.root).as_posix()
        except ValueError:
            return None
        return name if name in self._contents.images else None

    def name_for(self, path: Path | str) -> str:
        """Return what to call an image file in answers: its name in this gallery, or one that no image of it has."""
        known, name = self.name_of(path), Path(path).name
        return known or (f"{name} (query)" if name in self._contents.images else name)

    def search(
        self,
        model: PersonSearchDetector[Any],
        image: Path | str | Image.Image,
        box: Box,
        *,
        top: int = 10,
        rerank: bool = False,
        query_name: str | None = None,
        leave_out_own: bool = False,
        context: ContextMatching = PRW_CONTEXT,
    ) -> SearchResult:
        """Find a person.

        Args:
            model: The detector that the gallery was made with.
            image: The image he is seen in: a file, or an upright picture.
            box: Where: x1, y1, x2, y2 in pixels of the upright image.
            top: How many answers.
            rerank: Let people who are seen beside him help (context matching, CBGM).
            query_name: The image's name, for the result; by default `name_for` its file.
            leave_out_own: Leave out everyone in the query's own image, by that name.
            context: How many images and companions take part in matching.

        Raises:
            GalleryError: the gallery was made with another model.
            ArgumentError: a box that cannot be.
            ImageError: the image cannot be read.
            MissingPackageError: scipy, for context matching, or faiss is not installed.
        """
        start = time.perf_counter()
        model = require_detector(model)
        require_same(self._manifest.model, model)
        if rerank:
            require_scipy()
        picture = to_rgb(image) if isinstance(image, Image.Image) else read_image(Path(image))
        name = query_name or ("query" if isinstance(image, Image.Image) else self.name_for(image))
        query = Person(image=name, box=checked_box(box, picture), score=1.0)
        beside = embed_person(model, picture, query.box, everyone=rerank)
        reached = max(top, context.k1) if rerank else top
        own = len(self.people_of(name)) if leave_out_own and name in self._contents.images else 0
        scores, rows = self.search_embeddings(beside[:1], reached + own)
        best = [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
        if own:
            best = [each for each in best if self.person(each[1]).image != name][:reached]
        if rerank:
            best = self._reranked([row for _, row in best], beside, context)
        hits = tuple(
            Hit(person=self.person(row), similarity=score, rank=place) for place, (score, row) in enumerate(best[:top], start=1)
        )
        method = self.method
        if rerank:
            method += f"; context matching with k1 = {context.k1}, k2 = {context.k2}"
        seconds = time.perf_counter() - start
        return SearchResult(
            query=query, hits=hits, searched=len(self), images=len(self._contents.images), method=method, seconds=seconds
        )

    def search_embeddings(self, vectors: F32 | Tensor, top: int) -> tuple[F32, I64]:
        """Find the people most similar to given vectors.

        Args:
            vectors: (Q, D), as `model.embed` gives them.
            top: How many for each; fewer if there are not so many.

        Returns:
            (Q, top) similarities, the greatest first, and (Q, top) rows. Approximate search gives -inf and row -1 where it
            found too few.

        Raises:
            ArgumentError: vectors of another shape, or not finite; or nothing asked for.
            MissingPackageError: faiss is not installed.
        """
        queries: F32 = np.asarray(vectors.detach().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
        check_vectors(queries, self.dim, top)
        return self._search.search(queries, top)

    @cached_property
    def _source(self) -> Source:
        if not self._place.exists():
            raise ImageError(
                f"the images of this gallery lay in {self._place}, which does not exist. If they were moved, say where to: "
                "Gallery.open(store, root=...)."
            )
        return open_source(self._place, fps=self._manifest.source.fps)

    @property
    def _neighbours(self) -> NeighboursMark | None:
        found = self._manifest.neighbours
        return found if found is not None and found.of == self._manifest.contents else None

    @cached_property
    def _search(self) -> ExactSearch | ApproximateSearch:
        mark = self._neighbours
        if mark is None:
            return ExactSearch(self._contents.embeddings, device=self._device)
        path = self._store.checked(mark.file, mark.size, mark.sha256)
        return ApproximateSearch(path, probes=mark.probes, people=len(self), dim=self.dim)

    def _known(self, image: str) -> Place:
        found = self._contents.images.get(image)
        if found is None:
            raise ArgumentError(f"the gallery has no image {image!r}. Names are relative to {self.root}.")
        return found

    def _reranked(self, rows: list[int], beside: F32, context: ContextMatching) -> list[tuple[float, int]]:
        """Match everyone in the images of the best answers; return similarities and rows, the best first."""
        images = list(dict.fromkeys(self._contents.image_of(row) for row in rows))
        similarities = matched([self._contents.seen_in(image) for image in images], beside, context)
        everyone = [row for image in images for row in self._contents.rows_of(image)]
        return sorted(zip(similarities.tolist(), everyone, strict=True), key=lambda each: (-each[0], each[1]))
