"""`pretrainps.evaluate`: the same numbers as the evaluators by hand, for each kind of set, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.data import SearchSet
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import evaluate_detection, evaluate_search, protocol
from pretrainps.evaluation.evaluate import Evaluation
from pretrainps.evaluation.selection import ReidSet, protocol_for
from pretrainps.heads import CropModel
from pretrainps.inference.extraction import Extractor
from pretrainps.registry.specs import ASSUMED_INPUT, HeadSpec
from pretrainps.synthetic import reid_split, search_test
from tests.support.detectors import lively_detector

pytestmark = pytest.mark.xdist_group("evaluate")


@pytest.fixture(scope="module")
def search_set() -> SearchSet:
    return search_test("search_campus", range(3), appearances=2)


@pytest.fixture(scope="module")
def detector() -> PersonSearchDetector[Any]:
    return lively_detector("nae", "shufflenetv1").optimize_for_inference()


@pytest.fixture(scope="module")
def crop_model() -> CropModel:
    model = CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="embedding")).eval()
    model.spec = replace(pretrainps.info("shufflenetv1-hybrid"), input=ASSUMED_INPUT)
    return model


@pytest.fixture(scope="module")
def crops() -> ReidSet:
    split = reid_split("reid_market", range(2), cameras_per_identity=2, shots=1)
    return ReidSet(query=replace(split, samples=split.samples[:2]), gallery=replace(split, samples=split.samples[2:]))


def run(model: Any, data: Any, *rest: Any, **options: Any) -> Evaluation:
    return pretrainps.evaluate(model, data, *rest, progress=False, **options)


def test_a_search_is_what_the_parts_give(search_set: SearchSet, detector: PersonSearchDetector[Any], tmp_path: Path) -> None:
    parts = Extractor(detector, progress=False)
    table = parts.detections(search_set.gallery)
    for name, contexts in (("frames", None), ("prw-cbgm", parts.contexts(search_set))):
        wanted = evaluate_search(
            search_set,
            table,
            protocol(name),
            query_embeddings=parts.queries(search_set),
            query_detections=contexts,
        )
        measured = run(detector, search_set, name, ranking=3, features=tmp_path / "features")
        assert measured.search is not None and measured.search.protocol == wanted.protocol
        np.testing.assert_allclose(measured.search.per_query_ap, wanted.per_query_ap, atol=1e-6)
        assert measured.detection == evaluate_detection(search_set.gallery, table)
        assert measured.sheet(answers=3).height > 100
    again = run(detector, search_set, cbgm=True, detections=table)
    assert again.search is not None and again.search.mAP == pytest.approx(wanted.mAP, abs=1e-6)
    assert again.detections is table and "k1 = 30" in again.words()
    assert any((tmp_path / "features").rglob("detections-*"))
    numbers = json.loads(json.dumps(measured.to_json()))
    assert set(numbers) == {"layout", "search", "detection", "notes"} and numbers["search"]["num_queries"] == 3
    assert "mAP" in measured.words() and "3 queries" in measured.words()


def test_an_upper_bound_and_a_few_queries(
    search_set: SearchSet, detector: PersonSearchDetector[Any], crop_model: CropModel
) -> None:
    for model in (detector, crop_model):
        measured = run(model, search_set, annotated_boxes=True, limit=2)
        assert measured.search is not None and measured.search.num_queries == 2 and measured.detection is None
        assert measured.notes == ("only the first 2 of 3 queries are evaluated",)
        assert "annotated" in measured.search.protocol
    assert run(detector, search_set, limit=3).notes == ()


def test_settings_for_one_evaluation(search_set: SearchSet) -> None:
    detector = lively_detector("nae", "shufflenetv1")
    said: list[str] = []
    kept = run(detector, search_set, "prw-alignps", config={"score_threshold": 0.6}, say=said.append)
    assert kept.detections is not None and kept.detections.kept_above == 0.6 != detector.config.score_threshold
    (note,) = kept.notes
    assert said == [f"note: {note}"] and "config={'score_threshold': 0.15}" in note
    assert run(detector, search_set, "prw-alignps", config={"score_threshold": 0.15}).notes == (), "the remedy"


def test_detection_sets_and_crops(
    search_set: SearchSet, detector: PersonSearchDetector[Any], crop_model: CropModel, crops: ReidSet
) -> None:
    measured = run(detector, search_set.gallery, limit=2)
    assert list(measured.results) == ["coco", "miss rate", "person search's"] and measured.search is None
    assert measured.coco is not None and measured.coco.num_people == sum(
        len(sample.boxes) for sample in search_set.gallery.samples[:2]
    )
    for model in (detector, crop_model):
        measured = run(model, crops)
        assert measured.reid is not None and measured.reid.num_queries == 2 and list(measured.results) == ["re-ID"]


def test_a_model_by_name(search_set: SearchSet) -> None:
    said: list[str] = []
    measured = pretrainps.evaluate("nae-tiny-synthetic", search_set, limit=1, say=said.append)
    assert measured.search is not None and len(said) == 2 and "nae-tiny-synthetic" in said[1]
    backbone = run("tiny-hybrid-synthetic", search_set, annotated_boxes=True, limit=1, say=said.append)
    assert backbone.search is not None and len(said) == 3, "what was loaded is told with progress only"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"protocol": "pwr"}, "no protocol 'pwr'"),
        ({"gallery": 100}, "comes without such lists"),
        ({"protocol": "prw-cross-camera", "limit": 0}, "limit=0"),
        ({"layout": "prw"}, "was read already"),
        ({"split": "test"}, "was read already"),
        ({"annotated_boxes": True, "detections": "table"}, "does not go with annotated boxes"),
    ],
)
def test_what_cannot_be_is_said_before_a_model_is_loaded(options: dict[str, Any], match: str, search_set: SearchSet) -> None:
    gallery = replace(search_set, gallery=search_set.gallery)
    with pytest.raises(ArgumentError, match=match):
        run("a-model-that-nobody-could-load", gallery, **options)


@pytest.mark.parametrize(
    ("option", "value"), [("protocol", "prw"), ("cbgm", True), ("annotated_boxes", True), ("gallery", 50), ("ranking", 3)]
)
def test_options_of_a_search_are_refused_elsewhere(option: str, value: Any, search_set: SearchSet, crops: ReidSet) -> None:
    for data in (search_set.gallery, crops):
        with pytest.raises(ArgumentError, match=rf"{option}= or --{option.replace('_', '-')} is for search"):
            run("no-model", data, **{option: value})


def test_models_and_sets_that_do_not_fit(search_set: SearchSet, crop_model: CropModel, crops: ReidSet) -> None:
    for data in (search_set, search_set.gallery):
        with pytest.raises(ArgumentError, match=r"does not detect people.*annotated_boxes=True"):
            run(crop_model, data)
    with pytest.raises(ArgumentError, match="config= is for detectors"):
        run(crop_model, crops, config={"min_size": 100})
    with pytest.raises(ArgumentError, match=r"ReidSet\(query="):
        run(crop_model, crops.query)
    with pytest.raises(ArgumentError, match="not list"):
        run(crop_model, [crops.query])
    with pytest.raises(ArgumentError, match="shows queries of a search"):
        run(crop_model, crops).sheet()


def test_the_protocol_of_a_data_set() -> None:
    lists = search_test("search_campus", range(2), appearances=2, list_sizes=(2, 3))
    named = {name: replace(lists, gallery=replace(lists.gallery, dataset=name)) for name in ("cuhk_sysu", "prw", "mine")}
    chosen, note = protocol_for(named["cuhk_sysu"])
    assert (chosen.name, chosen.gallery) == ("cuhk-sysu", 2) and note is not None and "those of 2 images" in note
    assert protocol_for(named["cuhk_sysu"], "cuhk-sysu") == (protocol("cuhk-sysu"), None), "a name is taken at its word"
    assert protocol_for(named["cuhk_sysu"], gallery="full")[0].gallery == "full"
    context = protocol_for(named["cuhk_sysu"], cbgm=True)[0].context
    assert context is not None and (context.k1, context.k2) == (10, 3)
    for name, wanted in (("prw", "prw"), ("mine", "frames")):
        assert protocol_for(named[name]) == (protocol(wanted), None)
        context = protocol_for(named[name], cbgm=True)[0].context
        assert context is not None and (context.k1, context.k2) == (30, 4)
