"""Running a model over a data set: the model's own answers, kept, gone on with, and not mixed up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.data import Sample, SearchSet
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, DatasetError
from pretrainps.evaluation import (
    evaluate_coco,
    evaluate_detection,
    evaluate_miss_rate,
    evaluate_search,
    protocol,
)
from pretrainps.heads import CropModel
from pretrainps.images.pixels import Preprocess
from pretrainps.inference import feature_cache
from pretrainps.inference.extraction import Extractor
from pretrainps.registry.specs import ASSUMED_INPUT, HeadSpec
from pretrainps.synthetic import reid_split, search_test
from tests.support.detectors import lively_detector

pytestmark = pytest.mark.xdist_group("extraction")


@pytest.fixture(scope="module")
def search_set() -> SearchSet:
    return search_test("search_campus", range(3), appearances=3)


@pytest.fixture(scope="module")
def detector() -> PersonSearchDetector[Any]:
    """As the extractor would rebuild it, for rounding weighs heavily in random networks."""
    return lively_detector("seqnet", "shufflenetv1").optimize_for_inference()


@pytest.fixture(scope="module")
def crop_model() -> CropModel:
    model = CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="embedding")).eval()
    model.spec = replace(pretrainps.info("shufflenetv1-hybrid"), input=ASSUMED_INPUT)
    return model


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD", 2)


def extractor(model: Any, folder: Path | None = None, **options: Any) -> Extractor:
    return Extractor(model, folder=folder, progress=False, **options)


def pixels(sample: Sample) -> Tensor:
    return pil_to_tensor(sample.pixels()).float() / 255


class Counting:
    """Stands before a method and counts the images that it gets; stops where told."""

    def __init__(self, method: Callable[..., Any], stop_after: int | None = None) -> None:
        self.method, self.images, self.stop_after = method, 0, stop_after

    def __call__(self, images: Sequence[Tensor], *rest: Any) -> Any:
        if self.stop_after is not None and self.images + len(images) > self.stop_after:
            raise KeyboardInterrupt
        self.images += len(images)
        return self.method(images, *rest)


def close(ours: Any, theirs: Any, tolerance: float = 1e-3) -> None:
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=1e-4, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_models_own_answers(search_set: SearchSet, detector: PersonSearchDetector[Any], batch_size: int) -> None:
    ours = extractor(detector, batch_size=batch_size)
    table = ours.detections(search_set.gallery)
    samples = search_set.gallery.samples
    assert table.num_images == len(samples) and len(table) > len(samples)
    for image, sample in list(enumerate(samples))[:3]:
        (people,) = detector([pixels(sample)])
        rows = table.images == image
        close(table.boxes[rows], people["boxes"], 1e-2)
        close(table.scores[rows], people["scores"])
        close(table.embeddings[rows], people["embeddings"])
    vectors, contexts = ours.queries(search_set), ours.contexts(search_set)
    annotated = ours.annotated(search_set.gallery)
    assert annotated.annotated and (annotated.scores == 1).all()
    for place, query in enumerate(search_set.queries):
        box = torch.from_numpy(query.box[None])
        (vector,) = detector.embed([pixels(query.sample)], [box])
        close(vectors[place], vector[0])
        (people,) = detector.query_as_gallery([pixels(query.sample)], [box])
        close(contexts.boxes[contexts.images == place], people["boxes"], 1e-2)
        image = samples.index(query.sample)
        row = int((query.sample.boxes == query.box).all(axis=1).argmax())
        close(annotated.embeddings[annotated.starts[image] + row], vector[0])


def test_an_interrupted_run_goes_on(
    search_set: SearchSet, detector: PersonSearchDetector[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = search_set.gallery
    whole = extractor(detector).detections(gallery)
    first = extractor(detector, tmp_path)
    first.runner.detector = Counting(first.runner.detector, stop_after=5)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        first.detections(gallery)
    second = extractor(detector, tmp_path)
    second.runner.detector = Counting(second.runner.detector)  # type: ignore[assignment]
    table = second.detections(gallery)
    assert second.runner.detector.images == len(gallery) - 4, "two files of two images were there"  # type: ignore[attr-defined]
    assert all(
        np.array_equal(getattr(table, name), getattr(whole, name)) for name in ("boxes", "scores", "embeddings", "counts")
    )
    files = sorted(tmp_path.rglob("*"))
    assert not [path for path in files if path.suffix == ".tmp"]
    shard = next(path for path in files if path.name.startswith("detections-000002"))
    for content in (b"", shard.read_bytes()[:-8], b"no safetensors at all"):
        shard.write_bytes(content)
        third = extractor(detector, tmp_path)
        third.runner.detector = Counting(third.runner.detector)  # type: ignore[assignment]
        again = third.detections(gallery)
        assert third.runner.detector.images == 2, "only the damaged file is made anew"  # type: ignore[attr-defined]
        assert np.array_equal(again.boxes, whole.boxes)


def test_nothing_kept_is_mixed_up(search_set: SearchSet, tmp_path: Path) -> None:
    sample = search_set.gallery.samples[0]
    gallery = replace(search_set.gallery, samples=[sample])
    sample.pixels().save(tmp_path / "one.png")
    on_disk = replace(search_set.gallery, samples=[replace(sample, image=tmp_path / "one.png")])
    original = lively_detector("seqnet", "shufflenetv1")
    other = lively_detector("seqnet", "shufflenetv1")
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    folder = tmp_path / "kept"

    def folders() -> int:
        return len(list(folder.iterdir()))

    for model, split, changed, kept in (
        (original, gallery, {}, 1),
        (original, gallery, {}, 1),
        (other, gallery, {}, 2),
        (original, gallery, {"precision": "bfloat16"}, 3),
        (original, on_disk, {}, 4),
    ):
        extractor(model, folder, **changed).detections(split)  # type: ignore[arg-type]
        assert folders() == kept
    search_set.gallery.samples[1].pixels().save(tmp_path / "one.png")
    extractor(original, folder).detections(on_disk)
    assert folders() == 5, "another picture in the same file"


def test_broken_images(
    search_set: SearchSet, detector: PersonSearchDetector[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    samples = list(search_set.gallery.samples[:4])
    samples[1] = replace(samples[1], image=tmp_path / "cut.jpg")
    gallery = replace(search_set.gallery, samples=samples)
    with pytest.raises(DatasetError, match=r"cut\.jpg"):
        extractor(detector).detections(gallery)
    with caplog.at_level(logging.WARNING, "pretrainps"):
        table = extractor(detector, tmp_path / "kept", on_damage="skip").detections(gallery)
    assert table.counts[1] == 0 and table.counts[0] > 0 and "cut.jpg" in caplog.text
    with pytest.raises(DatasetError, match=r"cut\.jpg"):  # what was skipped once is not taken for empty for ever
        extractor(detector, tmp_path / "kept").detections(gallery)
    with pytest.raises(DatasetError, match="cannot be left out"):
        extractor(detector, on_damage="skip").annotated(gallery)
    lost = replace(search_set.queries[0], sample=replace(search_set.queries[0].sample, image=tmp_path / "missing.jpg"))
    with pytest.raises(DatasetError, match="cannot be left out"):
        extractor(detector, on_damage="skip").queries(replace(search_set, queries=[lost]))


@torch.no_grad()
def test_a_model_of_crops(search_set: SearchSet, crop_model: CropModel, tmp_path: Path) -> None:
    ours = extractor(crop_model, tmp_path)
    split = reid_split("reid_market", range(2), cameras_per_identity=2, shots=1)
    vectors = ours.crops(split)
    transform = Preprocess(crop_model.spec.input)
    expected = crop_model(torch.stack([transform(sample.pixels()) for sample in split.samples]))
    close(vectors, expected)
    query = search_set.queries[0]
    x1, y1, x2, y2 = (int(value) for value in query.box)
    (expected,) = crop_model(transform(query.sample.pixels().crop((x1, y1, x2, y2)))[None])
    close(ours.queries(search_set)[0], expected)
    empty = replace(search_set.gallery.samples[0], boxes=np.zeros((0, 4), np.float32), ids=np.zeros(0, np.int64), visible=None)
    mixed = replace(search_set.gallery, samples=[empty, search_set.gallery.samples[1]])
    assert ours.annotated(mixed).counts.tolist() == [0, len(search_set.gallery.samples[1].boxes)]
    for what in (lambda: ours.detections(search_set.gallery), lambda: ours.contexts(search_set)):
        with pytest.raises(ArgumentError, match="a model of crops"):
            what()
    with pytest.raises(ArgumentError, match="head='embedding'"):
        extractor(CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="classifier", num_classes=3)))
    with pytest.raises(ArgumentError, match="batch_size=0"):
        extractor(crop_model, batch_size=0)


def test_images_are_read_ahead_but_not_far(search_set: SearchSet, detector: PersonSearchDetector[Any]) -> None:
    order: list[str] = []

    class Watched(Sample):
        def pixels(self) -> Any:
            order.append("read")
            return Sample.pixels(self)

    samples = [Watched(**{field: getattr(each, field) for field in Sample.__slots__}) for each in search_set.gallery.samples]
    ours = extractor(detector)
    ours.runner.detector = lambda images: order.append("seen") or detector(images)  # type: ignore[assignment, func-returns-value]
    feature_cache.SHARD = len(samples)
    ours.detections(replace(search_set.gallery, samples=samples))
    ahead = np.cumsum([1 if each == "read" else -1 for each in order])
    assert 1 < ahead.max() <= 5 and order.count("seen") == len(samples)


def test_another_way_to_see_crops_is_another_model(crop_model: CropModel, tmp_path: Path) -> None:
    split = reid_split("reid_market", range(1), cameras_per_identity=1, shots=1)
    usual = extractor(crop_model, tmp_path).crops(split)
    spec = crop_model.spec
    try:
        crop_model.spec = replace(spec, input=replace(ASSUMED_INPUT, size=(128, 64)))
        other = extractor(crop_model, tmp_path).crops(split)
    finally:
        crop_model.spec = spec
    assert np.abs(usual - other).max() > 1e-3


def test_a_detector_embeds_whole_crops(detector: PersonSearchDetector[Any]) -> None:
    split = reid_split("reid_market", range(1), cameras_per_identity=1, shots=1, size=(96, 48))
    (vector,) = detector.embed([pixels(split.samples[0])], [torch.tensor([[0, 0, 48, 96]])])
    close(extractor(detector).crops(split), vector)


@pytest.mark.parametrize(
    ("kept", "asked", "said"),
    [
        (0.5, "prw", "detections of score 0.5 and above"),
        (0.1, "prw", "detections of score 0.5 and above"),
        (
            0.5,
            "prw-alignps",
            "detections of score above 0.5, for the detector kept no others (not the protocol's 0.15 and above)",
        ),
        (0.7, "prw", "detections of score above 0.7, for the detector kept no others (not the protocol's 0.5 and above)"),
        (0.15, "prw-alignps", "detections of score 0.15 and above"),
    ],
)
def test_a_protocol_says_what_the_detector_kept(
    search_set: SearchSet, detector: PersonSearchDetector[Any], kept: float, asked: str, said: str
) -> None:
    found = extractor(detector.configured(score_threshold=kept))
    table = found.detections(search_set.gallery)
    assert table.kept_above == found.contexts(search_set).kept_above == kept and (table.scores > kept).all()
    search = protocol(asked)
    queries = found.queries(search_set) if search.query == "annotated_box" else None
    contexts = None if queries is not None else found.contexts(search_set)
    result = evaluate_search(search_set, table, search, query_embeddings=queries, query_detections=contexts)
    assert said in result.protocol and table.normalized().rows(table.scores > 0.9).kept_above == kept
    assert ("above 0.7" in evaluate_detection(search_set.gallery, table).protocol) == (kept == 0.7)
    for each in (
        evaluate_coco(search_set.gallery, table),
        evaluate_miss_rate(search_set.gallery, table, variant="citypersons"),
    ):
        assert f"score above {kept:g}, for the detector kept no others (not of any score)" in each.protocol
