"""Hybrid pre-training: every data set has its place in each batch, and wrong data are refused before anything is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrainps.backbones import build_backbone
from pretrainps.data import Split
from pretrainps.detectors.region import RegionConfig
from pretrainps.errors import ArgumentError, DatasetError, TrainingError
from pretrainps.synthetic import detection_split, reid_split
from pretrainps.training import train
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.engine.settings import LoopSettings
from pretrainps.training.engine.step import on_device
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.task import Pretraining, PretrainRecipe
from pretrainps.training.sources import described, read_sets
from tests.support.detectors import SMALL
from tests.support.miniatures import market1501, prw

CONFIG = RegionConfig(freeze_stem=False, **{**SMALL, "num_identities": 1})
RECIPE = PretrainRecipe(
    backbone="random:shufflenetv1",
    hybrid=HybridSettings(detector=CONFIG),
    scenes=SceneSettings(batch_size=3),
    crops=CropSettings(people=3, shots=2, height=64, width=32),
    workers=0,
)


@pytest.fixture(scope="module")
def detection() -> dict[str, Split]:
    return {"street": detection_split("det_street", 4), "yard": detection_split("det_yard", 3)}


@pytest.fixture(scope="module")
def reid() -> dict[str, Split]:
    return {name: reid_split(f"reid_{name}", range(4), cameras_per_identity=2, shots=1) for name in ("market", "city")}


def task(recipe: PretrainRecipe = RECIPE, *sets: Any) -> Pretraining:
    return Pretraining(recipe, build_backbone("shufflenetv1"), *sets)


def test_every_data_set_is_in_every_batch(detection: dict[str, Split], reid: dict[str, Split]) -> None:
    pretraining = task(replace(RECIPE, shares={"street": 2.0}), detection, reid)
    batches = list(pretraining.stream(0, 1))
    assert len(batches) == len(pretraining.stream(0, 1)) == 4, "until the set with the most batches was shown once"
    for batch in batches:
        assert batch is not None
        scenes, crops, _ = batch
        assert {name: len(images) for name, (images, _) in scenes.items()} == {"street": 2, "yard": 1}
        for name, people in (("market", 2), ("city", 1)):
            images, ids, _ = crops[name]
            assert images.shape == (2 * people, 3, 64, 32) and sorted(Counter(ids.tolist()).values()) == [2] * people
        assert set(pretraining.names(batch)) >= {f"street: {target['name']}" for target in scenes["street"][1]}
    torch.manual_seed(0)
    losses = pretraining.model(*on_device(batches[0], torch.device("cpu")))
    assert set(losses) == set(pretraining.hybrid.loss_names()) and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert pretraining.evaluate(pretraining.model) == {} and pretraining.metric is None
    stream = pretraining.stream(0, 1)
    stream.start_at(0, 3)
    (last,) = stream
    assert last is not None and torch.equal(last[1]["city"][0], batches[3][1]["city"][0])  # type: ignore[index]


@pytest.mark.parametrize("what", ["detection", "re-ID"])
def test_one_sub_task_alone(what: str, detection: dict[str, Split], reid: dict[str, Split]) -> None:
    sets = (detection, {}) if what == "detection" else ({}, reid)
    pretraining = task(RECIPE, *sets)
    assert pretraining.batch_size == 3, "what the learning rate is meant for does not become crops"
    (batch, *_) = pretraining.stream(0, 1)
    assert batch is not None and (batch[0] == {}) == (what == "re-ID")
    assert all(loss.isfinite() for loss in pretraining.model(*on_device(batch, torch.device("cpu"))).values())


def test_what_cannot_be_is_said_at_once(detection: dict[str, Split], reid: dict[str, Split], tmp_path: Path) -> None:
    alone = {"one": replace(reid["city"], identities=("1",), samples=reid["city"].samples[:2])}
    for recipe, sets, message in (
        (RECIPE, ({}, {}), "no data"),
        (RECIPE, (detection, {"street": reid["city"]}), "two data sets are called street"),
        (replace(RECIPE, shares={"moon": 1.0}), (detection, reid), "shares names moon"),
        (replace(RECIPE, shares={"street": 0.0}), (detection, reid), "above 0"),
        (replace(RECIPE, scenes=SceneSettings(batch_size=1)), (detection, reid), "each of 2 data sets needs a place"),
        (replace(RECIPE, scenes=SceneSettings(batch_size=30)), (detection, reid), "4 images do not fill"),
        (RECIPE, (detection, alone), "1 identities"),
        (replace(RECIPE, crops=CropSettings(people=40, shots=2)), (detection, reid), "4 identities with images"),
    ):
        with pytest.raises(ArgumentError, match=message):
            task(recipe, *sets)
    prw.write_miniature(tmp_path / "prw")
    market1501.write_miniature(tmp_path / "market")
    with pytest.raises(ArgumentError, match="PRW is for search"):
        read_sets({"mine": tmp_path / "prw"}, "reid")
    with pytest.raises(DatasetError, match="half unpacked"):
        read_sets({"msmt17": tmp_path / "market"}, "reid")
    (split,) = read_sets({"mine": tmp_path / "market"}, "reid").values()
    assert split.name == "train"


def test_a_record_of_the_data_changes_with_them(reid: dict[str, Split]) -> None:
    split = reid["city"]
    other = replace(split, samples=[replace(split.samples[0], ids=np.array([3])), *split.samples[1:]])
    told = [described({"city": each})["city"] for each in (split, split, other)]
    assert told[0] == told[1] != told[2] and told[0]["images"] == len(split)  # type: ignore[index]


def test_crops_come_alone_for_a_share_of_the_training(detection: dict[str, Split], reid: dict[str, Split]) -> None:
    """7 steps of 2 batches, in epochs of 4: three with crops alone, the first and half of the second epoch."""
    loop = LoopSettings(max_steps=7, accumulate=2)
    pretraining = task(replace(RECIPE, crops_only_share=0.4, loop=loop), detection, reid)
    plain = task(replace(RECIPE, loop=loop), detection, reid)
    seen = []
    for epoch in range(4):
        both, other = (list(_at(each, epoch)) for each in (pretraining, plain))
        for (scenes, crops, progress), (usual, same, _) in zip(both, other, strict=True):
            assert all(torch.equal(crops[name][0], same[name][0]) for name in reid)
            shown, expected = ([each[name][1][0]["name"] for name in each] for each in (scenes, usual))
            assert not scenes or shown == expected
            seen.append((bool(scenes), progress))
        for done in (1, 3):  # a resumed epoch is the rest of the same
            again = list(_at(pretraining, epoch, done))
            assert [(bool(scenes), progress) for scenes, _, progress in again] == seen[-4:][done:]
    assert seen[:14] == [(False, 0.0)] * 6 + [(True, step / 4) for step in range(4) for _ in range(2)]
    assert all(bool(scenes) for scenes, _, _ in _at(task(replace(RECIPE, crops_only_share=0.5), detection, {}), 0))


def _at(pretraining: Pretraining, epoch: int, done: int = 0) -> Iterator[Any]:
    stream = pretraining.stream(0, 1)
    stream.start_at(epoch, done)
    return iter(stream)


@pytest.mark.parametrize("share", [1.0, -0.1, 40.0])
def test_a_training_that_would_not_come_to_scenes(share: float) -> None:
    with pytest.raises(ArgumentError, match="crops_only_share must be"):
        replace(RECIPE, crops_only_share=share)


def test_a_resumed_training_has_the_length_it_had(detection: dict[str, Split], reid: dict[str, Split], tmp_path: Path) -> None:
    """Otherwise it might go back to crops alone."""

    def run(epochs: int, *, resume: bool = False) -> None:
        loop = LoopSettings(epochs=epochs, max_steps=2)
        recipe = replace(RECIPE, crops_only_share=0.5, loop=loop)
        train(task(recipe, detection, reid), recipe.optim, loop, tmp_path / "run", resume=resume, progress=False)

    run(2)
    with pytest.raises(TrainingError, match=r"task\.length\.epochs: 2 -> 6"):
        run(6, resume=True)
