"""Hybrid learning: the detectors' own losses, regions to ignore, every parameter at every step; and that it learns."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from pretrainps.detectors.region import RegionConfig
from pretrainps.detectors.transform import SceneTransform
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.losses.identity import IdentitySettings
from pretrainps.losses.oim import OIMLoss
from pretrainps.synthetic import detection_split, reid_split
from pretrainps.training.finetuning.from_pretraining import start_detector
from pretrainps.training.pretraining.ignore_regions import SparingProposals, SparingSampler, covered_share
from pretrainps.training.pretraining.model import HybridModel, HybridSettings
from tests.support.ranks import run_on_two_ranks
from tests.training.hybrids import TINY, backbone, batch, crops, hybrid, scenes, total

DETECTION = ["loss_rpn_cls", "loss_rpn_reg", "loss_box_cls", "loss_box_reg"]
STEPS = 10
ALIGNED = ["loss_align_{}_image", "loss_align_{}_instance"]


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


@pytest.mark.parametrize(
    ("kind", "weights"), [("adversarial", "learned"), ("mmd", "fixed"), ("domain_norm", "learned"), ("none", "fixed")]
)
def test_every_parameter_learns_whatever_is_in_the_batch(kind: str, weights: Any) -> None:
    """The same names each time, finite, and a gradient for each parameter: so DDP waits for none."""
    model = hybrid(kind, weights=weights, identity=IdentitySettings(loss="cross_entropy", triplet="soft"))
    levels = [name.format("detection") for name in ALIGNED] if kind in ("adversarial", "mmd") else []
    names = [*DETECTION, *levels, "loss_identity", "loss_triplet", *(name.replace("detection", "reid") for name in levels)]
    detection, reid = batch()
    one = {"hall": crops([1])}
    partial = [({}, reid), ({"yard": detection["yard"]}, {"city": reid["city"]}), ({"street": detection["street"]}, one)]
    for step, given in enumerate([(detection, reid), *partial]):
        model.zero_grad()
        losses = model(*given)
        assert list(losses) == names == model.loss_names()
        assert all(math.isfinite(value) for value in values(losses).values())
        total(losses).backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
        moved = {name for name, parameter in model.named_parameters() if bool(parameter.grad.any())}  # type: ignore[union-attr]
        assert "backbone.conv1.conv.weight" in moved
        if step == 0:  # the shift of a norm that another norm follows has none
            unmoved = {name for name, _ in model.named_parameters()} - moved
            assert {name for name in unmoved if not name.endswith("bias")} <= {"detection.rpn.head.bbox_pred.weight"}


def test_detection_losses_are_those_of_the_oim_detector() -> None:
    """The same scenes, seeds and tensors give what the detector's own code gives."""
    model = hybrid(detection_sets=("street",), detector={"region_negative_iou": 0.1, "weight_box_reg": 10.0})
    detector = start_detector("oim", model, num_identities=3, with_heads=True, config=_fine(model))
    images, targets = scenes(2)
    targets = [{**target, "ignore": torch.zeros(0, 4)} for target in targets]
    torch.manual_seed(5)
    found = model({"street": (images, targets)})
    torch.manual_seed(5)
    wanted = detector(images, [{"boxes": target["boxes"], "ids": torch.tensor([-1])} for target in targets])
    for name in DETECTION:
        torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0)
    assert float(found["loss_rpn_reg"].detach()) > 0 and float(found["loss_box_reg"].detach()) > 0


def _fine(model: HybridModel) -> dict[str, Any]:
    """The hybrid's settings as an OIM detector's."""
    return {key: value for key, value in model.settings.detector.non_defaults().items() if key != "num_identities"} | {
        "region_negative_iou": 0.1
    }


def test_coverage_is_the_share_of_the_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 40], [100, 100, 101, 101]])
    regions = torch.tensor([[5.0, 0, 50, 10], [0, 0, 10, 2], [0, 30, 100, 100]])
    torch.testing.assert_close(covered_share(boxes, regions), torch.tensor([0.5, 0.5, 0.0]))
    assert covered_share(boxes, regions[:0]).tolist() == [0.0, 0.0, 0.0]


def test_regions_to_ignore_are_never_background() -> None:
    """Neither anchors nor proposals inside them; and with none of them, everything is as it was."""
    config = RegionConfig(**TINY)
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(400, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + 4 + torch.rand(400, 2, generator=generator) * 40], dim=1)
    people, ignore = torch.tensor([[10.0, 10, 30, 60]]), torch.tensor([[40.0, 0, 90, 120], [0, 90, 120, 120]])
    target = {"boxes": people, "ids": torch.tensor([-1]), "ignore": ignore}
    spared = covered_share(boxes, ignore) >= 0.5
    assert 50 < int(spared.sum()) < 350
    sampler = SparingSampler(config, 0.5)
    (sampled,) = sampler([boxes], [target]).boxes
    background = sampled[(box_iou(people, sampled)[0] < 0.5)]
    assert len(background) > 0 and float(covered_share(background, ignore).max()) < 0.5
    labels = SparingProposals(8, config, 0.5).assign_targets_to_anchors([boxes], [target])[0][0]
    plain = SparingProposals(8, config, 0.5).assign_targets_to_anchors([boxes], [{**target, "ignore": ignore[:0]}])[0][0]
    assert bool((labels[spared & (plain == 0)] == -1).all()) and int((spared & (plain == 0)).sum()) > 20
    assert torch.equal(labels[~spared | (plain != 0)], plain[~spared | (plain != 0)])
    inside = {"boxes": torch.tensor([[50.0, 10, 70, 60]]), "ids": torch.tensor([-1]), "ignore": ignore}
    assert int((sampler([boxes], [inside]).labels == 1).sum()) > 0  # a person inside such a region is a person


def test_regions_to_ignore_are_scaled_with_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hybrid()
    assert model.detection is not None
    seen: list[dict[str, Tensor]] = []
    propose = model.detection.rpn.propose

    def spy(images: Any, features: Any, targets: Any) -> Any:
        seen.extend(targets)
        return propose(images, features, targets)

    monkeypatch.setattr(model.detection.rpn, "propose", spy)
    model(
        {
            "street": (
                [torch.rand(3, 128, 160)],
                [{"boxes": torch.tensor([[8.0, 8, 28, 56]]), "ignore": torch.tensor([[120.0, 0, 160, 128]])}],
            )
        }
    )
    torch.testing.assert_close(seen[0]["ignore"], torch.tensor([[60.0, 0, 80, 64]]))
    torch.testing.assert_close(seen[0]["boxes"], torch.tensor([[4.0, 4, 14, 28]]))


def test_a_scene_with_nothing_but_ignored_regions_costs_nothing() -> None:
    model = hybrid(reid_sets={})
    everything = {"boxes": torch.zeros(0, 4), "ignore": torch.tensor([[-500.0, -500, 900, 900]])}
    losses = model({name: ([torch.rand(3, 64, 80)], [everything]) for name in ("street", "yard")})
    total(losses).backward()
    assert set(values(losses).values()) == {0.0}
    assert all(parameter.grad is not None for parameter in model.parameters()), "processes wait for each other's gradients"


@pytest.mark.parametrize("features", ["roi", "map"])
def test_crops_are_read_as_a_detector_reads_a_person_who_fills_the_scene(features: Any) -> None:
    model = hybrid(crop_features=features, detection_sets=()).eval()
    pictures = crops([0, 1], seed=4)[0]
    detector = start_detector("oim", model, num_identities=3, with_heads=True, config=_fine(model)).eval()
    whole = [torch.tensor([[0.0, 0, 32, 64]])] * 2
    detector.transform = SceneTransform(detector.convention, 32, 64)  # crops as they are
    same = torch.allclose(torch.cat(detector.embed(list(pictures), whole)), model.embed(pictures), atol=1e-5)
    assert same == (features == "roi")
    torch.testing.assert_close(model.embed(pictures).norm(dim=1), torch.ones(2))


def test_one_sub_task_alone_has_only_what_it_needs() -> None:
    detection, reid = batch()
    only_scenes, only_crops = hybrid(reid_sets={}), hybrid(detection_sets=())
    assert list(only_scenes(detection)) == DETECTION and list(only_crops(None, reid)) == ["loss_identity"]
    assert only_scenes.identity is None and only_crops.detection is None
    assert not only_scenes.embedding_state() and not only_crops.detection_state()
    with pytest.raises(ArgumentError, match="Re-ID data sets: none"):
        only_scenes.eval().embed(reid["hall"][0])


def test_eval_mode_changes_nothing_in_the_model() -> None:
    model = hybrid("adversarial").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert list(model(*batch())) == model.loss_names()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_gradient_checkpointing_gives_the_same() -> None:
    plain, saving = hybrid("mmd"), hybrid("mmd").enable_gradient_checkpointing()
    for model in (plain, saving):
        torch.manual_seed(3)
        total(model(*batch())).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, before), after in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(before, after, msg=name)
    with pytest.raises(ArgumentError, match="domain_norm"):
        hybrid("domain_norm").enable_gradient_checkpointing()


@pytest.mark.parametrize(
    ("loss", "triplet", "kind"), [("oim", "none", "adversarial"), ("cross_entropy", "soft", "domain_norm")]
)
def test_two_scenes_and_eight_crops_are_soon_known_by_heart(loss: Any, triplet: Any, kind: str) -> None:
    places, markets = ("det_street", "det_yard"), ("reid_market", "reid_hall")
    model = hybrid(
        kind,
        crop_features="roi",  # scenes are drawn anew every time
        detection_sets=places,
        reid_sets=dict.fromkeys(markets, 2),
        detector={"min_size": 96, "max_size": 128, "anchor_sizes": (8, 16, 32, 64), "weight_box_reg": 1.0},
        identity=IdentitySettings(loss=loss, triplet=triplet),
    )
    detection, reid = {}, {}
    for place in places:
        sample = detection_split(place, 1).samples[0]
        target = {"boxes": torch.from_numpy(sample.boxes), "ignore": torch.from_numpy(sample.ignore)}
        detection[place] = ([_pixels(sample.image)], [target])
    for place in markets:
        samples = reid_split(place, range(2), cameras_per_identity=2, shots=1, size=(64, 32)).samples
        ids = torch.tensor([int(sample.ids[0]) for sample in samples])
        reid[place] = (torch.stack([_pixels(sample.image) for sample in samples]), ids, torch.zeros(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    history = []
    for _ in range(STEPS):
        losses = model(detection, reid)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        history.append(values(losses))
    identity = [name for name in ("loss_identity", "loss_triplet") if name in history[0]]
    for names, most in ((["loss_rpn_cls"], 0.4), (DETECTION, 0.7), (identity, 0.5)):
        start, end = (np.mean([sum(each[name] for name in names) for each in part]) for part in (history[:2], history[-4:]))
        assert end < most * start, (names, history)


def _pixels(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reid_sets": {"hall": 1}}, "'hall' has 1 identities.*at least 2"),
        ({"detection_sets": ("a", "a")}, "twice"),
        ({"crop_features": "pool"}, "crop_features"),
        ({"ignored_from": 0.0}, "ignored_from"),
        ({"weights": "free"}, "weights"),
        ({"weight_identity": -1.0}, "weight_identity"),
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        HybridSettings(**{"detection_sets": ("a",), **wrong})


def test_a_model_without_any_data_set_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no data set"):
        hybrid(detection_sets=(), reid_sets={})


def test_a_backbone_without_a_last_stage_is_refused() -> None:
    trunk = copy.copy(backbone())
    trunk.segments = {name: paths for name, paths in trunk.segments.items() if name != "c5"}
    with pytest.raises(UnsupportedModelError, match="resnet18 has no c5"):
        HybridModel(trunk, HybridSettings(detection_sets=("street",)))


@pytest.mark.parametrize(
    ("detection", "reid", "message"),
    [
        ({}, {}, "without any scene or crop"),
        ({"stret": scenes()}, {}, "'stret'.*Did you mean 'street'"),
        (
            {"street": ([torch.rand(3, 64, 80)], [{"boxes": torch.tensor([[5.0, 5, 5, 9]])}])},
            {},
            "'street': image 0: boxes: row 0",
        ),
        ({"street": ([torch.rand(3, 64, 80)], [{}])}, {}, "'street': image 0.*boxes"),
        ({"street": ([torch.rand(3, 64, 80)], [])}, {}, "'street': targets"),
        ({}, {"hall": crops([0, 3])}, "'hall': id 3; expected 0 .. 2"),
        ({}, {"hall": (torch.rand(2, 64, 32), torch.tensor([0, 1]), None)}, "'hall': expected float crops"),
        ({}, {"hall": (torch.rand(2, 3, 64, 32), torch.tensor([0]), None)}, "'hall'.*ids"),
        ({"street": ([torch.rand(3, 64, 80) * 255], [{}])}, {}, "'street': image 0 holds .*Divide by 255"),
        ({}, {"hall": (torch.rand(2, 3, 64, 32) * 255, torch.tensor([0, 1]), None)}, "'hall': a batch of crops holds .*by 255"),
        ({}, {"hall": (torch.rand(2, 3, 64, 32) - 1, torch.tensor([0, 1]), None)}, "'hall': a batch of crops holds .*in 0..1"),
        ({}, {"hall": (torch.full((2, 3, 64, 32), torch.nan), torch.tensor([0, 1]), None)}, "'hall': .*not finite"),
        ({}, {"hall": crops([0, 1]), "city": (torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), None)}, "differ in size"),
    ],
)
def test_impossible_batches_are_named(detection: Any, reid: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hybrid()(detection, reid)


def test_two_processes_agree_though_one_lacks_a_data_set(tmp_path: Path) -> None:
    """Each step gives both the same parameters and tables, without find_unused_parameters."""
    program = """
from torch.nn.parallel import DistributedDataParallel
from tests.training.hybrids import batch, crops, hybrid, scenes, total

model = hybrid("adversarial", detector={"batch_norm": "frozen"})
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
detection, reid = batch()
second = ({"street": scenes()}, {}) if rank else (detection, reid)
for given in [(detection, reid), second, (detection, {"hall": crops([rank, 2])})]:
    optimizer.zero_grad()
    total(parallel(*given)).backward()
    optimizer.step()
result = {key: value for key, value in model.state_dict().items() if "embedding_head" not in key or "running" not in key}
"""
    one, other = run_on_two_ranks(program, tmp_path)
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], msg=key)
    table = one["identity.loss.losses.0.lookup_table"]
    assert bool(table.any(dim=1).all())  # 0 and 1 were seen by both in the first step, 2 in the third


def test_the_oim_tables_of_a_hybrid_are_small_enough_to_know() -> None:
    model = hybrid()
    assert model.identity is not None
    tables = [(len(each.lookup_table), len(each.queue)) for each in model.identity.loss.losses if isinstance(each, OIMLoss)]
    assert tables == [(3, 0), (4, 0)]
