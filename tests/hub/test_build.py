"""Detectors on any backbone: built by name or on a given backbone, saved, pushed and loaded again."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pretrainps
from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.detectors import DETECTORS, NAEConfig, OIMConfig, PersonSearchDetector
from pretrainps.registry import find_spec
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, small_detector
from tests.support.fakehub import FakeHub
from tests.support.weights import FILES, REPO, authors_file, authors_tensors

Detector = PersonSearchDetector[Any]
SMALL: dict[str, Any] = {
    "queue_size": 6,
    "min_size": 64,
    "max_size": 96,
    "anchor_sizes": (16, 32),
    "rpn_proposals": 10,
    "rpn_proposals_train": 12,
    "region_samples": 8,
    "region_size": 6,
    "score_threshold": 0.0,
}
NON_DEFAULT: dict[str, dict[str, Any]] = {
    "oim": {"pooling": "average", "score_weighting": True},
    "nae": {"rpn_box_loss": "smooth_l1", "embedding_dim": 33},
    "nae+": {"fuse_c4": False, "pixel_labels": "overlap", "focal": True},
    "seqnet": {"second_nms_iou": 0.25, "batch_norm": "frozen", "freeze_stem": False},
}
IMAGES = [torch.rand(3, 60, 90, generator=torch.Generator().manual_seed(0))]
BOX = torch.tensor([[5.0, 6, 30, 50]])


def build(kind: str, backbone: Any, **options: Any) -> Detector:
    torch.manual_seed(0)
    return pretrainps.build_detector(kind, backbone=backbone, num_identities=5, progress=False, **options)


@pytest.mark.parametrize(("kind", "name"), [("seqnet", "shufflenetv1-hybrid"), ("nae", "resnet18-hybrid")])
def test_by_registered_name(hub: FakeHub, kind: str, name: str) -> None:
    hub.add(REPO, {FILES[name]: authors_file(name)})
    model = build(kind, name, config=SMALL)
    assert type(model) is DETECTORS[kind].model and model.training
    theirs, ours = authors_tensors(name), model.backbone_state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], value) for key, value in theirs.items())
    if kind == "seqnet":
        first, second = model.box_stage.state_dict(), model.reid_stage.state_dict()  # type: ignore[union-attr, operator]
        assert all(torch.equal(second[key], value) for key, value in first.items())
        assert not {value.data_ptr() for value in first.values()} & {value.data_ptr() for value in second.values()}
    origin, spec = find_spec(name), model.spec
    assert (spec.name, spec.task, spec.arch) == (f"{kind}-{name}", "detector", origin.arch)
    assert spec.detector is not None and spec.detector.kind == kind
    assert spec.detector.config == {**SMALL, "anchor_sizes": [16, 32], "num_identities": 5}
    assert (spec.input, spec.licence, spec.sources) == (origin.input, origin.licence, origin.sources)
    assert origin.title in spec.provenance.note and "heads at random" in spec.provenance.note
    assert spec.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_backbone_at_hand(kind: str) -> None:
    """The given backbone does not change when the detector changes."""
    backbone = build_backbone("shufflenetv1")
    kept = copy.deepcopy(backbone.state_dict())
    model = build(kind, backbone, config=SMALL)
    assert all(torch.equal(model.backbone_state()[key], value) for key, value in kept.items())
    shared = {value.data_ptr() for value in backbone.state_dict().values()}
    assert not any(value.data_ptr() in shared for value in model.state_dict().values())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in kept.items())
    assert all(parameter.requires_grad for parameter in backbone.parameters()), "freezing is the detector's"
    assert model.spec.name == f"{kind}-shufflenetv1" and "Started at random" in model.spec.provenance.note
    assert model.spec.input == model.convention == ASSUMED_INPUT


def test_pixels_go_in_as_the_backbones_weights_say(hub: FakeHub) -> None:
    hub.add(REPO, {FILES["shufflenetv1-hybrid"]: authors_file("shufflenetv1-hybrid")})
    loaded = pretrainps.load("shufflenetv1-hybrid", progress=False)
    assert build("nae", loaded).convention == loaded.spec.input
    bgr = replace(ASSUMED_INPUT, colour="bgr")
    model = build("nae", loaded, convention=bgr)
    assert model.convention == model.spec.input == bgr


def test_where_the_number_of_identities_may_stand() -> None:
    backbone = build_backbone("shufflenetv1")
    ways: list[dict[str, Any]] = [
        {"num_identities": 7},
        {"config": {"num_identities": 7}},
        {"config": NAEConfig(num_identities=7)},
        {"num_identities": 7, "config": {"num_identities": 7, "queue_size": 3}},
        {"num_identities": 7, "config": NAEConfig(num_identities=7)},
    ]
    for way in ways:
        assert pretrainps.build_detector("nae", backbone=backbone, **way).oim_loss.lookup_table.shape == (7, 256)
    contradictions: list[dict[str, Any]] = [
        {},
        {"config": {"queue_size": 3}},
        {"num_identities": 7, "config": {"num_identities": 8}},
        {"num_identities": 7, "config": NAEConfig(num_identities=8)},
    ]
    for way in contradictions:
        with pytest.raises(errors.ArgumentError, match="num_identities"):
            pretrainps.build_detector("nae", backbone=backbone, **way)


def test_what_cannot_be_built(tmp_path: Path) -> None:
    backbone = build_backbone("shufflenetv1")
    with pytest.raises(errors.UnknownModelError, match="Did you mean 'seqnet'"):
        build("seqnett", backbone)
    with pytest.raises(errors.UnknownModelError, match="resnet50-hybrid"):
        build("nae", "resnet50-hybrd")
    with pytest.raises(errors.ArgumentError, match="takes a NAEConfig, not a OIMConfig"):
        build("nae", backbone, config=OIMConfig(num_identities=5))
    with pytest.raises(errors.ArgumentError, match="queue"):
        build("nae", backbone, config={"queue": 3})
    with pytest.raises(errors.UnsupportedModelError, match="Linear is no backbone"):
        build("nae", torch.nn.Linear(2, 2))
    folder = pretrainps.save_pretrained(build("nae", backbone, config=SMALL), tmp_path / "detector")
    with pytest.raises(errors.UnsupportedModelError, match="no bare backbone but a NAE"):
        build("nae", f"file:{folder}")


def trained(kind: str, backbone: Any) -> Detector:
    """Statistics, tables and cursor as after some training."""
    model = build(kind, backbone, config={**SMALL, **NON_DEFAULT[kind]})
    boxes = torch.cat([BOX, BOX + 20])
    model(IMAGES * 2, [{"boxes": boxes, "ids": torch.tensor(ids)} for ids in ([3, -1], [0, -1])])
    assert model.oim_loss.lookup_table.any() and int(model.oim_loss.cursor) > 0
    return model.eval()


def answers(model: Detector) -> list[Tensor]:
    (people,), (query,) = model.query_as_gallery(IMAGES, [BOX]), model.embed(IMAGES, [BOX])
    with torch.no_grad():
        (found,) = model(IMAGES)
    assert isinstance(found, dict) and len(found["boxes"]) > 1
    return [*found.values(), *people.values(), query]


def check_same(ours: Detector, theirs: Detector) -> None:
    assert type(ours) is type(theirs) and ours.config == theirs.config and ours.convention == theirs.convention
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in theirs.state_dict().items()), "tables and cursor too"
    # sums may round otherwise in mapped memory, so the copy that is asked lies in memory of its own
    for one, other in zip(answers(copy.deepcopy(ours)), answers(theirs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("kind", "arch"), [*((kind, "shufflenetv1") for kind in KINDS), ("nae", "timm:convnext_atto"), ("seqnet", "resnet18")]
)
def test_save_and_load_back(tmp_path: Path, kind: str, arch: str) -> None:
    model = trained(kind, build_backbone(arch))
    folder = pretrainps.save_pretrained(model, tmp_path / "saved")
    again = pretrainps.load(f"file:{folder}")
    assert isinstance(again, PersonSearchDetector) and not again.training
    assert again.load_report.share == 1 and not (again.load_report.new or again.load_report.expected_missing)
    check_same(again, model)
    assert again.spec.detector == model.detector_spec() and again.spec.arch == arch
    frozen = [{name for name, p in each.named_parameters() if not p.requires_grad} for each in (again, model)]
    assert frozen[0] == frozen[1]


def test_what_was_loaded_can_be_trained_on_and_saved_again(tmp_path: Path) -> None:
    folder = pretrainps.save_pretrained(trained("nae", build_backbone("shufflenetv1")), tmp_path / "saved")
    model = pretrainps.load(f"file:{folder}")
    assert isinstance(model, PersonSearchDetector)
    before, weights = int(model.oim_loss.cursor), (folder / "model.safetensors").read_bytes()
    model.train()(IMAGES, [{"boxes": BOX, "ids": torch.tensor([-1])}])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.99)
    assert int(model.oim_loss.cursor) != before and (folder / "model.safetensors").read_bytes() == weights
    again = pretrainps.load(f"file:{pretrainps.save_pretrained(model, tmp_path / 'more')}")
    check_same(again, model.eval())  # type: ignore[arg-type]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = trained("seqnet", build_backbone("shufflenetv1"))
    one, two = (pretrainps.save_pretrained(model, tmp_path / str(number) / "mine") for number in range(2))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own upload code
def test_push_and_load_back(hub: FakeHub) -> None:
    model = trained("nae+", build_backbone("shufflenetv1"))
    commit = pretrainps.push_to_hub(model, "me/mine", token="hf_x")
    for name in ("hf:me/mine", f"hf:me/mine@{commit}"):
        again = pretrainps.load(name, progress=False)
        assert isinstance(again, PersonSearchDetector)
        check_same(again, model)
    card = hub.commits["me/mine"][commit]["README.md"].decode()
    assert 'pretrainps.load("hf:me/mine")' in card


def test_a_detector_has_its_own_heads(tmp_path: Path) -> None:
    folder = pretrainps.save_pretrained(build("oim", build_backbone("shufflenetv1"), config=SMALL), tmp_path / "saved")
    for options in ({"head": "embedding"}, {"head": "classifier", "num_classes": 3}):
        with pytest.raises(
            errors.ArgumentError, match=r"is a detector \(oim\), which has its own heads; load it without head="
        ):
            pretrainps.load(f"file:{folder}", **options)  # type: ignore[arg-type]


def test_a_detector_needs_no_transform(tmp_path: Path) -> None:
    model = build("nae", build_backbone("shufflenetv1"), config=SMALL)
    folder = pretrainps.save_pretrained(model, tmp_path / "saved")
    for given in (model, f"file:{folder}", "seqnet-resnet50-cuhk"):
        with pytest.raises(errors.ArgumentError, match=r"resizes and normalizes inside.*to_tensor"):
            pretrainps.preprocess(given)


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    model = build("nae+", build_backbone("shufflenetv1"), config={**SMALL, "focal": True})
    folder = pretrainps.save_pretrained(model, tmp_path / "mine")
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: object-detection" in card and "- nae+\n" in card
    assert "# NAEPlus on shufflenetv1" in card and 'model = pretrainps.load("file:mine")' in card
    assert "- Detector: `nae+` with " in card and "focal = True" in card and "num_identities = 5" in card
    assert "people = model([image])" in card and "preprocess" not in card
    assert "resized and normalized inside the model" in card and str(tmp_path) not in card
    config = json.loads((folder / "config.json").read_text())["pretrainps"]["model"]
    assert config["task"] == "detector" and config["detector"]["kind"] == "nae+"
    assert config["detector"]["config"] == {**SMALL, "anchor_sizes": [16, 32], "num_identities": 5, "focal": True}
    assert str(tmp_path) not in json.dumps(config)


def test_a_detector_that_nobody_described_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="give spec="):
        pretrainps.save_pretrained(small_detector("nae", "shufflenetv1"), tmp_path / "saved")
