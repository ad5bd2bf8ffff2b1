"""`pretrainps demo`: from a folder of photos to a person found in it, offline, in a drawn city.

The photos are scenes of the synthetic world (`pretrainps.synthetic`). So it is known who is where, and every answer can be
marked as right or wrong. The shipped detector was trained on other people before the same cameras, as it is in PRW.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pretrainps.data.records import Sample, SearchSet
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import (
    DetectionResult,
    Detections,
)
from pretrainps.evaluation import SearchResult as SearchMeasure
from pretrainps.evaluation.evaluate import evaluate
from pretrainps.files import new_file
from pretrainps.gallery.gallery import Gallery
from pretrainps.gallery.model_match import require_detector
from pretrainps.gallery.results import Detection, SearchResult
from pretrainps.gallery.storage.registry import open_store
from pretrainps.gallery.view.picture import result_picture
from pretrainps.gallery.view.report import write_report
from pretrainps.hub.load import load
from pretrainps.hub.resolve import resolve
from pretrainps.images.drawing import PAPER
from pretrainps.registry import shipped_model
from pretrainps.synthetic import plan_search, search_scenes, search_set

DOMAIN, SEED = "search_station", 0
"""Which part of the synthetic world the city is, and which world."""
_QUALITY = 92
"""Of the photos' JPEG files, as `pretrainps data synthesize` has it."""
_ENOUGH = 0.5
"""Least overlap (IoU) with a person's drawn box for an answer to be right."""
PHOTOS, GALLERY, REPORT, PICTURE = "photos", "gallery", "report.html", "search.png"


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSize:
    """How much the demo does."""

    people: int = 24
    """Number of people to search for; passers-by are drawn in addition."""
    appearances: int = 6
    """Photos that each of them is on."""
    shown: int = 4
    """How many of the searches go into report and picture,"""
    answers: int = 5
    """with how many answers each."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise ArgumentError(f"{each.name} of the demo is {getattr(self, each.name)}; it must be 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """What the demo did."""

    search: SearchMeasure
    """mAP and top-1 of the searches for all of these people."""
    detection: DetectionResult
    """How well everyone was detected."""
    results: tuple[SearchResult, ...]
    """The searches that are shown,"""
    truth: tuple[tuple[bool, ...], ...]
    """and for each of their answers whether it is the person."""
    report: Path
    picture: Path
    seconds: dict[str, float]
    """Where time went."""


@dataclass(slots=True)
class _Clock:
    """Remembers how long each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def table(self) -> str:
        """Return a line a step, and their sum."""
        rows = [*self.seconds.items(), ("together", sum(self.seconds.values()))]
        return "\n".join(f"     {name:<24} {seconds:6.1f} s" for name, seconds in rows)


def run_demo(
    model: str | PersonSearchDetector[Any] | None = None,
    *,
    output: Path,
    size: DemoSize | None = None,
    device: str = "cpu",
    offline: bool | None = None,
    say: Callable[[str], None],
    progress: bool = True,
) -> DemoResult:
    """Draw a city, index its photos, search for people in it, and judge the answers by what was drawn.

    Into the output folder go `photos/`, `gallery/`, `report.html` and `search.png`.

    Args:
        model: A detector, or its name as `pretrainps.load` takes it; by default one that comes with the package.
        output: A new or empty folder, or one of an earlier demo.
        size: How much to do.
        device: Where a model that is given by name is put.
        offline: Never use the network for it; `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        say: Gets each line of the account.
        progress: Show progress bars.

    Raises:
        UnknownModelError: no such model.
        ArgumentError: a model that is no detector, or a folder with other things in it.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    size, clock = size or DemoSize(), _Clock()
    output = output.expanduser()
    _require_own(output)
    with clock.step("loading the detector"):
        detector, name = _detector(shipped_model() if model is None else model, device, offline, progress)
    with clock.step("drawing the city"):
        city = draw_city(output / PHOTOS, size, progress=progress)
    cameras, scenes = len(city.gallery.cameras), len(city.gallery)
    say(f"1. Drew a city: {scenes} photos by {cameras} cameras, {size.people} people to find again. {output / PHOTOS}")
    with clock.step("indexing the photos"):
        # anew, for the gallery of an earlier demo may be another detector's
        indexed = Gallery.index(output / PHOTOS, detector, store=output / GALLERY, rebuild=True, progress=progress)
    with clock.step("searching for all people"):
        table = _detections(output / GALLERY, city.gallery.samples)
        measured = evaluate(detector, city, "frames", detections=table, progress=progress)
    search, detection = measured.search, measured.detection
    assert search is not None and detection is not None
    say(
        f"2. Indexed them with {name}: {indexed.detections} people detected, {detection.recall:.1%} of those drawn, at "
        f"{indexed.images_per_second:.1f} photos a second."
    )
    say(
        f"3. Searched for each of {search.num_queries} people, from one photo in all others: mAP {search.mAP:.1%}, "
        f"top-1 {search.top1:.1%}.\n   ({search.protocol})"
    )
    with clock.step("report and picture"):
        results, truth = _show(output, detector, city, size)
    say(
        f"4. Wrote {output / REPORT} and {output / PICTURE}: {len(results)} of these searches, right answers green, wrong red. "
        "Open the report in a browser."
    )
    say(f"   Where time went:\n{clock.table()}")
    return DemoResult(
        search=search,
        detection=detection,
        results=results,
        truth=truth,
        report=output / REPORT,
        picture=output / PICTURE,
        seconds=clock.seconds,
    )


def draw_city(folder: Path, size: DemoSize, *, progress: bool = False) -> SearchSet:
    """Draw the city's photos into a folder for each camera, and return who is on them.

    A photo that is there already is not written again.

    Args:
        folder: Where the photos go.
        size: How many people, and how often.
        progress: Show a bar.

    Returns:
        The photos, named by their paths in the folder, and the people to search for, one query each.

    Raises:
        ArgumentError: there are other pictures in the folder.
        CacheError: it cannot be written to.
    """
    plan = plan_search(DOMAIN, range(size.people), split="test", appearances=size.appearances, seed=SEED)
    names = {f"camera-{scene.camera + 1}/{plan.name_of(scene)}" for scene in plan.scenes}
    others = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in names]
    if others:
        raise ArgumentError(f"{others[0]} is no photo of this demo. Remove it, or choose a new folder (-o FOLDER).")
    samples = []
    for scene, sample in zip(plan.scenes, search_scenes(plan, progress=progress), strict=True):
        name = f"camera-{scene.camera + 1}/{sample.name}"
        _write_photo(sample.pixels(), folder / name)
        samples.append(replace(sample, name=name, image=folder / name))
    return search_set(plan, samples)


def _write_photo(photo: Image.Image, path: Path) -> None:
    body = io.BytesIO()
    photo.save(body, format="JPEG", quality=_QUALITY)
    if not path.is_file() or path.read_bytes() != body.getvalue():
        with new_file(path) as temporary:
            temporary.write_bytes(body.getvalue())


def _require_own(output: Path) -> None:
    """Refuse a folder that holds files of others, which might be overwritten."""
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / PHOTOS).is_dir())):
        raise ArgumentError(f"{output} holds other things. Choose a new folder for the demo (-o FOLDER).")


def _detector(
    model: str | PersonSearchDetector[Any], device: str, offline: bool | None, progress: bool
) -> tuple[PersonSearchDetector[Any], str]:
    """Return the detector and what to call it."""
    if not isinstance(model, str):
        detector = require_detector(model)
        return detector, detector.kind
    spec = resolve(model, offline=offline, progress=progress)
    loaded = load(spec, device=device, offline=offline, progress=progress) if spec.detector is not None else None
    if not isinstance(loaded, PersonSearchDetector):
        raise ArgumentError(f"{model} is no detector of people. `pretrainps list --task detector` shows the detectors.")
    return loaded, model


def _detections(store: Path, samples: Sequence[Sample]) -> Detections:
    """Return the gallery's detections, photo by photo."""
    return open_store(store).open().table([sample.name for sample in samples])


def _show(
    output: Path, detector: PersonSearchDetector[Any], city: SearchSet, size: DemoSize
) -> tuple[tuple[SearchResult, ...], tuple[tuple[bool, ...], ...]]:
    """Search for some people as anybody would, and write report and picture; return answers and whether they are right."""
    gallery = Gallery.open(output / GALLERY)
    samples = {sample.name: sample for sample in city.gallery.samples}
    results, truth, pictures = [], [], []
    for query in city.queries[: size.shown]:
        photo = query.sample.pixels()
        box = _as_box(query.box.tolist())
        result = gallery.search(detector, photo, box, top=size.answers, query_name=query.sample.name, exclude_query_image=True)
        right = tuple(_is_on(samples[hit.detection.image], query.id, hit.detection) for hit in result.hits)
        results.append(result)
        truth.append(right)
        pictures.append(result_picture(gallery, result, query_image=photo, correct=right))
    write_report(gallery, results, output / REPORT, title="Searches in a drawn city", truth=truth)
    with new_file(output / PICTURE) as temporary:
        _stacked(pictures).save(temporary, format="PNG")
    return tuple(results), tuple(truth)


def _is_on(sample: Sample, identity: int, person: Detection) -> bool:
    """Return whether a detection overlaps a drawn person."""
    drawn = sample.boxes[sample.ids == identity]
    return any(person.overlap(Detection(person.image, _as_box(box), 1.0)) > _ENOUGH for box in drawn.tolist())


def _as_box(row: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row
    return x1, y1, x2, y2


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures one below the other."""
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet
