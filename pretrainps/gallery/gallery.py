"""A gallery: the people in a folder of images or in a video, and where else a person is seen."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, ImageError
from pretrainps.evaluation.cbgm import require_scipy
from pretrainps.evaluation.protocols import PRW_CONTEXT, ContextMatching
from pretrainps.gallery.detection_ids import parse_detection_id
from pretrainps.gallery.indexing import IndexReport, fill
from pretrainps.gallery.model_match import fingerprint, require_detector, require_same
from pretrainps.gallery.query import Query, match_context, query_from_gallery, query_from_picture
from pretrainps.gallery.results import Box, Detection, Hit, SearchResult, numbered
from pretrainps.gallery.search.exact_search import check_vectors
from pretrainps.gallery.search.faiss_index import ABOVE
from pretrainps.gallery.search.opening import open_index
from pretrainps.gallery.search.protocol import DetectionFilter, VectorIndex
from pretrainps.gallery.sources.base import ImageSource
from pretrainps.gallery.sources.opening import open_source
from pretrainps.gallery.storage.protocol import DetectionStore
from pretrainps.gallery.storage.registry import open_store
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.images.read import read_image, to_rgb
from pretrainps.inference.detections import F32, I64
from pretrainps.inference.runner import Precision


class Gallery:
    """The people that one detector found in some images, ready to be searched. `index` makes it, `open` reads it.

    Detections have rows, from 0, and ids, "IMAGE#n", which stay the same while other images are added or removed. An opened
    gallery stays as it is, even while a run brings the stored one up to date.

    Example:
        >>> import pretrainps
        >>> model = pretrainps.load(NAME)                                                          # doctest: +SKIP
        >>> print(pretrainps.Gallery.index("photos", model, store="photos.gallery"))               # doctest: +SKIP
        >>> gallery = pretrainps.Gallery.open("photos.gallery")                                    # doctest: +SKIP
        >>> gallery.search(model, "photos/party.jpg", (310, 80, 395, 330)).hits[0].detection.id    # doctest: +SKIP
        'beach/0113.jpg#2'
        >>> gallery.search(detection="beach/0113.jpg#2").hits[0].similarity                        # doctest: +SKIP
        0.998

    Attributes:
        location: The folder or the URL that it was read from.
        model_name: The name of the model that it was made with.
    """

    def __init__(
        self, stored: StoredDetections, *, location: str, images: Path, index: str | None, device: torch.device | str
    ) -> None:
        self.location = location
        self.model_name = stored.header.model.name
        self._stored, self._images, self._index_name, self._device = stored, images, index, device

    @classmethod
    def index(
        cls,
        source: Path | str,
        model: PersonSearchDetector[Any],
        *,
        store: Path | str | DetectionStore,
        fps: float | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        rebuild: bool = False,
        wait: bool = False,
        progress: bool = True,
        approximate_above: int = ABOVE,
        vector_index: str | None = None,
    ) -> IndexReport:
        """Make a gallery, or bring it up to date: index new and changed images, and drop those that are gone.

        An image is known by its size and time. If only its time has changed, its bytes decide. An interrupted run is resumed by
        the next one. An image that cannot be read is reported, and the next run tries it again.

        Args:
            source: A folder, searched recursively, or a video.
            model: A detector in eval mode, as it was loaded. The gallery is bound to its tensors and settings.
            store: The gallery's folder, which may be inside the folder of images; or a URL of a registered store, or a store.
            fps: How many frames of a video are indexed for each second of it (by default 1).
            batch_size: Images of equal size in a forward pass; by default 1 on a CPU, otherwise 8.
            precision: Number format of the detector's trunk, proposals and last stages.
            rebuild: Begin with nothing, whatever is there.
            wait: Wait for another run that writes to the gallery, instead of giving up.
            progress: Show a bar.
            approximate_above: Above this number of detections, an index for approximate search is built if faiss is installed.
            vector_index: Build this index whatever the number: "faiss", or the name of a registered one. "exact" builds none.

        Raises:
            ArgumentError: There are no images, or the model or a setting is not valid.
            GalleryError: Another run is writing there, it is a gallery of another model or folder, or it is something else.
            IntegrityError: What is stored there is damaged.
            MissingPackageError: PyAV is not installed, for a video; or the library of the chosen index.
            ImageError: A video cannot be read.
            CacheError: The store cannot be written to, or the disk is full.
        """
        model = require_detector(model)
        place = open_store(store)
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
            vector_index=vector_index,
        )

    @classmethod
    def open(
        cls,
        store: Path | str | DetectionStore,
        *,
        root: Path | str | None = None,
        device: torch.device | str = "cpu",
        verify: bool = True,
        vector_index: str | None = None,
    ) -> Gallery:
        """Open a gallery.

        Args:
            store: Its folder; or a URL of a registered store, or a store.
            root: Where its images (or its video) lie now, if they were moved.
            device: Where similarities are computed. All embeddings are copied there, if it is not the CPU.
            verify: Check that nothing was damaged. For a folder, every file is hashed, as fast as it can be read. Without it,
                only sizes and shapes are compared.
            vector_index: Search with this index: "exact", or the one that was built. By default it is the one that was built
                for these detections, otherwise exact search.

        Raises:
            GalleryError: There is no gallery, or it was written by a newer version of the package.
            IntegrityError: A file was damaged, cut off or changed.
            ArgumentError: No store is registered for the URL.
        """
        place = open_store(store)
        stored = place.open(verify=verify)
        images = Path(os.path.abspath(stored.header.source.root if root is None else root))
        return cls(stored, location=place.location, images=images, index=vector_index, device=device)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def root(self) -> Path:
        """The folder that images' names are relative to."""
        return self._images.parent if self._stored.header.source.kind == "video" else self._images

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._stored.header.model.dim

    @property
    def complete(self) -> bool:
        """Whether the last run that indexed came to its end."""
        return self._stored.header.complete

    @property
    def method(self) -> str:
        """How it is searched: "exact", or an approximation with the recall that was measured."""
        return self._index.method

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of all indexed images, also of those without detections."""
        return tuple(self._stored.image_names)

    def matches(self, model: PersonSearchDetector[Any]) -> bool:
        """Return whether a model is the one that the gallery was made with: the same tensors and settings."""
        return fingerprint(model) == self._stored.header.model.fingerprint

    def detection(self, key: int | str) -> Detection:
        """Return a detection by its row or its id.

        Args:
            key: The row, from 0; or the id, "IMAGE#n", with the number n from left to right in the image.

        Raises:
            ArgumentError: There is no such detection.
        """
        if isinstance(key, str):
            return self._by_id(key)[0]
        if not 0 <= key < len(self):
            raise ArgumentError(f"there is no row {key}: the gallery has {len(self)} detections.")
        image = self._stored.image_of(key)
        return self.detections_of(image)[key - self._stored.rows_of(image).start]

    def detections_of(self, image: str) -> list[Detection]:
        """Return the detections in an image, the surest first.

        Raises:
            ArgumentError: The gallery has no such image.
        """
        found = self._stored.table([self._known(image)])
        pairs = zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
        return numbered([Detection(image=image, box=tuple(box), score=score) for box, score in pairs])

    def picture(self, image: str) -> Image.Image:
        """Read an image again, upright.

        Raises:
            ArgumentError: The gallery has no such image.
            ImageError: The image is gone or damaged, or was changed since it was indexed.
        """
        return self._source.picture(self._stored.record(self._known(image)))

    def name_of(self, path: Path | str) -> str | None:
        """Return the name of an image file in this gallery, or `None` if it has none."""
        try:
            name = Path(os.path.abspath(Path(path).expanduser())).relative_to(self.root).as_posix()
        except ValueError:
            return None
        return name if name in self._stored else None

    def name_for(self, path: Path | str) -> str:
        """Return what to call an image file in answers: its name in this gallery, or one that no image of it has."""
        known, name = self.name_of(path), Path(path).name
        return known or (f"{name} (query)" if name in self._stored else name)

    def search(
        self,
        model: PersonSearchDetector[Any] | None = None,
        image: Path | str | Image.Image | None = None,
        box: Box | None = None,
        *,
        detection: str | Detection | None = None,
        top: int = 10,
        rerank: bool = False,
        query_name: str | None = None,
        exclude_query_image: bool = False,
        only: DetectionFilter | None = None,
        context: ContextMatching = PRW_CONTEXT,
    ) -> SearchResult:
        """Find a person: one in a box of an image, or one of the gallery's own detections.

        For a box, the model embeds the person. For a detection, the stored embedding is used; no model and no image are needed.

        Args:
            model: The detector that the gallery was made with.
            image: The image that they are seen in: a file, or an upright picture.
            box: Where they are: x1, y1, x2, y2 in pixels of the upright image.
            detection: One of the gallery's detections, or its id, "IMAGE#n"; instead of `image` and `box`.
            top: How many answers.
            rerank: Compare the people who are seen together with them, too (context matching, CBGM).
            query_name: The image's name in the result; by default `name_for` its file.
            exclude_query_image: No answers from the query's own image, which is known by that name.
            only: Which detections may be answers.
            context: How many images and people take part in context matching.

        Raises:
            GalleryError: The gallery was made with another model.
            ArgumentError: Neither a box nor a detection is given, or both; or one that is not there.
            ImageError: The image cannot be read.
            MissingPackageError: scipy is not installed, for context matching; or the library of the index.
        """
        start = time.perf_counter()
        if rerank:
            require_scipy()
        query = self._query(model, image, box, detection, query_name, with_context=rerank)
        if exclude_query_image:
            only = only or DetectionFilter()
            only = replace(only, exclude_images=only.exclude_images | {query.detection.image})
        wanted = max(top, context.k1) if rerank else top
        scores, rows = self.search_embeddings(query.embeddings[:1], wanted, only=only)
        best = [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
        method = self.method
        if rerank:
            best = match_context(self._stored, [row for _, row in best], query.embeddings, context)
            method += f"; context matching with k1 = {context.k1}, k2 = {context.k2}"
        hits = tuple(
            Hit(detection=self.detection(row), similarity=score, rank=rank)
            for rank, (score, row) in enumerate(best[:top], start=1)
        )
        return SearchResult(
            query=query.detection,
            hits=hits,
            searched=len(self),
            images=len(self._stored.image_names),
            method=method,
            seconds=time.perf_counter() - start,
        )

    def search_embeddings(self, vectors: F32 | Tensor, top: int, *, only: DetectionFilter | None = None) -> tuple[F32, I64]:
        """Find the detections most similar to given vectors.

        Args:
            vectors: (Q, D), as `model.embed` returns them.
            top: How many for each; fewer if there are not so many.
            only: Which detections may be answers.

        Returns:
            (Q, top) similarities, the greatest first, and (Q, top) rows. An approximate search that finds too few returns -inf
            and row -1 in their places.

        Raises:
            ArgumentError: The vectors have another shape or are not finite, or `top` is below 1.
            MissingPackageError: The library of the index is not installed.
        """
        queries: F32 = np.asarray(vectors.detach().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
        check_vectors(queries, self.dim, top)
        return self._index.search(queries, top, only=only)

    def _query(
        self,
        model: PersonSearchDetector[Any] | None,
        image: Path | str | Image.Image | None,
        box: Box | None,
        detection: str | Detection | None,
        name: str | None,
        *,
        with_context: bool,
    ) -> Query:
        if model is not None:
            model = require_detector(model)
            require_same(self._stored.header.model, model)
        if detection is not None and image is None and box is None:
            found, row = self._by_id(detection if isinstance(detection, str) else self._id_of(detection))
            return query_from_gallery(self._stored, found, row, with_context=with_context)
        if model is None or image is None or box is None or detection is not None:
            raise ArgumentError(
                "say who is searched for: give a model, an image and a box, or give a detection of the gallery."
            )
        picture = to_rgb(image) if isinstance(image, Image.Image) else read_image(Path(image))
        name = name or ("query" if isinstance(image, Image.Image) else self.name_for(image))
        return query_from_picture(model, picture, box, name, with_context=with_context)

    def _id_of(self, detection: Detection) -> str:
        if detection.id is None:
            raise ArgumentError(
                "this detection has no id, because it is not one of a gallery's. Search with its image and box."
            )
        return detection.id

    def _by_id(self, text: str) -> tuple[Detection, int]:
        image, number = parse_detection_id(text)
        found: Sequence[Detection] = self.detections_of(image)
        for row, each in zip(self._stored.rows_of(image), found, strict=True):
            if each.number == number:
                return each, row
        there = f"Its numbers are 1 to {len(found)}." if found else "It has none."
        raise ArgumentError(f"there is no detection {number} in the image {image!r} of this gallery. {there}")

    def _known(self, image: str) -> str:
        if image not in self._stored:
            raise ArgumentError(f"the gallery has no image {image!r}. Names are relative to {self.root}.")
        return image

    @cached_property
    def _source(self) -> ImageSource:
        if not self._images.exists():
            raise ImageError(
                f"the images of this gallery lay in {self._images}, which does not exist. If they were moved, say where to: "
                "Gallery.open(store, root=...)."
            )
        return open_source(self._images, fps=self._stored.header.source.fps)

    @cached_property
    def _index(self) -> VectorIndex:
        return open_index(self._stored, self._index_name, device=self._device)
