"""What is said before the first step of a fine-tuning, because it would be untrue or fail later."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from pretrainps.detectors import NAEConfig, PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.synthetic import search_test
from pretrainps.training.batch_settings import SceneSettings
from pretrainps.training.finetuning.task import FinetuneRecipe, Finetuning
from tests.support.detectors import TINY, small_detector
from tests.training.tasks import DetectorTask

RECIPE = FinetuneRecipe(kind="nae", detector=NAEConfig(num_identities=4), protocol="prw", workers=0)


def detector(**changes: Any) -> PersonSearchDetector[Any]:
    return small_detector("nae", "resnet_tiny", **{**TINY, **changes})


@pytest.mark.parametrize(
    ("kept", "protocol", "said"),
    [(0.5, "prw", ""), (0.15, "prw-alignps", ""), (0.5, "prw-alignps", "0.15"), (0.5, "prw-pstr", "0.3"), (0.7, "prw", "0.5")],
)
def test_a_protocol_that_takes_less_than_the_detector_keeps(
    kept: float, protocol: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    test = search_test("search_campus", range(3), appearances=3)
    task = Finetuning(replace(RECIPE, protocol=protocol), detector(score_threshold=kept), DetectorTask().split, test)
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == bool(said) and all(f"set detector.score_threshold={said} to measure" in each for each in told)
    assert ("for the detector kept no others" in task.describe()["protocol"]) == bool(said)


def test_a_batch_of_one_region_is_refused_before_the_first_step() -> None:
    one = replace(RECIPE, scenes=SceneSettings(batch_size=1))
    with pytest.raises(ArgumentError, match=r"scenes\.batch_size and detector\.region_samples are both 1"):
        Finetuning(one, detector(region_samples=1), DetectorTask().split)
    assert Finetuning(one, detector(region_samples=2), DetectorTask().split).batch_size == 1
    assert Finetuning(RECIPE, detector(region_samples=1), DetectorTask().split).batch_size > 1
