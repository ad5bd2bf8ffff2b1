"""Training: every parameter learns, on every backbone; what is frozen stays; losses are what they say; ranks agree."""

from __future__ import annotations

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.detectors.region.nae_plus import person_pixels
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, TINY
from tests.support.ranks import run_on_two_ranks

Detector = PersonSearchDetector[Any]
LOSSES = {
    "oim": ("rpn_cls", "rpn_reg", "box_cls", "box_reg", "box_reid"),
    "nae": ("rpn_cls", "rpn_reg", "box_cls", "box_reg", "box_reid"),
    "nae+": ("rpn_cls", "rpn_reg", "box_cls", "box_reg", "box_reid"),
    "seqnet": ("rpn_cls", "rpn_reg", "proposal_cls", "proposal_reg", "box_cls", "box_reg", "box_reid"),
}

every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def backbone(arch: str) -> Backbone:
    """To be copied from only; drawing a large one's weights takes longer than a step."""
    torch.manual_seed(0)
    return build_backbone(arch)


def tiny(kind: str, arch: str = "resnet18", **changes: Any) -> Detector:
    torch.manual_seed(1)
    return assemble(kind, backbone(arch), {**TINY, **changes}, ASSUMED_INPUT).train()


def street(people: int = 2, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise, and upright rectangles whose two colours say who it is; the last one's name is not known."""
    draw = np.random.default_rng(seed)
    picture = 0.4 + 0.2 * draw.random((64, 64, 3))
    colours = np.random.default_rng(99).random((4, 3))
    boxes, ids = [], []
    for number in range(people):
        width, height, identity = draw.integers(12, 16), draw.integers(28, 40), int(draw.integers(4))
        x, y = 32 * number + draw.integers(0, 32 - width), draw.integers(0, 64 - height)
        picture[y : y + height // 2, x : x + width] = colours[identity]
        picture[y + height // 2 : y + height, x : x + width] = 1 - colours[identity]
        boxes.append([x, y, x + width, y + height])
        ids.append(identity)
    if seed % 2 and people:
        ids[-1] = -1
    target = {
        "boxes": torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
        "ids": torch.tensor(ids, dtype=torch.int64),
    }
    return torch.from_numpy(picture).permute(2, 0, 1).float(), target


def streets(*people: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images, targets = zip(*(street(count, seed) for seed, count in enumerate(people)), strict=True)
    return list(images), list(targets)


def losses_of(model: Detector, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    torch.manual_seed(2)  # of the samplers
    losses = model(images, targets)
    assert isinstance(losses, dict)
    return losses


@every_kind
@pytest.mark.parametrize(
    "arch", ["resnet50", "resnet18", "shufflenetv1", "timm:convnext_tiny", "timm:swin_tiny_patch4_window7_224"]
)
def test_every_parameter_learns(kind: str, arch: str) -> None:
    model = tiny(kind, arch)
    nn.init.orthogonal_(model.oim_loss.lookup_table)  # from an empty one nobody learns who is who
    losses = losses_of(model, *streets(2, 1))
    assert list(losses) == [f"loss_{name}" for name in LOSSES[kind]]
    assert all(loss.shape == () and loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    parts = model.backbone.segment_modules("stem") if "stem" in model.backbone.segments else []
    stem = {id(parameter) for part in parts for parameter in part.parameters()}
    assert frozen == {name for name, parameter in model.named_parameters() if id(parameter) in stem}
    for name, parameter in model.named_parameters():
        if name not in frozen:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    moving = [name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()]
    for part in ("backbone", "rpn.head", "box_stage", "box_head", "embedding_head"):
        assert any(name.startswith(part) for name in moving), part


@every_kind
def test_losses_fall(kind: str) -> None:
    """Four scenes, again and again."""
    images, targets = streets(2, 2, 2, 2)
    model = tiny(kind, "shufflenetv1")
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=2e-3)
    torch.manual_seed(3)
    history = []
    for _ in range(16):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    for name in losses:
        course = [each[name] for each in history]
        # a norm takes longer to tell people from background; and what the last stage makes of boxes is another matter: at
        # first only the people's own are close enough to be positive, and they need no moving
        limit = {"loss_box_cls": 0.85, "loss_box_reg": 0.5 if kind == "oim" else 1.0}.get(name, 0.5)
        assert np.mean(course[-3:]) < limit * max(course), f"{name}: {course}"


@every_kind
@pytest.mark.parametrize("people", [(0, 0), (0, 2), (1, 0)])
def test_images_without_people(kind: str, people: tuple[int, int]) -> None:
    model = tiny(kind, "shufflenetv1")
    losses = losses_of(model, *streets(*people))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    if not any(people):
        assert losses["loss_box_reid"] == losses["loss_rpn_reg"] == 0
        assert not model.oim_loss.lookup_table.any() and model.oim_loss.cursor == 0


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_the_stem_does_not_learn_but_its_batch_norm_measures(kind: str) -> None:
    images, targets = streets(2, 1)
    model = tiny(kind)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        seen = F.conv2d(model.transform(images)[0].tensors, model.backbone.conv1.weight, stride=2, padding=3)  # type: ignore[arg-type, union-attr]
    step(model, losses_of(model, images, targets))
    after = model.state_dict()
    assert all(torch.equal(after[f"backbone.{name}"], before[f"backbone.{name}"]) for name in STEM)
    torch.testing.assert_close(after["backbone.bn1.running_mean"], 0.1 * seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert not torch.equal(after["backbone.layer1.0.conv1.weight"], before["backbone.layer1.0.conv1.weight"])
    free = tiny(kind, freeze_stem=False)
    step(free, losses_of(free, images, targets))
    assert not any(torch.equal(free.state_dict()[f"backbone.{name}"], before[f"backbone.{name}"]) for name in STEM)


STEM = ("conv1.weight", "bn1.weight", "bn1.bias")


def step(model: Detector, losses: dict[str, Tensor]) -> None:
    """Adam, which moves whatever has a gradient."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    optimizer.step()


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_frozen_batch_norm(kind: str) -> None:
    model = tiny(kind, batch_norm="frozen")
    model = copy.deepcopy(model).eval().train()
    before = copy.deepcopy(model.state_dict())
    step(model, losses_of(model, *streets(2, 1)))
    after = model.state_dict()
    norms = [
        f"{name}.{each}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for each in module.state_dict()
    ]
    learned = ["backbone.layer1.0", "box_stage.stage.layer4.0", *(["reid_stage.stage.layer4.0"] if kind == "seqnet" else [])]
    for block in learned:
        assert f"{block}.bn1.running_mean" in norms
        assert not torch.equal(after[f"{block}.conv1.weight"], before[f"{block}.conv1.weight"])
    assert all(torch.equal(after[name], before[name]) for name in norms)
    assert not torch.equal(after["embedding_head.projectors.c5.1.running_mean"], torch.zeros(128)), "heads are not the backbone"


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_live_batch_norm_measures_everywhere(kind: str) -> None:
    model = tiny(kind)
    losses_of(model, *streets(2, 1))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            assert buffer.any(), name


@pytest.mark.parametrize("form", ["l1", "smooth_l1"])
def test_losses_of_the_proposals(form: str) -> None:
    """Matching, sampling and both losses written out; so many samples are allowed that all are taken."""
    model = tiny("nae", rpn_box_loss=form, rpn_samples=10_000)
    images, targets = streets(2, 1)
    with torch.no_grad():
        batch, scaled = model.transform(images, targets)
        features = model.features(batch.tensors)
        _, losses = model.rpn.propose(batch, features, scaled)
        ((objectness,), (deltas,)) = model.rpn.head([features])
        anchors = model.rpn.anchor_generator(batch, [features])
    per_cell = objectness.shape[1]
    logits = objectness.permute(0, 2, 3, 1).flatten(1)
    deltas = deltas.unflatten(1, (per_cell, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
    found, labels, off = [], [], []
    for image, target in enumerate(scaled):
        a, overlap = anchors[image], box_iou(target["boxes"], anchors[image])
        best, person = overlap.max(dim=0)
        positive = (best >= 0.7) | (overlap == overlap.max(dim=1, keepdim=True).values).any(dim=0)
        used = positive | (best < 0.3)
        found.append(logits[image][used])
        labels.append(positive[used].float())
        g, size = target["boxes"][person], a[:, 2:] - a[:, :2]
        wanted = torch.cat(
            [((g[:, 2:] + g[:, :2]) - (a[:, 2:] + a[:, :2])) / 2 / size, ((g[:, 2:] - g[:, :2]) / size).log()], dim=1
        )
        off.append((deltas[image] - wanted)[positive].abs())
    distance = torch.cat(off)
    if form == "smooth_l1":
        distance = torch.where(distance < 1 / 9, 4.5 * distance.square(), distance - 1 / 18)
    assert len(distance) > 2 and len(torch.cat(labels)) > 50
    torch.testing.assert_close(losses["loss_rpn_reg"], distance.sum() / len(torch.cat(labels)))
    expected = F.softplus(torch.cat(found) * (1 - 2 * torch.cat(labels))).mean()
    torch.testing.assert_close(losses["loss_rpn_cls"], expected)


@every_kind
def test_losses_are_weighed_as_the_config_says(kind: str) -> None:
    weights = {name: float(number) for number, name in enumerate(LOSSES[kind], start=2)}
    plain = losses_of(tiny(kind, "shufflenetv1", **{f"weight_{name}": 1.0 for name in weights}), *streets(2, 1))
    weighed = losses_of(
        tiny(kind, "shufflenetv1", **{f"weight_{name}": value for name, value in weights.items()}), *streets(2, 1)
    )
    for name, weight in weights.items():
        assert plain[f"loss_{name}"] > 0
        torch.testing.assert_close(weighed[f"loss_{name}"], weight * plain[f"loss_{name}"])


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_gradient_checkpointing_changes_nothing_but_memory(kind: str) -> None:
    plain = tiny(kind, "shufflenetv1")
    saving = copy.deepcopy(plain).enable_gradient_checkpointing()
    found = []
    for model in (plain, saving):
        losses = losses_of(model, *streets(2, 1))
        sum(losses.values()).backward()  # type: ignore[union-attr]
        found.append(losses)
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])
    gradients = dict(saving.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    buffers = dict(saving.named_buffers())
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, msg=f"{name} moved twice")


TOGETHER = """
from torch.nn.parallel import DistributedDataParallel
from pretrainps.backbones import build_backbone
from pretrainps.detectors import assemble
from pretrainps.registry.specs import ASSUMED_INPUT

given = torch.load(f"{folder}/given.pt", weights_only=True)
torch.manual_seed(0)
model = assemble("seqnet", build_backbone("shufflenetv1"), given["config"], ASSUMED_INPUT).train()
wrapped = DistributedDataParallel(model)
torch.manual_seed(rank)
losses = wrapped(*given["scenes"][rank])
sum(losses.values()).backward()
torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01).step()
result = {
    "tables": model.oim_loss.state_dict(),
    "weights": dict(model.named_parameters()),
    "losses": {name: loss.detach() for name, loss in losses.items()},
}
"""


def test_ranks_end_with_equal_tables_and_weights(tmp_path: Path) -> None:
    """Different scenes, with different numbers of people."""
    scenes = [streets(2, 2), streets(0, 1)]
    scenes[0][1][0]["ids"] = torch.tensor([0, -1])
    scenes[0][1][1]["ids"] = torch.tensor([-1, 1])
    scenes[1][1][1]["ids"] = torch.tensor([2])
    torch.save({"config": TINY, "scenes": scenes}, tmp_path / "given.pt")
    one, other = run_on_two_ranks(TOGETHER, tmp_path)
    for name, value in one["tables"].items():
        assert torch.equal(value, other["tables"][name]), name
    assert one["tables"]["lookup_table"].any(dim=1).tolist() == [True, True, True, False], "of both ranks' people"
    assert one["tables"]["queue"].any() and one["tables"]["cursor"] >= 0
    assert one["losses"] != other["losses"]
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())


def drawn(region: list[float], person: list[float], size: tuple[int, int], wrap: bool) -> Tensor:
    """One region's labels: a picture of zeros and ones, sliced and resized."""
    x1, y1, x2, y2 = region
    picture = torch.zeros(math.ceil(y2 - y1), math.ceil(x2 - x1))
    top, left = math.floor(max(y1, person[1]) - y1), math.floor(max(x1, person[0]) - x1)
    bottom, right = math.ceil(min(y2, person[3]) - y1) + 1, math.ceil(min(x2, person[2]) - x1) + 1
    if not wrap:
        bottom, right = max(bottom, 0), max(right, 0)
    picture[top:bottom, left:right] = 1
    return F.interpolate(picture[None, None], size, mode="bilinear", align_corners=False)[0, 0]


quarters = st.integers(0, 160).map(lambda number: number / 4)  # exact in floating point, so that floors agree
sides = st.integers(1, 160).map(lambda number: number / 4)
boxes = st.tuples(quarters, quarters, sides, sides).map(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]])


@settings(max_examples=80)
@given(pairs=st.lists(st.tuples(boxes, boxes), min_size=1, max_size=4), size=st.sampled_from([(7, 7), (4, 3)]))
def test_pixels_of_people_as_the_original_draws_them(
    pairs: list[tuple[list[float], list[float]]], size: tuple[int, int]
) -> None:
    regions, people = (torch.tensor([pair[part] for pair in pairs]) for part in (0, 1))
    for wrap in (True, False):
        expected = torch.stack([drawn(region, person, size, wrap) for region, person in pairs])
        torch.testing.assert_close(person_pixels(regions, people, size, wrap=wrap), expected, rtol=0, atol=1e-4)


def test_where_region_and_person_overlap_both_ways_of_drawing_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    regions = torch.rand(200, 4, generator=generator).cumsum(1) * 50
    people = regions + torch.randn(200, 4, generator=generator)
    overlapping = box_iou(regions, people).diagonal() > 0
    assert overlapping.sum() > 100
    regions, people = regions[overlapping], people[overlapping]
    original, plain = (person_pixels(regions, people, (7, 7), wrap=wrap) for wrap in (True, False))
    torch.testing.assert_close(original, plain)
    assert original.amax(dim=(1, 2)).min() > 0


def test_a_person_elsewhere_is_nobody_here_unless_slices_wrap() -> None:
    """Half of the region wraps, because the end is 30 pixels before its start, and the region is 60 long."""
    region, person = torch.tensor([[100.0, 0, 160, 60]]), torch.tensor([[20.0, 0, 69, 60]])
    assert not person_pixels(region, person, (6, 6), wrap=False).any()
    assert torch.equal(person_pixels(region, person, (6, 6), wrap=True)[0], torch.tensor([1.0] * 3 + [0.0] * 3).expand(6, 6))
