"""Fill a gallery: index every new image, keep what was found, drop what is gone; resume wherever the last run stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, GalleryError
from pretrainps.gallery.model_match import model_mark, require_same
from pretrainps.gallery.search.opening import index_for, usable_index
from pretrainps.gallery.sources.base import ImageKey, ImageSource
from pretrainps.gallery.storage.header import Failure, GalleryHeader, ImageRecord, ModelMark
from pretrainps.gallery.storage.protocol import DetectionStore, StoreWriter
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.inference.runner import ImageDetections, ImageFailure, ModelRunner, Precision, with_progress


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What a run did, and what is in the gallery now."""

    images: int
    """Images in the gallery, also those without detections."""
    detections: int
    """Detections in the gallery."""
    added: int
    """New images that were indexed."""
    changed: int
    """Images that were indexed again because they had changed."""
    unchanged: int
    """Images that are as they were."""
    removed: int
    """Images that are gone. Their detections were dropped."""
    failures: tuple[Failure, ...]
    """Images that could not be indexed. The next run tries them again."""
    seconds: float
    """How long the run took."""

    @property
    def images_per_second(self) -> float:
        """Images indexed in a second."""
        return (self.added + self.changed) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {**asdict(self), "failures": [asdict(each) for each in self.failures]}

    def __str__(self) -> str:
        return (
            f"{self.detections:,} people in {self.images:,} images: {self.added:,} new, {self.changed:,} changed, "
            f"{self.unchanged:,} as before, {self.removed:,} gone, {len(self.failures):,} could not be read"
        )


def fill(
    source: ImageSource,
    model: PersonSearchDetector[Any],
    store: DetectionStore,
    *,
    batch_size: int,
    precision: Precision,
    rebuild: bool,
    wait: bool,
    progress: bool,
    approximate_above: int,
    vector_index: str | None = None,
) -> IndexReport:
    """Bring a gallery up to date with its images.

    If a key or an error ends it, what was found until then is kept. Only a killed process loses some seconds.

    Args:
        source: The images.
        model: The detector, in eval mode.
        store: Where the detections are kept.
        batch_size: Images of equal size in a forward pass.
        precision: Number format of trunk, proposals and last stages.
        rebuild: Begin with nothing, whatever is there.
        wait: Wait for another run that writes there, instead of giving up.
        progress: Show a bar.
        approximate_above: Above this number of detections, an index for approximate search is built.
        vector_index: The index to build whatever the number.

    Raises:
        ArgumentError: There are no images, or the model or a setting is not valid.
        GalleryError: Another run is writing there, or it is a gallery of another model or folder.
        IntegrityError: What is stored there is damaged.
        MissingPackageError: The library of the index is not installed.
        CacheError: The store cannot be written to, or the disk is full.
    """
    mark = model_mark(model, precision)
    runner = ModelRunner(model, precision=precision, batch_size=batch_size)
    kind = usable_index(vector_index)
    start = time.perf_counter()
    with store.write(wait=wait, rebuild=rebuild) as writer:
        old = writer.header
        if old is not None:
            _require_continued(old, mark, model, source)
        known = writer.records()
        before = GalleryHeader(model=mark, source=source.mark) if old is None else old
        survey = source.survey(known, before.failures, complete=before.complete)
        writer.begin(GalleryHeader(model=mark, source=source.mark), survey.kept)
        images = with_progress(source.read(survey), total=survey.expected, what="indexing", show=progress)
        run = _Run(writer, mark)
        try:
            for answer in runner.detect(images):
                run.take(answer)
        finally:
            writer.flush(run.failures)
        stored = writer.finish((*survey.failures, *run.failures))
        writer.save_index(index_for(len(stored), above=approximate_above) if vector_index is None else kind)
    return run.report(known, survey.kept, stored, time.perf_counter() - start)


class _Run:
    """Takes the answers of one run, and counts them.

    Args:
        writer: Where the detections go.
        mark: The model that answers.
    """

    def __init__(self, writer: StoreWriter, mark: ModelMark) -> None:
        self._writer, self._mark = writer, mark
        self.indexed: set[str] = set()
        self.failures: list[Failure] = []

    def take(self, answer: ImageDetections[ImageKey] | ImageFailure[ImageKey]) -> None:
        """Write the detections of an image, or remember why there are none.

        Raises:
            ArgumentError: The model's embeddings do not have the length that it states.
        """
        key = answer.key
        if isinstance(answer, ImageFailure):
            self.failures.append(Failure(image=key if isinstance(key, str) else key.name, reason=answer.reason))
            return
        assert not isinstance(key, str), "an image that was read has a record"
        found = answer.detections
        if len(found) and found.dim != self._mark.dim:
            raise ArgumentError(
                f"{self._mark.kind} returned embeddings of {found.dim} numbers for {key.name}, but its embedding_dim is "
                f"{self._mark.dim}. Correct embedding_dim in the detector; such a gallery could never be searched."
            )
        self._writer.append(key, found)
        self.indexed.add(key.name)

    def report(
        self, known: Mapping[str, ImageRecord], kept: Mapping[str, ImageRecord], stored: StoredDetections, seconds: float
    ) -> IndexReport:
        """Return what the run did.

        Args:
            known: Images that were in the gallery before.
            kept: Those of them that were not indexed again.
            stored: What is in the gallery now.
            seconds: How long the run took.
        """
        failures = stored.header.failures
        changed = len(self.indexed & known.keys())
        return IndexReport(
            images=len(stored.image_names),
            detections=len(stored),
            added=len(self.indexed) - changed,
            changed=changed,
            unchanged=len(kept),
            removed=len(known.keys() - kept.keys() - self.indexed - {failure.image for failure in failures}),
            failures=failures,
            seconds=seconds,
        )


def _require_continued(old: GalleryHeader, mark: ModelMark, model: PersonSearchDetector[Any], source: ImageSource) -> None:
    """Check that a gallery can be brought up to date: by the same model, with the same images."""
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
