"""What every detector promises: torchvision's contract, batches that change nothing, queries, images without anybody."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from pretrainps.backbones import build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.errors import ArgumentError
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, SMALL, lively_detector, small_detector

Detector = PersonSearchDetector[Any]
ARCH = "shufflenetv1"
SMALLER: dict[str, Any] = {
    "min_size": 64,
    "max_size": 112,
    "anchor_sizes": (16, 32, 64),
    "rpn_proposals": 12,
    "region_size": 6,
    "score_threshold": 0.05,
}
BOX = torch.tensor([[6.0, 4, 25, 40]])

every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def detector(kind: str) -> Detector:
    """To look at only."""
    return lively_detector(kind, ARCH, **SMALLER)


def changed(kind: str, **changes: Any) -> Detector:
    """The same weights under other settings."""
    model = small_detector(kind, ARCH, seed=1, **{**SMALLER, **changes})
    model.load_state_dict(detector(kind).state_dict())
    return model.eval()


def pictures() -> list[Tensor]:
    """Four, each of its own size; the first and third, and the second and fourth, are equally large once they are padded."""
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(3, *size, generator=generator) for size in ((48, 66), (60, 45), (48, 70), (62, 45))]


def boxes_of_four() -> list[Tensor]:
    return [BOX, BOX + 3, BOX - 3, BOX / 2]


@torch.no_grad()
def detections(model: Detector, images: list[Tensor] | Tensor) -> list[dict[str, Tensor]]:
    found = model(images)
    assert isinstance(found, list)
    return found


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    """Equal but for rounding, and for the order of people with nearly equal scores."""
    assert ours.keys() == theirs.keys() and len(ours["boxes"]) == len(theirs["boxes"])
    if len(ours["boxes"]):
        index = torch.cdist(theirs["boxes"], ours["boxes"], p=torch.inf).argmin(dim=1)
        assert index.unique().numel() == len(index)
        for key, value in theirs.items():
            # coordinates go up to hundreds of pixels: float32 keeps seven digits of them
            torch.testing.assert_close(ours[key][index], value, rtol=1e-5 if key == "boxes" else 0, atol=tolerance)


def nobody(found: dict[str, Tensor]) -> None:
    shapes = {"boxes": (0, 4), "labels": (0,), "scores": (0,), "embeddings": (0, 256)}
    assert {key: tuple(value.shape) for key, value in found.items()} == shapes
    assert found["labels"].dtype == torch.int64 and found["embeddings"].dtype == torch.float32


@every_kind
def test_what_comes_out(kind: str) -> None:
    images = pictures()
    for image, people in zip(images, detections(detector(kind), images), strict=True):
        count = len(people["boxes"])
        assert count > 1, "or there is nothing to look at"
        assert people["boxes"].shape == (count, 4) and people["embeddings"].shape == (count, 256)
        assert torch.equal(people["labels"], torch.ones(count, dtype=torch.int64))
        assert people["scores"].shape == (count,) and people["scores"].min() > 0.05
        assert people["scores"].diff().max() <= 0, "the best first"
        assert people["boxes"].min() >= 0
        assert (people["boxes"][:, 2:] > people["boxes"][:, :2]).all()
        assert (people["boxes"][:, 2:] <= torch.tensor([image.shape[2], image.shape[1]]) + 1e-3).all()
        overlap = box_iou(people["boxes"], people["boxes"]).fill_diagonal_(0)
        assert overlap.max() <= (0.51 if kind == "seqnet" else 0.41)


@every_kind
def test_no_images(kind: str) -> None:
    model = detector(kind)
    assert model([]) == model.embed([], []) == model.query_as_gallery([], []) == []


@every_kind
def test_images_without_anybody(kind: str) -> None:
    model = changed(kind, score_threshold=1.0)
    for found in detections(model, pictures()):
        nobody(found)
    for (box,), found in zip(boxes_of_four(), model.query_as_gallery(pictures(), boxes_of_four()), strict=True):
        torch.testing.assert_close(found["boxes"], box[None])
        assert torch.equal(found["scores"], torch.ones(1))


@every_kind
def test_images_without_a_proposal(kind: str) -> None:
    """Proposals of no size are none."""
    model = changed(kind)
    with torch.no_grad():
        model.rpn.head.bbox_pred.bias.view(-1, 4)[:, 2:] = -50.0
    for found in detections(model, pictures()):
        nobody(found)
    found = model.query_as_gallery(pictures(), boxes_of_four())
    assert [len(each["boxes"]) for each in found] == [1, 1, 1, 1]


def check_detections(model: Detector, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """A batch gives what each image gives alone."""
    together = detections(model, images)
    for image, found in zip(images, together, strict=True):
        same(found, *detections(model, [image]))
    return together


def check_queries_in_galleries(model: Detector, images: list[Tensor]) -> None:
    """As above, with someone known to be there."""
    together = model.query_as_gallery(images, boxes_of_four())
    for image, box, found in zip(images, boxes_of_four(), together, strict=True):
        same(found, *model.query_as_gallery([image], [box]))


@every_kind
def test_a_batch_changes_nothing(kind: str) -> None:
    model, images = detector(kind), pictures()
    assert all(len(found["boxes"]) > 1 for found in check_detections(model, images))
    check_queries_in_galleries(model, images)
    people = [torch.cat([box, BOX]) for box in boxes_of_four()]
    for image, boxes, vectors in zip(images, people, model.embed(images, people), strict=True):
        torch.testing.assert_close(vectors, *model.embed([image], [boxes]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nae+"])  # whose best score is 1 in every image
def test_a_batch_with_an_image_without_anybody(kind: str) -> None:
    best = torch.stack([found["scores"][0] for found in detections(detector(kind), pictures())])
    lowest, second = best.sort().values[:2]
    found = check_detections(changed(kind, score_threshold=float((lowest + second) / 2)), pictures())
    assert [len(each["boxes"]) == 0 for each in found] == (best == lowest).tolist()


@every_kind
def test_a_batch_with_an_image_without_a_proposal(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed(kind)
    propose = model.rpn.propose

    def narrow_ones_only(images: ImageList, features: Tensor) -> Any:
        proposals, losses = propose(images, features)
        wide = [width > 90 for _, width in images.image_sizes]
        return [each[:0] if no else each for each, no in zip(proposals, wide, strict=True)], losses

    monkeypatch.setattr(model.rpn, "propose", narrow_ones_only)
    found = check_detections(model, pictures())
    assert [len(each["boxes"]) > 0 for each in found] == [True, True, False, True]
    nobody(found[2])
    check_queries_in_galleries(model, pictures())


@every_kind
def test_images_may_come_as_one_tensor(kind: str) -> None:
    images = torch.stack(pictures()[:1] * 2)
    for one, other in zip(detections(detector(kind), images), detections(detector(kind), list(images)), strict=True):
        same(one, other)


@every_kind
def test_boxes_of_any_kind_and_place(kind: str) -> None:
    (image, *_), model = pictures(), detector(kind)
    whole = torch.tensor([[10, 12, 40, 44], [0, 0, 70, 48]])
    (expected,) = model.embed([image], [whole.float()])
    for dtype in (torch.int64, torch.int32, torch.float64):
        assert torch.equal(*model.embed([image], [whole.to(dtype)]), expected)
    odd = torch.tensor([[-20.0, -30, 30, 40], [50, 20, 400, 300], [500, 500, 600, 700], [-90, -90, -50, -40], [7, 8, 8, 9]])
    (vectors,) = model.embed([image], [odd])
    assert vectors.shape == (5, 256) and vectors.isfinite().all() and (vectors.norm(dim=1) > 1e-3).all()
    (nothing,) = model.embed([image], [torch.zeros(0, 4)])
    assert nothing.shape == (0, 256)
    some = model.embed([image, image], [torch.zeros(0, 4, dtype=torch.int64), whole])
    assert len(some[0]) == 0
    torch.testing.assert_close(some[1], expected, rtol=1e-4, atol=1e-4)


@every_kind
def test_lengths_of_embeddings(kind: str) -> None:
    """A query's is 1 (NAE+: below); a gallery's is its score, unless that is turned off."""
    images = pictures()[:2]
    for vectors in detector(kind).embed(images, [BOX, BOX]):
        length = vectors.norm(dim=1)
        if kind == "nae+":
            assert 0 < length < 1
        else:
            torch.testing.assert_close(length, torch.ones(1))
    weighed, plain = (detections(changed(kind, score_weighting=each), images) for each in (True, False))
    for one, other in zip(weighed, plain, strict=True):
        torch.testing.assert_close(one["embeddings"].norm(dim=1), one["scores"])
        torch.testing.assert_close(other["embeddings"].norm(dim=1), torch.ones(len(other["scores"])))
        torch.testing.assert_close(one["embeddings"], other["embeddings"] * other["scores"][:, None])
    default = detections(detector(kind), images)
    for one, other in zip(default, plain if kind == "oim" else weighed, strict=True):
        assert torch.equal(one["embeddings"], other["embeddings"]), "OIM does not weigh by default, the others do"


@every_kind
def test_query_as_gallery(kind: str) -> None:
    model, images = detector(kind), pictures()
    flat = [box[0] for box in boxes_of_four()]
    for image, box, one, found in zip(
        images,
        boxes_of_four(),
        model.query_as_gallery(images, flat),
        model.query_as_gallery(images, boxes_of_four()),
        strict=True,
    ):
        assert all(torch.equal(one[key], found[key]) for key in found), "(4,) is (1, 4)"
        torch.testing.assert_close(found["boxes"][:1], box, rtol=1e-5, atol=1e-4)
        assert found["scores"][0] == 1 and len(found["scores"]) > 1
        torch.testing.assert_close(found["embeddings"][:1], *model.embed([image], [box]), rtol=1e-4, atol=1e-4)
        assert box_iou(box, found["boxes"][1:]).max() <= (0.5 if kind == "seqnet" else 0.4) + 1e-3
        torch.testing.assert_close(found["embeddings"][1:].norm(dim=1), torch.ones(len(found["scores"]) - 1))


@every_kind
def test_the_person_searched_for_suppresses_who_stands_there(kind: str) -> None:
    """The second best detection, given as the query, comes back once, and before the best."""
    model, (image, *_) = detector(kind), pictures()
    (before,) = detections(model, [image])
    (found,) = model.query_as_gallery([image], [before["boxes"][1]])
    torch.testing.assert_close(found["boxes"][0], before["boxes"][1], rtol=1e-5, atol=1e-4)
    assert box_iou(found["boxes"][:1], found["boxes"][1:]).max() < 0.6
    assert found["scores"][0] == 1


@every_kind
def test_the_same_each_time(kind: str) -> None:
    model, images = detector(kind), pictures()[:2]
    for one, other in zip(detections(model, images), detections(model, images), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@every_kind
def test_half_precision(kind: str) -> None:
    model, images = detector(kind), pictures()[:1]
    exact = detections(model, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = detections(model, images)
        vectors = model.embed(images, [BOX])
    for one, other in zip(found, exact, strict=True):
        assert {key: one[key].dtype for key in one} == {key: other[key].dtype for key in other}, "results stay as precise"
        # random weights react to rounding, so who is near a threshold may come or go; the best is found all the same
        overlap, index = box_iou(other["boxes"][:1], one["boxes"]).max(dim=1)
        assert overlap.min() > 0.7
        torch.testing.assert_close(one["scores"][index], other["scores"][:1], rtol=0, atol=0.1)
        assert one["boxes"].isfinite().all() and one["embeddings"].isfinite().all()
    for half, whole in zip(vectors, model.embed(images, [BOX]), strict=True):
        assert half.dtype == torch.float32
        assert torch.cosine_similarity(half, whole) > 0.99


@every_kind
def test_queries_need_eval_mode(kind: str) -> None:
    model = small_detector(kind, ARCH, **SMALLER).train()
    for method in (model.embed, model.query_as_gallery):
        with pytest.raises(ArgumentError, match=r"model\.eval\(\)"):
            method([torch.rand(3, 64, 64)], [BOX])


@every_kind
def test_what_is_given_stays_as_it_is(kind: str) -> None:
    """No resizing, flipping, scaling in place."""
    images, kept = pictures()[:2], pictures()[:2]
    targets, kept_targets = (
        [{"boxes": BOX + place, "ids": torch.tensor([place]), "labels": torch.tensor([1])} for place in (0, 1)] for _ in "ab"
    )
    model = small_detector(kind, ARCH, **SMALLER)
    torch.manual_seed(0)
    model.train()(images, targets)
    boxes = [BOX.clone(), BOX.clone()]
    model.eval()
    detections(model, images)
    model.embed(images, boxes)
    model.query_as_gallery(images, boxes)
    assert all(torch.equal(image, other) for image, other in zip(images, kept, strict=True))
    assert all(torch.equal(box, BOX) for box in boxes)
    for target, other in zip(targets, kept_targets, strict=True):
        assert target.keys() == other.keys() and all(torch.equal(target[key], other[key]) for key in other)


@every_kind
def test_state_goes_through_a_file(kind: str) -> None:
    model = detector(kind)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = small_detector(kind, ARCH, seed=5, **SMALLER).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    images = pictures()[:2]
    for one, two in zip(detections(model, images), detections(other, images), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_colour_order_and_scale_are_the_weights(kind: str) -> None:
    """Two conventions for the same pixels: BGR in 0..255, and RGB in 0..1 with a first convolution to match."""
    rgb = changed(kind)
    mean, std = (tuple(255 * value for value in reversed(values)) for values in (ASSUMED_INPUT.mean, ASSUMED_INPUT.std))
    convention = replace(ASSUMED_INPUT, colour="bgr", scale=255.0, mean=mean, std=std)
    bgr = assemble(kind, build_backbone(ARCH), {**SMALL, **SMALLER}, convention).eval()
    bgr.load_state_dict(rgb.state_dict())
    with torch.no_grad():
        bgr.backbone.conv1.conv.weight.copy_(rgb.backbone.conv1.conv.weight.flip(1))  # type: ignore[operator, union-attr]
    images = pictures()[:2]
    for one, other in zip(detections(rgb, images), detections(bgr, images), strict=True):
        same(one, other, 1e-3)
