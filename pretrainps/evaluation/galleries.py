"""Each query's gallery: its detections, their similarities, and which of them may be the person.

Similarities come from matrix products: of many queries with the whole gallery, or, where each query has its own short list, of
each image with the queries that list it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.records import UNLABELLED, GalleryList, SearchSet
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.cbgm import require_scipy
from pretrainps.evaluation.occurrences import Candidates, Occurrences
from pretrainps.evaluation.protocols import SearchProtocol
from pretrainps.inference.detections import F32, I64, Detections, spread

_HELD = 16 * 2**20
"""Similarities, or rows of lists, that are held at once."""
_SPARSE = 24
"""Lists of less than one in so many of the gallery's images count as short."""
_IMAGES = 64
"""Images of lists whose similarities are computed in one product."""

Answer = tuple[int, F32, Candidates]

_NO_FRAMES = np.zeros(0, dtype=np.int64)
_NO_BOXES = np.zeros((0, 4), dtype=np.float32)


class Galleries(ABC):
    """The galleries of all queries."""

    @abstractmethod
    def ask(self, vectors: F32) -> Iterator[Answer]:
        """Give for each query in turn its index, its similarities (n,), and what may be the person.

        Args:
            vectors: (Q, D) the queries' embeddings.
        """


def require_suitable(search_set: SearchSet, protocol: SearchProtocol) -> None:
    """Check that a set has what a protocol needs, before anything is computed.

    Raises:
        ArgumentError: no lists, none of that size, or unknown cameras.
        MissingPackageError: context matching without scipy.
    """
    if protocol.gallery != "frames":
        _lists(search_set, protocol)
    elif protocol.same_camera == "drop":
        samples = [*search_set.gallery.samples, *(query.sample for query in search_set.queries)]
        _cameras(list({sample.name: sample.camera for sample in samples}.items()))
    if protocol.context is not None:
        require_scipy()


def galleries_of(search_set: SearchSet, table: Detections, protocol: SearchProtocol) -> Galleries:
    """Return the galleries of a protocol.

    Raises:
        ArgumentError: the set has no lists, none of that size, or no cameras.
    """
    if protocol.gallery == "frames":
        return FrameGalleries(search_set, table, drop_same_camera=protocol.same_camera == "drop")
    lists = _lists(search_set, protocol)
    if protocol.gallery == "full":
        return FullGalleries(search_set, table, lists, repeat_lists=protocol.full_repeats_lists)
    return ListGalleries(table, lists, once=protocol.listed_twice == "once")


def _lists(search_set: SearchSet, protocol: SearchProtocol) -> Sequence[GalleryList]:
    sizes = sorted(search_set.lists)
    if not sizes:
        raise ArgumentError(
            f"protocol {protocol.name!r} gives each query its own gallery, but {search_set.gallery.dataset} comes without "
            "such lists. A protocol with gallery='frames' searches all of its images."
        )
    size = sizes[0] if protocol.gallery == "full" else protocol.gallery
    if not isinstance(size, int) or size not in sizes:
        raise ArgumentError(f"there are no gallery lists of size {size}. There are {', '.join(map(str, sizes))}, and 'full'.")
    lists = search_set.lists[size]
    if len(lists) != len(search_set.queries):
        raise ArgumentError(f"{len(lists)} gallery lists of size {size} for {len(search_set.queries)} queries.")
    images = len(search_set.gallery)
    for index, entry in enumerate(lists):
        if len(entry.frames) and not 0 <= entry.frames.min() <= entry.frames.max() < images:
            raise ArgumentError(f"the gallery list of query {index} names an image beyond the gallery's {images}.")
    return lists


class _WholeGalleries(Galleries):
    """Galleries that hold nearly everything: one similarity for each detection, -inf for what does not belong."""

    def __init__(self, search_set: SearchSet, table: Detections) -> None:
        self.table = table
        index = {sample.name: frame for frame, sample in enumerate(search_set.gallery.samples)}
        self.own_frames = [index.get(query.sample.name) for query in search_set.queries]
        self.everything = np.arange(len(table))

    def ask(self, vectors: F32) -> Iterator[Answer]:
        """Ask as many queries at once as memory allows."""
        chunk = max(1, _HELD // max(1, len(self.table)))
        for start in range(0, len(vectors), chunk):
            for query, row in enumerate(vectors[start : start + chunk] @ self.table.embeddings.T, start):
                yield self.answer(query, row)

    @abstractmethod
    def answer(self, query: int, similarities: F32) -> Answer:
        """Say what may be the person; the similarities may be written to."""

    def exclude(self, similarities: F32, frame: int) -> None:
        start = self.table.starts[frame]
        similarities[start : start + self.table.counts[frame]] = -np.inf


class FrameGalleries(_WholeGalleries):
    """All gallery images but the query's own: PRW, PoseTrack21, people's own data."""

    def __init__(self, search_set: SearchSet, table: Detections, *, drop_same_camera: bool) -> None:
        super().__init__(search_set, table)
        samples = search_set.gallery.samples
        frames = np.repeat(np.arange(len(samples)), [len(sample.ids) for sample in samples])
        ids = np.concatenate([_NO_FRAMES, *(sample.ids for sample in samples)])
        boxes = np.concatenate([_NO_BOXES, *(sample.boxes for sample in samples)])
        _, first = np.unique(np.stack([ids, frames]), axis=1, return_index=True)  # by person, then frame; the first box
        first = first[ids[first] != UNLABELLED]
        people, groups = np.unique(ids[first], return_inverse=True)
        self.group_of = {int(person): group for group, person in enumerate(people)}
        self.asked_for = [query.id for query in search_set.queries]
        self.occurrences = Occurrences(groups, len(people), frames[first], boxes[first], table)
        self.query_cameras: list[int] = []
        if drop_same_camera:
            self.cameras = _cameras([(sample.name, sample.camera) for sample in samples])
            self.query_cameras = _cameras([(q.sample.name, q.sample.camera) for q in search_set.queries]).tolist()
            self.detection_cameras = self.cameras[table.images]

    def answer(self, query: int, similarities: F32) -> Answer:
        """Leave the query's frame out, and perhaps its camera."""
        frame = self.own_frames[query]
        group = self.group_of.get(self.asked_for[query])
        frames = self.occurrences.frames_of(group)
        there = np.ones(len(frames), dtype=bool)
        if frame is not None:
            self.exclude(similarities, frame)
            there &= frames != frame
        if self.query_cameras:
            similarities[self.detection_cameras == self.query_cameras[query]] = -np.inf
            there &= self.cameras[frames] != self.query_cameras[query]
        places, groups = self.occurrences.candidates_of(group)
        found = Candidates(detections=self.everything, places=places, groups=groups, occurrences=int(there.sum()))
        return query, similarities, found


class FullGalleries(_WholeGalleries):
    """The images that the query's list names, and all others but the query's own, where the person is taken not to be."""

    def __init__(self, search_set: SearchSet, table: Detections, lists: Sequence[GalleryList], *, repeat_lists: bool) -> None:
        super().__init__(search_set, table)
        self.lists = lists
        self.repeat_lists = repeat_lists
        self.wanted = [int(_is_there(entry).sum()) for entry in lists]
        once = [_each_once(entry) for entry in lists]
        there = [_is_there(entry) for entry in once]
        self.occurrences = Occurrences(
            np.repeat(np.arange(len(lists)), [int(each.sum()) for each in there]),
            len(lists),
            np.concatenate([_NO_FRAMES, *(entry.frames[each] for entry, each in zip(once, there, strict=True))]),
            np.concatenate([_NO_BOXES, *(entry.boxes[each] for entry, each in zip(once, there, strict=True))]),
            table,
        )

    def answer(self, query: int, similarities: F32) -> Answer:
        """Leave the query's image out unless it is listed, and perhaps repeat what is."""
        frame, listed = self.own_frames[query], np.unique(self.lists[query].frames)
        if frame is not None and frame not in listed:
            self.exclude(similarities, frame)
        detections = self.everything
        if self.repeat_lists:
            again = listed[listed != frame] if frame is not None else listed
            _, rows = spread(self.table.starts[again], self.table.counts[again])
            detections = np.r_[detections, rows]
            similarities = np.r_[similarities, similarities[rows]]
        places, groups = self.occurrences.candidates_of(query)
        found = Candidates(detections=detections, places=places, groups=groups, occurrences=self.wanted[query])
        return query, similarities, found


class ListGalleries(Galleries):
    """The images that the query's own list names: CUHK-SYSU, MovieNet-PS."""

    def __init__(self, table: Detections, lists: Sequence[GalleryList], *, once: bool) -> None:
        self.table = table
        self.wanted = [int(_is_there(entry).sum()) for entry in lists]
        self.lists = [_each_once(entry) for entry in lists] if once else lists

    def ask(self, vectors: F32) -> Iterator[Answer]:
        """Ask as many queries at once as memory allows."""
        longest = max((len(entry.frames) for entry in self.lists), default=1)
        share = 1.0 if self._is_dense(longest) else 2 * longest / self.table.num_images
        chunk = max(1, int(_HELD / max(1.0, share * len(self.table))))
        for start in range(0, len(self.lists), chunk):
            yield from self._chunk(start, self.lists[start : start + chunk], vectors[start : start + chunk])

    def _chunk(self, start: int, lists: Sequence[GalleryList], vectors: F32) -> Iterator[Answer]:
        frames = np.concatenate([entry.frames for entry in lists])
        boxes = np.concatenate([entry.boxes for entry in lists])
        owner = np.repeat(np.arange(len(lists)), [len(entry.frames) for entry in lists])
        counts = self.table.counts[frames]
        begins = np.cumsum(counts) - counts  # of each listing, among the chunk's detections
        listing, detections = spread(self.table.starts[frames], counts)
        bounds = np.r_[begins, len(detections)][np.searchsorted(owner, np.arange(len(lists) + 1))]
        there = np.flatnonzero(~np.isnan(boxes[:, 0]))
        people = Occurrences(owner[there], len(lists), frames[there], boxes[there], self.table)
        shift = (begins - self.table.starts[frames])[there]  # from a row of the table to its place in the chunk
        if self._is_dense(len(frames) / len(lists)):
            similarities = (vectors @ self.table.embeddings.T)[owner[listing], detections]
        else:
            similarities = self._image_by_image(vectors, owner, frames, begins)
        for index in range(len(lists)):
            own = slice(bounds[index], bounds[index + 1])
            rows, groups = people.candidates_of(index)
            found = Candidates(
                detections=detections[own],
                places=rows + shift[groups] - bounds[index],
                groups=groups,
                occurrences=self.wanted[start + index],
            )
            yield start + index, similarities[own], found

    def _is_dense(self, listed: float) -> bool:
        """Say whether a query lists so many images that a product with the whole gallery is the faster way."""
        return listed * _SPARSE > self.table.num_images

    def _image_by_image(self, vectors: F32, owner: I64, frames: I64, begins: I64) -> F32:
        """Return the similarities of the chunk's detections where each query lists few images; ordered by query.

        They are computed image by image, many images in one batched product: an image's few detections with all who list it.
        Query by query, each would fetch hundreds of rows from all over the table, and wait for them.

        Args:
            vectors: (Q, D) of the chunk's queries.
            owner: (L,) query of each entry of the chunk's lists.
            frames: (L,) image of each entry.
            begins: (L,) where the entry's detections begin in the result.
        """
        result = np.empty(int(self.table.counts[frames].sum()), dtype=np.float32)
        order = np.argsort(frames, kind="stable")
        listings = np.bincount(frames, minlength=self.table.num_images)
        first = np.cumsum(listings) - listings
        # images listed about as often go together, so that little is computed in vain
        images = np.argsort(listings, kind="stable")
        images = images[(listings[images] > 0) & (self.table.counts[images] > 0)]
        for start in range(0, len(images), _IMAGES):
            block = images[start : start + _IMAGES]
            entry = np.arange(listings[block].max())
            place = np.arange(self.table.counts[block].max())
            # beyond an image's own the next one's are taken, and left out below
            entries = order[np.minimum(first[block][:, None] + entry, len(order) - 1)]  # (B, entries)
            rows = np.minimum(self.table.starts[block][:, None] + place, len(self.table) - 1)  # (B, detections)
            product = vectors[owner[entries]] @ self.table.embeddings[rows].transpose(0, 2, 1)  # (B, entries, detections)
            real = (entry < listings[block][:, None])[:, :, None] & (place < self.table.counts[block][:, None])[:, None]
            result[(begins[entries][:, :, None] + place)[real]] = product[real]
        return result


def _is_there(entry: GalleryList) -> NDArray[np.bool_]:
    return ~np.isnan(entry.boxes[:, 0])


def _each_once(entry: GalleryList) -> GalleryList:
    """Leave out what was listed before, with whatever box it came."""
    if len(set(entry.frames.tolist())) == len(entry.frames):
        return entry
    first = np.sort(np.unique(entry.frames, return_index=True)[1])
    return GalleryList(frames=entry.frames[first], boxes=entry.boxes[first])


def _cameras(named: Sequence[tuple[str, int | None]]) -> I64:
    unknown = [name for name, camera in named if camera is None]
    if unknown:
        raise ArgumentError(
            f"same_camera='drop' needs to know every image's camera; that of {unknown[0]} and {len(unknown) - 1} others is "
            "not known. Keep images of the query's camera (same_camera='keep')."
        )
    return np.array([camera for _, camera in named], dtype=np.int64)
