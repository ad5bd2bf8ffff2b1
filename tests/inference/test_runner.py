"""The runner: batches by size, answers in order, faults reported one by one, and reading that stays a little ahead."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrainps.backbones import build_backbone
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, ImageError, NonFiniteError
from pretrainps.heads import CropModel
from pretrainps.inference.runner import (
    ImageDetections,
    ImageFailure,
    ImageInput,
    ModelRunner,
    only,
    read_ahead,
    run_batches,
)
from pretrainps.registry.specs import HeadSpec
from tests.support.detectors import lively_detector

pytestmark = pytest.mark.xdist_group("runner")
COMMON, RARE = (3, 8, 6), (3, 5, 9)
Item = ImageInput[int] | ImageFailure[int]


def images(*shapes: tuple[int, int, int] | None) -> list[Item]:
    """Return images whose pixels are their number; None stands for one that cannot be read."""
    return [
        ImageFailure(key=key, error=ImageError(f"{key} is damaged."))
        if shape is None
        else ImageInput(key=key, pixels=torch.full(shape, float(key)))
        for key, shape in enumerate(shapes)
    ]


class Network:
    """Answers with each image's number, and remembers the batches."""

    def __init__(self, *, refuses: Sequence[int] = (), spoils: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.refuses, self.spoils = set(refuses), set(spoils)

    def __call__(self, batch: Sequence[ImageInput[int]]) -> list[Mapping[str, Tensor]]:
        assert len({tuple(each.pixels.shape) for each in batch}) == 1 and torch.is_inference_mode_enabled()
        keys = [int(each.pixels.flatten()[0]) for each in batch]
        self.batches.append(keys)
        if self.refuses & set(keys):
            raise NonFiniteError("overflow")
        values = [torch.tensor([float("nan") if key in self.spoils else key]) for key in keys]
        return [{"boxes": torch.zeros(1, 4), "scores": value, "embeddings": value[None]} for value in values]


def run(items: Sequence[Item], network: Network, batch_size: int) -> list[ImageDetections[int] | ImageFailure[int]]:
    answers = list(run_batches(items, network, batch_size=batch_size))
    assert [answer.key for answer in answers] == list(range(len(items))), "the order of the images"
    for answer in answers:
        assert isinstance(answer, ImageFailure) or answer.detections.scores.tolist() == [answer.key]
    return answers


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "shapes",
    [
        (COMMON,) * 7,
        (COMMON, RARE) * 5,
        (RARE, *(COMMON,) * 40, RARE),
        (None, COMMON, None, RARE, COMMON, None),
        (None, None),
        (),
    ],
)
def test_answers_come_in_the_order_of_the_images(shapes: tuple[Any, ...], batch_size: int) -> None:
    network = Network()
    answers = run(images(*shapes), network, batch_size)
    assert [isinstance(answer, ImageFailure) for answer in answers] == [shape is None for shape in shapes]
    assert max(map(len, network.batches), default=0) <= batch_size
    assert sorted(key for batch in network.batches for key in batch) == [
        key for key, shape in enumerate(shapes) if shape is not None
    ]


def test_a_rare_size_waits_but_not_for_ever() -> None:
    network = Network()
    answers = run_batches(images(RARE, *(COMMON,) * 30), network, batch_size=2)
    first = next(answers)
    assert first.key == 0 and network.batches == [[1, 2], [3, 4], [5, 6], [0]]
    assert len(list(answers)) == 30
    network = Network()
    run(images(*(COMMON, RARE) * 4), network, 4)
    assert network.batches == [[0, 2, 4, 6], [1, 3, 5, 7]], "company that comes in time is taken"


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("wrong", [(0,), (2, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("how", ["refuses", "spoils"])
def test_only_the_image_at_fault_fails(how: str, wrong: tuple[int, ...], batch_size: int) -> None:
    answers = run(images(*(COMMON,) * 5), Network(**{how: wrong}), batch_size)
    failed = [answer for answer in answers if isinstance(answer, ImageFailure)]
    assert tuple(answer.key for answer in failed) == wrong
    assert all(isinstance(answer.error, NonFiniteError) for answer in failed)


def test_reading_stays_ahead_in_order_and_ends_with_its_caller() -> None:
    started: list[int] = []

    def read(item: int) -> int:
        started.append(item)
        return item

    answers = read_ahead(read, iter(range(100)), threads=3, ahead=4)
    assert next(answers) == 0 and len(started) <= 5
    assert [next(answers) for _ in range(20)] == list(range(1, 21)) and len(started) <= 25
    answers.close()  # type: ignore[attr-defined]
    assert len(started) <= 25 and not [each for each in threading.enumerate() if "ThreadPool" in each.name]

    def damaged(item: int) -> int:
        if item == 2:
            raise ImageError("damaged")
        return item

    seen: list[int] = []
    with pytest.raises(ImageError, match="damaged"):
        seen.extend(read_ahead(damaged, range(9)))
    assert seen == [] or seen == [0, 1]
    assert list(read_ahead(read, ())) == []


@pytest.fixture(scope="module")
def detector() -> PersonSearchDetector[Any]:
    return lively_detector("seqnet", "shufflenetv1")


def scenes(*sizes: tuple[int, int]) -> list[ImageInput[str]]:
    generator = torch.Generator().manual_seed(0)
    return [
        ImageInput(
            key=f"{place}.jpg",
            pixels=torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=generator),
            boxes=torch.tensor([[5.0, 5, 40, 80]]),
        )
        for place, size in enumerate(sizes)
    ]


def test_a_detector_answers_as_it_does_alone(detector: PersonSearchDetector[Any]) -> None:
    given = scenes((100, 120), (90, 130), (100, 120), (4, 4000), (100, 120))
    runner = ModelRunner(detector, batch_size=2, optimize=False)
    assert runner.detector is detector
    for method, alone in (
        (runner.detect, lambda image, box: detector([image])[0]),
        (runner.query_as_gallery, lambda image, box: detector.query_as_gallery([image], [box])[0]),
        (runner.embed, lambda image, box: {"embeddings": detector.embed([image], [box])[0]}),
    ):
        answers = list(method(iter(given)))
        assert [answer.key for answer in answers] == [each.key for each in given]
        for answer, each in zip(answers, given, strict=True):
            if each.key == "3.jpg":
                assert isinstance(answer, ImageFailure) and "so thin" in answer.reason and "image 0" not in answer.reason
                continue
            assert isinstance(answer, ImageDetections)
            with torch.no_grad():
                wanted = alone(each.pixels.float() / 255, each.boxes)
            for name in wanted.keys() - {"labels"}:
                np.testing.assert_allclose(getattr(answer.detections, name), wanted[name].numpy(), rtol=1e-3, atol=1e-2)
    with pytest.raises(ArgumentError, match="so thin"):
        only(runner.detect(iter(given[3:4])))
    assert len(only(runner.embed(iter(given[:1])))) == 1


def test_a_detector_is_optimized_once_and_only_for_an_image(
    detector: PersonSearchDetector[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.dtype] = []
    original = type(detector).optimize_for_inference
    monkeypatch.setattr(
        type(detector),
        "optimize_for_inference",
        lambda self, *, dtype: made.append(dtype) or original(self, dtype=dtype),
    )
    runner = ModelRunner(detector, precision="bfloat16")
    assert list(runner.detect(iter(()))) == [] and made == []
    for _ in range(2):
        list(runner.detect(iter(scenes((100, 120)))))
    assert made == [torch.bfloat16] and ModelRunner(runner.detector).detector is runner.detector


def test_crops_of_any_size_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrainps.registry.specs import ASSUMED_INPUT

    model = CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="embedding")).eval()
    model.spec = type("Spec", (), {"input": ASSUMED_INPUT, "arch": "shufflenetv1"})()  # type: ignore[assignment]
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    given: Iterator[ImageInput[str]] = iter(
        [ImageInput(key=each.key, pixels=each.pixels) for each in scenes((60, 30), (64, 32), (50, 40), (61, 30))]
    )
    answers = list(ModelRunner(model, batch_size=4).embed(given))
    assert sizes == [4] and all(isinstance(answer, ImageDetections) and len(answer.detections) == 1 for answer in answers)
    with pytest.raises(ArgumentError, match="does not detect people"):
        ModelRunner(model).detect(iter(()))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.train(), r"model\.eval\(\)"),
        (lambda model: model.backbone, "neither detects nor embeds"),
        (
            lambda model: CropModel(build_backbone("shufflenetv1"), HeadSpec(kind="classifier", num_classes=3)),
            "head='embedding'",
        ),
    ],
)
def test_models_that_cannot_run(detector: PersonSearchDetector[Any], change: Any, match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        ModelRunner(change(copy.deepcopy(detector)))
