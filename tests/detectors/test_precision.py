"""Models in half or double precision, images of other kinds of numbers, and autocast: it works, or is refused in words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from tests.support.detectors import KINDS, TINY, lively_detector, scenes, small_detector

BOXES = [torch.tensor([[10.0, 10, 40, 90]]), torch.tensor([[20.0, 20, 60, 100]])]
HALVES = (torch.float16, torch.bfloat16)


def lively(kind: str) -> PersonSearchDetector[Any]:
    """As small as can be: a CPU is slow in half precision."""
    return lively_detector(kind, "resnet_tiny", **TINY, rpn_proposals=8)


def assert_alike(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float(F.cosine_similarity(one, other).min()) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_half_models_answer_alike_in_float32(kind: str) -> None:
    model, (images, _) = lively(kind), scenes()
    wanted = model.embed(images, BOXES)
    count = sum(len(each["boxes"]) for each in model(images))
    for dtype in HALVES:
        half = copy.deepcopy(model).to(dtype)
        for pixels in (images, [image.to(dtype) for image in images], [image.double() for image in images]):
            assert_alike(half.embed(pixels, BOXES), wanted)
            found = half(pixels)
            assert all(value.dtype == torch.float32 for each in found for key, value in each.items() if key != "labels")
            assert abs(sum(len(each["boxes"]) for each in found) - count) <= 3, "scores near the threshold may cross it"
        query = half.query_as_gallery(images, BOXES)
        torch.testing.assert_close(query[0]["boxes"][:1], BOXES[0], rtol=0, atol=0.5)
        for fast in (half.optimize_for_inference(), half.optimize_for_inference(dtype=dtype)):
            assert_alike(fast.embed(images, BOXES), wanted)


@pytest.mark.parametrize("part", ["backbone", "rpn", "box_stage", "embedding_head", "box_head"])
def test_a_part_in_another_kind(part: str) -> None:
    model, (images, _) = lively("seqnet"), scenes()
    wanted = model.embed(images, BOXES)
    for dtype in (*HALVES, torch.float64):
        mixed = copy.deepcopy(model)
        mixed.get_submodule(part).to(dtype)
        for one, other in zip(mixed.embed(images, BOXES), wanted, strict=True):
            assert float(F.cosine_similarity(one.float(), other).min()) > 0.99
        assert len(mixed(images)) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_detects_and_trains(kind: str, dtype: torch.dtype) -> None:
    model, (images, targets) = lively(kind), scenes()
    wanted = model.embed(images, BOXES)
    with torch.autocast("cpu", dtype):
        assert_alike(model.embed(images, BOXES), wanted)
        assert all(each["embeddings"].dtype == torch.float32 for each in model(images))
        losses = model.train()(images, targets)
    assert isinstance(losses, dict)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("dtype", HALVES)
def test_what_half_weights_are_not_for(dtype: torch.dtype) -> None:
    images, targets = scenes()
    model: PersonSearchDetector[Any] = small_detector("nae", "resnet_tiny", **TINY).to(dtype)
    with pytest.raises(ArgumentError, match=r"weights are torch\.b?float16.*model\.float\(\)"):
        model.train()(images, targets)
    with torch.autocast("cpu", dtype), pytest.raises(ArgumentError, match=r"already: leave torch\.autocast off"):
        model.eval()(images)
    assert isinstance(model.float().train()(images, targets), dict), "the remedy works"
