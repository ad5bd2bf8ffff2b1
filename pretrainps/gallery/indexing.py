"""Fill a gallery: look at every new image, keep who was seen, forget what is gone; go on wherever the last run ended."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pretrainps.detectors import PersonSearchDetector
from pretrainps.detectors.validation import check_shapes
from pretrainps.errors import ArgumentError, GalleryError, NonFiniteError
from pretrainps.gallery.model_match import model_mark, require_same
from pretrainps.gallery.sources.folder import Reading, Source
from pretrainps.gallery.storage.manifest import Failure, Manifest, ModelMark, read_manifest
from pretrainps.gallery.storage.store import GalleryStore
from pretrainps.gallery.storage.writer import Found, Keeper
from pretrainps.inference.runner import Precision

_SIZES = 4
"""BatchSampler' worth of images, of different sizes, that wait for company of their own size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What a run did, and what there is now."""

    images: int
    """Images in the gallery, also those in which nobody was seen."""
    people: int
    added: int
    """Images looked at that were new,"""
    changed: int
    """and that were known as something else."""
    unchanged: int
    removed: int
    """Images that are there no more; their people were dropped."""
    failures: tuple[Failure, ...]
    """Images that could not be looked at. The next run tries again."""
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images looked at in a second."""
        return (self.added + self.changed) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "failures": [asdict(each) for each in self.failures]}

    def __str__(self) -> str:
        return (
            f"{self.people:,} people in {self.images:,} images: {self.added:,} new, {self.changed:,} changed, "
            f"{self.unchanged:,} as before, {self.removed:,} gone, {len(self.failures):,} could not be read"
        )


def fill(
    source: Source,
    model: PersonSearchDetector[Any],
    store: GalleryStore,
    *,
    batch_size: int,
    precision: Precision,
    rebuild: bool,
    wait: bool,
    progress: bool,
    approximate_above: int,
) -> IndexReport:
    """Bring a gallery up to date with its images.

    Whatever ends it, by a key or an error, what was found until then is kept; only a killed process loses some seconds.

    Args:
        source: The images.
        model: The detector, in eval mode.
        store: Where the gallery lies.
        batch_size: Images of equal size a forward pass.
        precision: Of trunk, proposals and last stages.
        rebuild: Begin anew, whatever is there.
        wait: Wait for another run that writes there, instead of giving up.
        progress: Show a bar.
        approximate_above: People from which on an index for approximate search is made.

    Raises:
        ArgumentError: no images, or a model or settings that cannot be.
        GalleryError: another run is writing there, or it is a gallery of another model or folder.
        IntegrityError: its manifest is damaged.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    if batch_size < 1:
        raise ArgumentError(f"batch_size={batch_size}: it must be 1 or more.")
    mark = model_mark(model, precision)
    start = time.perf_counter()
    with store.lock(wait=wait):
        old = None if rebuild else read_manifest(store.folder)
        if old is None:
            old = Manifest(model=mark, source=source.mark)
        else:
            _require_continued(old, mark, model, source)
        keeper = Keeper(store, old)
        known = {record.name: record for record in keeper.open()}
        survey = source.survey(known, old.failures, complete=old.complete)
        keeper.begin(mark, source.mark, survey.kept)
        readings = _counted(source.read(survey), survey.expected, progress)
        try:
            with contextlib.closing(_Looker(model, precision, batch_size).look(readings)) as looked:
                for found in looked:
                    keeper.add(found)
        finally:
            keeper.flush()
        keeper.finish(survey.failures, approximate_above)
    seen, failures = set(keeper.seen), keeper.manifest.failures
    changed = len(seen & known.keys())
    gone = known.keys() - survey.kept.keys() - seen - {failure.image for failure in failures}
    return IndexReport(
        images=keeper.manifest.images,
        people=keeper.manifest.people,
        added=len(seen) - changed,
        changed=changed,
        unchanged=len(survey.kept),
        removed=len(gone),
        failures=failures,
        seconds=time.perf_counter() - start,
    )


class _Looker:
    """Detects everyone, in batches of images of one size.

    Args:
        model: The detector.
        precision: Of trunk, proposals and last stages.
        batch_size: Images a forward pass.
    """

    def __init__(self, model: PersonSearchDetector[Any], precision: Precision, batch_size: int) -> None:
        self.model, self.precision, self.batch_size = model, precision, batch_size
        self.device = next(model.parameters()).device

    @cached_property
    def fast(self) -> PersonSearchDetector[Any]:
        """The detector, optimized once there is something to look at."""
        return self.model.optimize_for_inference(dtype=getattr(torch, self.precision))

    def look(self, readings: Iterator[Reading | Failure]) -> Generator[Found | Failure]:
        """Yield who is in each image; images of a size that is rare come later than they were read."""
        kinds: dict[tuple[int, ...], list[Reading]] = {}
        for reading in readings:
            if isinstance(reading, Failure):
                yield reading
                continue
            shape = tuple(reading.pixels.shape)
            try:
                check_shapes([torch.empty(1).expand(shape)], self.model.config.max_size)
            except ArgumentError as error:
                yield Failure(image=reading.record.name, reason=str(error).removeprefix("image 0: "))
                continue
            kinds.setdefault(shape, []).append(reading)
            if len(kinds[shape]) == self.batch_size:
                yield from self._detect(kinds.pop(shape))
            elif sum(map(len, kinds.values())) >= _SIZES * self.batch_size:
                yield from self._detect(kinds.pop(next(iter(kinds))))  # who waits longest goes, in a smaller batch
        for waiting in kinds.values():
            yield from self._detect(waiting)

    def _detect(self, batch: Sequence[Reading]) -> Iterator[Found | Failure]:
        try:
            with torch.inference_mode():
                results = self.fast([reading.pixels.to(self.device).float() / 255 for reading in batch])
        except NonFiniteError as error:
            if len(batch) == 1:
                yield Failure(image=batch[0].record.name, reason=str(error))
            else:  # perhaps one of them is at fault
                for reading in batch:
                    yield from self._detect([reading])
            return
        for reading, result in zip(batch, results, strict=True):
            # cloned outside: tensors made in inference mode cannot be used everywhere
            boxes, scores, embeddings = (result[name].float().cpu().clone() for name in ("boxes", "scores", "embeddings"))
            if all(bool(each.isfinite().all()) for each in (boxes, scores, embeddings)):
                yield Found(reading.record, boxes, scores, embeddings)
            else:
                yield Failure(image=reading.record.name, reason="the model answers with numbers that are not finite.")


def _counted(readings: Iterator[Reading | Failure], expected: int, progress: bool) -> Iterator[Reading | Failure]:
    with tqdm(total=expected, desc="indexing", unit="image", disable=not progress, leave=False) as bar:
        for reading in readings:
            yield reading
            bar.update()


def _require_continued(old: Manifest, mark: ModelMark, model: PersonSearchDetector[Any], source: Source) -> None:
    """See that a gallery can be gone on with: by the same model, on the same images."""
    other = "Give another folder for a second gallery, or begin this one anew: rebuild=True, on the command line --rebuild."
    try:
        require_same(old.model, model)
    except GalleryError as error:
        raise GalleryError(f"{error} {other}") from error
    if old.model.precision != mark.precision:
        raise GalleryError(f"this gallery was made in {old.model.precision}, not {mark.precision}. {other}")
    if old.source.kind != source.mark.kind or (old.source.root != source.mark.root and Path(old.source.root).exists()):
        raise GalleryError(f"this gallery is of {old.source.root}, and not of {source.mark.root}. {other}")
    if old.source.fps != source.mark.fps:
        raise GalleryError(f"this gallery has {old.source.fps:g} frames a second, not {source.mark.fps:g}. {other}")
