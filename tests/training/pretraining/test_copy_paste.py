"""Crops come into scenes whole, of a size that people have there, and each data set's apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList

from pretrainps.losses.identity import IdentitySettings
from pretrainps.training.pretraining.copy_paste import paste
from pretrainps.training.pretraining.map_cells import cells_of_boxes
from pretrainps.training.pretraining.model import HybridModel
from tests.training import hybrids

SIZES = [(96, 128), (128, 100)]


def scenes() -> ImageList:
    """Two of different sizes, padded with 0; their pixels are above 1, so that crops can be told from them."""
    padded = torch.zeros(2, 3, 128, 128)
    for scene, (height, width) in zip(padded, SIZES, strict=True):
        scene[:, :height, :width] = 2 + torch.rand(3, height, width)
    return ImageList(padded, SIZES)


def crops(count: int) -> Tensor:
    """Each of one grey of its own, below 1."""
    return (0.5 + torch.arange(count) / (4 * count))[:, None, None, None].expand(-1, 3, 32, 16)


PEOPLE = [torch.tensor([[0.0, 0, 12, 30], [5, 5, 25, 55]]), torch.zeros(0, 4)]
FIGURES = {(12, 30), (20, 50)}


@given(st.lists(st.integers(0, 12), min_size=1, max_size=3), st.integers(1, 6), st.integers(0, 1000))
def test_every_crop_lies_in_a_box_of_somebodys_size(counts: list[int], per_scene: int, seed: int) -> None:
    torch.manual_seed(seed)
    given_scenes, given_crops = scenes(), crops(max(1, sum(counts)))[: sum(counts)]
    before = given_scenes.tensors.clone()
    if not sum(counts):
        return
    found = paste(given_crops, counts, given_scenes, PEOPLE, per_scene=per_scene)
    assert torch.equal(given_scenes.tensors, before), "the scenes themselves stay as they are"
    assert sorted(found.order.tolist()) == list(range(sum(counts)))
    assert found.counts == [-(-count // per_scene) for count in counts]
    order = iter(found.order.tolist())
    for scene, size, boxes in zip(found.images.tensors, found.images.image_sizes, found.boxes, strict=True):
        numbers = [next(order) for _ in boxes]
        assert 1 <= len(boxes) <= per_scene
        assert len({which(number, counts) for number in numbers}) == 1, "two data sets in one scene"
        free = torch.ones(scene.shape[1:], dtype=torch.bool)
        for number, (x1, y1, x2, y2) in reversed(list(zip(numbers, boxes.int().tolist(), strict=True))):
            assert 0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]
            assert (x2 - x1, y2 - y1) in FIGURES
            mine = free[y1:y2, x1:x2]  # what nobody who came later covers
            assert torch.allclose(scene[:, y1:y2, x1:x2][:, mine], given_crops[number, 0, 0, 0])
            free[y1:y2, x1:x2] = False
        height, width = size
        source = given_scenes.tensors[SIZES.index(size)]
        plain, mirrored = source.clone(), source.clone()
        mirrored[:, :height, :width] = source[:, :height, :width].flip(-1)
        assert torch.equal(scene[:, free], plain[:, free]) or torch.equal(scene[:, free], mirrored[:, free])


def which(number: int, counts: list[int]) -> int:
    """Return the data set of a crop."""
    return sum(number >= sum(counts[: place + 1]) for place in range(len(counts)))


def test_a_crop_is_resized_as_torch_does() -> None:
    crop = torch.rand(1, 3, 40, 20)
    found = paste(crop, [1], scenes(), [torch.tensor([[0.0, 0, 12, 30]])] * 2, per_scene=1)
    x1, y1, x2, y2 = found.boxes[0][0].int().tolist()
    expected = F.interpolate(crop, (30, 12), mode="bilinear", antialias=True)
    assert torch.equal(found.images.tensors[0][:, y1:y2, x1:x2], expected[0])


def test_pictures_of_one_person_come_into_different_scenes() -> None:
    found = paste(crops(16), [8, 8], scenes(), PEOPLE, per_scene=2)  # four pictures of each of four people
    for numbers in found.order.split([len(boxes) for boxes in found.boxes]):
        assert len({number // 4 for number in numbers.tolist()}) == len(numbers)


def test_people_stand_apart_where_there_is_room() -> None:
    torch.manual_seed(0)
    found = paste(crops(40), [40], scenes(), [torch.tensor([[0.0, 0, 12, 30]])] * 2, per_scene=4)
    overlaps = []
    for boxes in found.boxes:
        corner, end = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        shares = (end - corner).clamp(min=0).prod(dim=2) / (12 * 30)
        overlaps.append(float(shares.fill_diagonal_(0).max()))
    assert max(overlaps) <= 0.2


@pytest.mark.parametrize("people", [[], [[3.0, 3, 6, 9]]])
def test_without_anybody_large_enough_crops_keep_their_size(people: list[list[float]]) -> None:
    found = paste(crops(2), [2], scenes(), [torch.tensor(people).reshape(-1, 4)] * 2, per_scene=1)
    assert {tuple((box[2:] - box[:2]).tolist()) for boxes in found.boxes for box in boxes} == {(16.0, 32.0)}


def test_nobody_is_larger_than_the_scene() -> None:
    found = paste(crops(4), [4], scenes(), [torch.tensor([[0.0, 0, 500, 900]])] * 2, per_scene=1)
    for (box,), size in zip(found.boxes, found.images.image_sizes, strict=True):
        assert box.tolist() == [0, 0, size[1], size[0]]


def losses(model: HybridModel, progress: float = 1.0, *, with_scenes: bool = True) -> dict[str, float]:
    torch.manual_seed(3)
    detection, reid = hybrids.batch()
    return {name: loss.item() for name, loss in model(detection if with_scenes else {}, reid, progress).items()}


def test_crops_are_read_off_scenes_or_where_there_are_none_off_themselves() -> None:
    learned = IdentitySettings(loss="cross_entropy")
    pasted, alone = (hybrids.hybrid(crop_features=way, identity=learned).eval() for way in ("scene", "roi"))
    alone.load_state_dict(pasted.state_dict())
    assert losses(pasted)["loss_identity"] != losses(alone)["loss_identity"]
    assert losses(pasted, with_scenes=False) == losses(alone, with_scenes=False)


def test_what_is_pasted_is_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops that cover their scenes give the features that they have by themselves, in the order of their people."""
    model = hybrids.hybrid(crops_per_scene=1).eval()
    everybody = {"boxes": torch.tensor([[0.0, 0, 64, 64]]), "name": "a scene that one person fills"}
    images, cameras = torch.rand(5, 3, 64, 64), torch.full((5,), -1)
    seen: list[Tensor] = []

    def loss(vectors: Tensor, ids: Tensor, counts: list[int]) -> dict[str, Tensor]:
        seen.append(vectors)
        return {"loss_identity": vectors.sum()}

    assert model.identity is not None
    monkeypatch.setattr(model.identity.loss, "forward", loss)
    people = {
        "hall": (images[:3], torch.tensor([0, 0, 1]), cameras[:3]),
        "city": (images[3:], torch.tensor([2, 3]), cameras[3:]),
    }
    model({"street": ([torch.rand(3, 64, 64)], [everybody])}, people)
    torch.testing.assert_close(seen[0], model.embed(images), rtol=1e-3, atol=1e-4)


def test_crops_may_come_by_themselves_for_a_while() -> None:
    pasted, alone = (hybrids.hybrid(crop_features=way, pasted_from=0.5) for way in ("scene", "roi"))
    alone.load_state_dict(pasted.state_dict())
    early, late = ([losses(model, progress) for model in (pasted, alone)] for progress in (0.4, 0.5))
    assert early[0] == early[1]
    assert late[0] != late[1]


@given(st.lists(st.tuples(*[st.integers(0, 140)] * 4), max_size=4))
def test_cells_of_boxes_are_those_that_one_touches(corners: list[tuple[int, int, int, int]]) -> None:
    rows = [(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in corners]
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    found = cells_of_boxes([boxes, boxes[:0]], torch.zeros(2, 1, 8, 6), 1 / 16)
    expected = [
        [any(x1 < x + 16 and x < x2 and y1 < y + 16 and y < y2 for x1, y1, x2, y2 in rows) for x in range(0, 96, 16)]
        for y in range(0, 128, 16)
    ]
    assert found[0].tolist() == expected
    assert not found[1].any()
