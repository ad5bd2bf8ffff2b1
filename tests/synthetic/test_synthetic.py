"""The synthetic world is reproducible, its boxes fit its people, and its people can be distinguished."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from pretrainps.data import UNLABELLED, Sample
from pretrainps.errors import ArgumentError
from pretrainps.synthetic import DOMAINS, Domain, crops, detection_split, find_domain, reid_split, scenes, search_train
from pretrainps.synthetic.camera import Camera, find_camera
from pretrainps.synthetic.composition import Actor, compose
from pretrainps.synthetic.pose import draw_pose
from pretrainps.synthetic.scene import draw_scene, find_person
from pretrainps.synthetic.streams import Stream

names = st.sampled_from(sorted(DOMAINS))
seeds = st.integers(0, 1)


def same(one: Sample, other: Sample) -> bool:
    """Whether two samples are equal in everything."""
    assert one.visible is None or other.visible is not None
    arrays = [(s.image, s.boxes, s.ids, s.ignore, s.visible if s.visible is not None else s.boxes) for s in (one, other)]
    equal = all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
    return equal and (one.name, one.camera, one.size) == (other.name, other.camera, other.size)


def crowd(camera: Camera, seed: int, count: int) -> list[Actor]:
    """People who stand so close that they hide each other."""
    stream = Stream("crowd", seed)
    height, width = camera.domain.size
    actors = []
    for number in range(count):
        who = find_person(camera.domain, seed, number)
        x, y = stream.uniform(0.3, 0.7) * width, camera.row_of(stream.uniform(0.25, 0.45) * height)
        actors.append(Actor(who=who, pose=draw_pose(stream), x=x, y=y, yaw=stream.uniform(-3, 3)))
    return actors


def test_random_numbers_never_change() -> None:
    """Weights were trained on this world, so its people must not change."""
    stream = Stream("person", 0, "reid_market", 7)
    assert [stream.below(1000) for _ in range(5)] == [363, 25, 422, 684, 796]
    assert stream.shuffled(range(6)) == [0, 1, 2, 4, 5, 3]
    assert Stream("x", np.int64(3)).below(10**9) == Stream("x", 3).below(10**9)
    assert Stream("a", "b").below(10**9) != Stream("ab").below(10**9)
    normal = [Stream("normal", number).normal(2.0, 3.0) for number in range(2000)]
    assert np.mean(normal) == pytest.approx(2.0, abs=0.25) and np.std(normal) == pytest.approx(3.0, abs=0.25)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_is_drawn(name: str) -> None:
    domain = DOMAINS[name]
    (scene,) = scenes(domain, 1, seed=2)
    (crop,) = crops(domain, [3], cameras_per_identity=1, shots=1, seed=2)
    for sample in (scene, crop):
        assert isinstance(sample.image, np.ndarray) and sample.image.dtype == np.uint8
        assert sample.image.shape == (*(sample.size or ()), 3) and sample.image.std() > 10
        assert (sample.camera is not None) == domain.tells_cameras
    assert scene.size == (320, 480) and np.all(scene.ids == UNLABELLED)
    assert sum(len(draw_scene(domain, seed=2, split="train", index=index).boxes) for index in range(3)) > 0


@settings(max_examples=20)
@given(name=names, seed=seeds, index=st.integers(0, 10**6))
def test_boxes_are_whole_pixels_inside_the_picture(name: str, seed: int, index: int) -> None:
    domain = replace(DOMAINS[name], cameras=1)
    scene = draw_scene(domain, seed=seed, split="train", index=index)
    height, width = domain.size
    for boxes in (scene.boxes, scene.visible, scene.ignore):
        assert boxes.dtype == np.float32 and np.array_equal(boxes, boxes.round())
        assert np.all(boxes[:, :2] >= 0) and np.all(boxes[:, 2:] <= (width, height))
        assert np.all(boxes[:, 2:] - boxes[:, :2] >= 2)
    assert np.all(scene.visible[:, :2] >= scene.boxes[:, :2]) and np.all(scene.visible[:, 2:] <= scene.boxes[:, 2:])
    tall = scene.boxes[:, 3] - scene.boxes[:, 1]
    assert np.all(tall >= 0.8 * domain.smallest * height) and len(scene.boxes) <= domain.people[1] + 1


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_boxes_are_where_the_picture_changes(seed: int, count: int) -> None:
    """Remove each person from the image: the pixels that change are the visible part of that person."""
    camera = replace(find_camera(DOMAINS["reid_city"], 0, seed % 3), shadow=0.0)  # shadows are no part of people
    if seed % 2:
        camera = replace(camera, objects=())
    actors = crowd(camera, seed, count)
    image, appearances = compose(camera, actors)
    for seen in appearances:
        others = [actor for index, actor in enumerate(actors) if index != seen.actor]
        changed = change(image, compose(camera, others)[0])
        # pixels that are mostly another person's may change by up to half of the visible part, but not by more
        assert inside(box_around(changed > 150), seen.visible)
        assert inside(seen.visible, box_around(changed > 0)) and inside(box_around(changed > 0), seen.full)
        if not camera.objects:
            whole = change(compose(camera, [actors[seen.actor]])[0], camera.background)
            share = np.count_nonzero(changed) / np.count_nonzero(whole)
            assert share == pytest.approx(seen.fraction, abs=0.1)


def change(one: Image.Image, other: Image.Image) -> np.ndarray:
    """By how much each pixel differs in the channel that differs most: (H, W)."""
    return np.asarray(ImageChops.difference(one, other)).max(axis=2)


def box_around(marked: np.ndarray) -> tuple[int, ...] | None:
    return Image.fromarray(marked).getbbox()


def inside(inner: tuple[int, ...] | None, outer: tuple[int, ...] | None) -> bool:
    """Whether a box, if there is one, is in another, give or take a pixel."""
    if inner is None:
        return True
    assert outer is not None
    return inner[0] >= outer[0] - 1 and inner[1] >= outer[1] - 1 and inner[2] <= outer[2] + 1 and inner[3] <= outer[3] + 1


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), corner=st.tuples(st.integers(0, 300), st.integers(0, 200)))
def test_a_window_shows_the_same(seed: int, corner: tuple[int, int]) -> None:
    camera = find_camera(DOMAINS["det_street"], 0, seed % 3)
    actors = crowd(camera, seed, 3)
    window = (*corner, corner[0] + 60, corner[1] + 110)
    assert compose(camera, actors, window)[0].tobytes() == compose(camera, actors)[0].crop(window).tobytes()


def test_perspective() -> None:
    camera = find_camera(DOMAINS["search_campus"], 0, 0)
    assert camera.height_at(320) == pytest.approx(camera.nearest) and camera.height_at(camera.horizon) == 0
    assert camera.row_of(camera.height_at(250.0)) == pytest.approx(250.0)


def test_a_scene_depends_on_itself_alone() -> None:
    """It depends neither on earlier draws nor on the number of draws."""
    forwards = list(scenes("search_campus", 4, seed=1))
    backwards = [draw_scene(DOMAINS["search_campus"], seed=1, split="train", index=index) for index in (3, 1, 0, 2)]
    for scene, index in zip(backwards, (3, 1, 0, 2), strict=True):
        assert np.array_equal(scene.pixels, forwards[index].image) and np.array_equal(scene.boxes, forwards[index].boxes)
    find_camera.cache_clear()
    assert same(forwards[0], next(scenes("search_campus", 1, seed=1)))


def test_everything_named_makes_a_difference() -> None:
    pictures = [
        next(scenes(domain, 1, seed=seed, name=name)).image
        for domain, seed, name in (
            ("det_yard", 0, "train"),
            ("det_yard", 1, "train"),
            ("det_yard", 0, "test"),
            ("det_street", 0, "train"),
        )
    ]
    assert not any(np.array_equal(one, other) for one, other in combinations(pictures, 2))


def test_people_are_fixed_by_seed_domain_and_number() -> None:
    market, city = DOMAINS["reid_market"], DOMAINS["reid_city"]
    people = [find_person(domain, seed, number) for domain in (market, city) for seed in (0, 1) for number in range(20)]
    assert len(set(people)) == len(people)
    assert find_person(market, 0, 5) == people[5]
    # market and album have the same style, but other people
    assert find_person(DOMAINS["search_album"], 0, 5) != people[5]


def test_crops_are_numbered_and_named() -> None:
    split = reid_split("reid_market", [7, 3], cameras_per_identity=2, shots=2, size=(64, 32))
    assert split.identities == ("0008", "0004") and [int(sample.ids[0]) for sample in split.samples] == [0] * 4 + [1] * 4
    assert len({sample.name for sample in split.samples}) == 8
    for sample in split.samples:
        assert sample.size == (64, 32) and np.array_equal(sample.boxes, Sample.whole())
        assert sample.name.startswith(f"{split.identities[sample.ids[0]]}_c{sample.camera}s1_")
    again = reid_split("reid_market", [3], cameras_per_identity=2, shots=2, size=(64, 32))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(split.samples[4:], again.samples, strict=True))
    assert len(reid_split("reid_hall", [0], cameras_per_identity=99, shots=1).cameras) == DOMAINS["reid_hall"].cameras


def test_a_person_looks_most_like_himself() -> None:
    """Colours of clothes, in another camera: six rows of the centre, two columns."""
    split = reid_split("search_campus", range(900, 920), cameras_per_identity=2, shots=2)
    looks = np.array([colours(sample) for sample in split.samples]).reshape(20, 2, 2, -1)  # person, camera, shot
    apart = np.linalg.norm(looks[:, None, 0].mean(axis=2) - looks[None, :, 1].mean(axis=2), axis=2)  # (20, 20)
    own = np.diag(apart)
    others = apart[~np.eye(20, dtype=bool)]
    assert own.mean() < 0.75 * others.mean()
    assert (apart.argmin(axis=1) == np.arange(20)).mean() > 0.3


def colours(sample: Sample) -> np.ndarray:
    picture = sample.pixels()
    centre = picture.crop((picture.width // 4, 0, 3 * picture.width // 4, picture.height))
    return np.asarray(centre.resize((2, 6), Image.Resampling.BOX), dtype=float).ravel()


def test_frames_of_another_size() -> None:
    small, large = (replace(DOMAINS["det_street"], size=size) for size in ((160, 200), (400, 640)))
    tallest = {}
    for domain in (small, large):
        samples = list(scenes(domain, 3))
        assert all(np.shape(sample.image) == (*domain.size, 3) for sample in samples)
        tallest[domain.size[0]] = max(float((s.boxes[:, 3] - s.boxes[:, 1]).max(initial=0)) for s in samples)
    assert tallest[160] / 160 == pytest.approx(tallest[400] / 400, abs=0.15)


@pytest.mark.parametrize("module", ["streams", "sets", "search"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"pretrainps.synthetic.{module}"))
    assert result.attempted > 0 and result.failed == 0


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"no domain 'det_stret'\. Did you mean det_street"):
        find_domain("det_stret")
    with pytest.raises(ArgumentError, match="There are det_street"):
        detection_split("qqq", 1)
    with pytest.raises(ArgumentError, match="count=0"):
        scenes("det_street", 0)
    with pytest.raises(ArgumentError, match="workers=0"):
        scenes("det_street", 1, workers=0)
    with pytest.raises(ArgumentError, match="too small for people"):
        Domain(name="dots", task="detection", style=DOMAINS["det_yard"].style, cameras=1, size=(32, 480))
    with pytest.raises(ArgumentError, match="identities is empty"):
        crops("reid_hall", [])
    with pytest.raises(ArgumentError, match="names a person twice"):
        crops("reid_hall", [1, 2, 1])
    with pytest.raises(ArgumentError, match="holds -1"):
        search_train("search_campus", [0, -1])
    with pytest.raises(ArgumentError, match="both must be 1 or more"):
        crops("reid_hall", [1], shots=0)
