"""Scenes and crops as batches: boxes move with pixels, ids stay with boxes, broken images do not end a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from pretrainps.data import Sample, Split
from pretrainps.data.batching import BalancedBatches, Draw, ShuffledBatches
from pretrainps.data.loading import Crops, Loader, ReadFailure, Scenes, crops_together, fractions, scenes_together
from pretrainps.data.records import as_boxes, pixels_of
from pretrainps.data.transforms import SceneAugmentation, crop_transform
from pretrainps.errors import DatasetError


def scene(name: str, people: int, *, seed: int = 0, height: int = 40, width: int = 60) -> Sample:
    """A grey image with people of one colour each: the pixels of a box identify its person."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128, np.uint8)
    boxes = []
    for person in range(people):
        x, y = 12 * person + int(rng.integers(3)), int(rng.integers(8))
        pixels[y : y + 20, x : x + 8] = (40 * person, 250, 10)
        boxes.append((x, y, x + 8, y + 20))
    ids = np.arange(people, dtype=np.int64)
    return Sample(name=name, image=pixels, boxes=as_boxes(boxes), ids=ids, ignore=as_boxes([(0, 30, 60, 40)]), camera=1)


def split(samples: list[Sample]) -> Split:
    return Split(dataset="own", name="train", task="search", samples=samples, identities=tuple("abcdef"))


@pytest.mark.parametrize("options", [{"flip": 1.0}, {"flip": 0.5, "crop": 1.0, "smallest": 4.0}, {"colour": 0.05, "flip": 0.5}])
def test_ids_stay_with_their_people(options: dict[str, float]) -> None:
    dataset = Scenes(split([scene("a", 4), scene("b", 0)]), SceneAugmentation(**options))
    for seed in range(20):
        image, target = dataset[Draw(0, seed)]  # type: ignore[misc]
        assert image.dtype == torch.uint8 and type(image) is torch.Tensor, "a quarter of what would have to be handed over"
        assert len(target["boxes"]) == len(target["ids"]) == len(target["labels"]) and target["name"] == "a"
        for box, person in zip(target["boxes"].tolist(), target["ids"].tolist(), strict=True):
            x1, y1, x2, y2 = (round(each) for each in box)
            colour = image[:, (y1 + y2) // 2, (x1 + x2) // 2].tolist()
            assert abs(colour[0] - 40 * person) < 20, "no other person is nearer"
            assert colour[1] > 200
        nobody, empty = dataset[Draw(1, seed)]  # type: ignore[misc]
        assert empty["boxes"].shape == (0, 4) and empty["ids"].shape == (0,) and nobody.shape[0] == 3


def test_bytes_become_fractions() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(fractions(pixels), torch.arange(256) / 255)
    labels = torch.arange(3)
    assert fractions(labels) is labels


def test_the_same_draw_is_augmented_alike_and_leaves_the_random_state_alone() -> None:
    dataset = Scenes(split([scene("a", 3)]), SceneAugmentation(flip=0.5, colour=0.4, crop=0.5))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = dataset[Draw(0, 5)], dataset[Draw(0, 5)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not isinstance(one, ReadFailure) and not isinstance(two, ReadFailure) and torch.equal(one[0], two[0])
    shown = {tuple(dataset[Draw(0, seed)][0].flatten()[:50].tolist()) for seed in range(6)}  # type: ignore[index]
    assert len(shown) > 3


def test_mirrored_boxes_are_torchvisions() -> None:
    sample = scene("a", 3)
    boxes = tv_tensors.BoundingBoxes(torch.from_numpy(sample.boxes), format="XYXY", canvas_size=(40, 60))  # type: ignore[call-overload]
    _, target = Scenes(split([sample]), SceneAugmentation(flip=1.0))[Draw(0, 0)]  # type: ignore[misc]
    assert torch.equal(target["boxes"], v2.functional.horizontal_flip(boxes).as_subclass(torch.Tensor))


def test_boxes_end_at_the_border_and_specks_go() -> None:
    sample = replace(scene("a", 1), boxes=as_boxes([(-10, 5, 200, 20), (58.5, 5, 90, 20), (70, 5, 90, 20)]), ids=np.arange(3))
    _, target = Scenes(split([sample]), SceneAugmentation(smallest=2.0))[Draw(0, 0)]  # type: ignore[misc]
    assert target["boxes"].tolist() == [[0, 5, 60, 20]] and target["ids"].tolist() == [0]


def test_crops_of_scenes_and_of_crops() -> None:
    scenes = Crops(split([scene("a", 2), scene("b", 1, seed=3)]), crop_transform(16, 8))
    assert len(scenes) == 3
    for item, person in enumerate((0, 1, 0)):
        image, label, camera = scenes[Draw(item, 0)]  # type: ignore[misc]
        assert (label, camera, tuple(image.shape)) == (person, 1, (3, 16, 8))
        assert torch.allclose(image.mean(dim=(1, 2)) * 255, torch.tensor([40.0 * person, 250, 10]), atol=2)
    whole = Sample(name="c", image=np.zeros((30, 10, 3), np.uint8), boxes=Sample.whole(), ids=np.array([4]))
    image, label, camera = Crops(split([whole]), crop_transform(16, 8))[Draw(0, 0)]  # type: ignore[misc]
    assert (label, camera, float(image.max())) == (4, -1, 0.0)


def test_cutting_keeps_inside() -> None:
    for box, ends in (
        ((0, 0, np.inf, np.inf), (0, 0, 60, 40)),
        ((-5, -5, 3.2, 4), (0, 0, 4, 4)),
        ((59.9, 39.9, 60, 40), (59, 39, 60, 40)),
        ((80, 80, 90, 90), (59, 39, 60, 40)),
        ((-9, -9, -5, -5), (0, 0, 1, 1)),
    ):
        assert pixels_of(np.array(box, dtype=np.float32), height=40, width=60) == ends


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_among_many(workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [scene(f"s{each}", 1 + each % 3, seed=each) for each in range(8)]
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    samples[3] = replace(samples[3], image=tmp_path / "broken.jpg")
    data = Scenes(split(samples), SceneAugmentation(flip=0.5))
    loader = Loader(data, ShuffledBatches(8, 2, seed=1), scenes_together, workers=workers)
    with caplog.at_level(logging.WARNING, "pretrainps"):
        for epoch in range(2):
            loader.batches.start_at(epoch)
            sizes = [0 if batch is None else len(batch[0]) for batch in loader]
            assert sorted(sizes) == [1, 2, 2, 2]
    assert list(loader.damaged) == ["s3"] and "broken.jpg" in loader.damaged["s3"]
    assert len(caplog.records) == 1, "reported once"
    stopping = Loader(data, ShuffledBatches(8, 2, seed=1), scenes_together, on_damage="stop")
    with pytest.raises(DatasetError, match=r"s3.*broken\.jpg.*on_damage"):
        list(stopping)


def test_a_batch_of_nothing_but_broken_images(tmp_path: Path) -> None:
    lost = replace(scene("lost", 1), image=tmp_path / "missing.jpg")
    loader = Loader(Scenes(split([lost]), SceneAugmentation()), ShuffledBatches(1, 1), scenes_together)
    assert list(loader) == [None]


def test_processes_that_are_not_forked_can_receive_them() -> None:
    """As on macOS, on Windows, and everywhere from Python 3.14 on."""
    data = Scenes(split([scene("a", 2)]), SceneAugmentation(flip=0.5, colour=0.4, crop=0.5))
    sent = pickle.loads(pickle.dumps(data))
    assert torch.equal(sent[Draw(0, 1)][0], data[Draw(0, 1)][0])  # type: ignore[index]


def test_workers_read_what_one_process_reads() -> None:
    data = Crops(
        split([scene(f"s{each}", 3, seed=each) for each in range(6)]), crop_transform(16, 8, flip=0.5, shift=2, erase=0.5)
    )

    def read(workers: int) -> list[Any]:
        return list(Loader(data, BalancedBatches((9, 9), 4, seed=2), crops_together, workers=workers))

    for one, two in zip(read(0), read(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert one[0].shape == (4, 3, 16, 8) and one[1].dtype == torch.int64


def test_workers_outlive_a_termination_of_all_processes() -> None:
    """Schedulers send SIGTERM to every process; the training process needs the others to finish its step and to save."""
    data = Scenes(split([scene(f"s{each}", 1) for each in range(12)]), SceneAugmentation())
    loader = Loader(data, ShuffledBatches(12, 1), scenes_together, workers=1)
    batches = iter(loader)
    first = next(batches)
    workers = [child.pid for child in multiprocessing.active_children()]
    assert workers
    for each in workers:
        os.kill(each or 0, signal.SIGTERM)
    assert len([first, *batches]) == 12
