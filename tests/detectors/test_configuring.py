"""A built detector under other settings is the detector that would have been built with them, in every way to set them."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.detectors import NAEPlusConfig, PersonSearchDetector, assemble
from pretrainps.detectors.registry import detector_entry
from pretrainps.errors import ArgumentError
from pretrainps.gallery.model_match import fingerprint
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, SMALL, TINY, lively_detector, scenes

Detector = PersonSearchDetector[Any]
SETTINGS = {**SMALL, **TINY, "rpn_proposals": 16, "score_threshold": 0.05}
BOXES = [torch.tensor([[10.0, 10, 40, 90]]), torch.tensor([[20.0, 20, 60, 100]])]
DETECTING: list[dict[str, Any]] = [
    {"score_threshold": 0.6},
    {"max_detections": 1},
    {"min_size": 96, "max_size": 130},
    {"nms_iou": 0.05},
    {"rpn_proposals": 3, "rpn_nms_iou": 0.3},
    {"region_size": 6, "region_sampling": 1},
    {"pooling": "average"},
    {"score_weighting": True},
]
TRAINING: list[dict[str, Any]] = [
    {"region_samples": 4, "region_positive_fraction": 0.25},
    {"rpn_samples": 8, "rpn_positive_fraction": 0.2},
    {"rpn_positive_iou": 0.4, "rpn_negative_iou": 0.2},
    {"region_positive_iou": 0.3, "region_negative_iou": 0.1},
    {"rpn_box_loss": "smooth_l1"},
    {"oim_scalar": 10.0, "oim_momentum": 0.9},
    {"weight_box_reg": 3.0},
    {"rpn_candidates_train": 20, "rpn_proposals_train": 4},
]


@cache
def detector(kind: str) -> Detector:
    """To look at only."""
    return lively_detector(kind, "resnet_tiny", **SETTINGS)


def built(kind: str, changes: dict[str, Any]) -> Detector:
    """The same weights in a detector that was built with the settings."""
    torch.manual_seed(5)
    model = assemble(kind, build_backbone("resnet_tiny"), {**SETTINGS, **changes}, ASSUMED_INPUT)
    model.load_state_dict(detector(kind).state_dict())
    return model.eval()


def answers(model: Detector) -> list[Tensor]:
    images, _ = scenes()
    found = model(images)
    assert isinstance(found, list)
    everything = [*found, *model.query_as_gallery(images, BOXES)]
    return [each[name] for each in everything for name in ("boxes", "scores", "embeddings")] + model.embed(images, BOXES)


def losses(model: Detector) -> list[Tensor]:
    torch.manual_seed(3)
    with torch.no_grad():
        found = copy.deepcopy(model).train()(*scenes())
    assert isinstance(found, dict)
    return list(found.values())


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_set_is_as_building(kind: str) -> None:
    """Detections, queries and query images: a copy, the model itself and back again, and its optimized copy."""
    model = copy.deepcopy(detector(kind))
    before, config = answers(model), model.config
    for place, changes in enumerate(DETECTING):
        wanted = built(kind, changes)
        other = model.configured(**changes)
        assert other.detector_spec() == wanted.detector_spec()
        if place % 2:
            assert_same(answers(other), answers(wanted))
        else:
            model.config = replace(model.config, **changes)
            assert_same(answers(model), answers(wanted))
            model.config = config
    assert_same(answers(model), before)
    assert {id(each) for each in other.parameters()} == {id(each) for each in model.parameters()}
    fast = model.optimize_for_inference()
    for changes in DETECTING[:3]:
        quick, wanted = answers(fast.configured(**changes)), answers(model.configured(**changes).optimize_for_inference())
        assert_same(quick, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_training_take_effect(kind: str) -> None:
    model = detector(kind)
    for changes in TRAINING:
        assert_same(losses(model.configured(**changes)), losses(built(kind, changes)))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_a_call(kind: str) -> None:
    """They hold for this call, of the optimized copy too, and leave the model as it was."""
    images, _ = scenes()
    model = copy.deepcopy(detector(kind))
    before, modes = answers(model), [module.training for module in model.modules()]
    for changes in DETECTING[:3]:
        for each in (model, model.optimize_for_inference()):
            other = each.configured(**changes)
            found, wanted = each(images, **changes), other(images)
            pairs = [*zip(found, wanted, strict=True)]
            pairs += zip(each.query_as_gallery(images, BOXES, **changes), other.query_as_gallery(images, BOXES), strict=True)
            for one, another in pairs:
                assert_same(list(one.values()), list(another.values()))
    sizes = DETECTING[2]
    assert_same(model.embed(images, BOXES, **sizes), model.configured(**sizes).embed(images, BOXES))
    assert_same(answers(model), before)
    assert [module.training for module in model.modules()] == modes
    for changes, message in (
        ({"score_threshold": 2.0}, "score_threshold must be in 0..1"),
        ({"max_detections": 0}, "max_detections"),
        ({"min_size": 500}, r"min_size must be at most max_size \(64\)"),
    ):
        with pytest.raises(ArgumentError, match=message):
            model(images, **changes)
    with pytest.raises(ArgumentError, match="set the model's config"):
        model.train()(*scenes(), score_threshold=0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_treshold": 0.2}, "no field 'score_treshold'. Did you mean 'score_threshold'?"),
        ({"maxdetections": 5}, "Did you mean 'max_detections'?"),
        ({"zzz": 5}, "no field 'zzz'. There are: num_identities"),
        ({"score_threshold": "high"}, "score_threshold: expected float"),
        ({"score_threshold": 1.2}, "score_threshold must be in 0..1"),
        ({"min_size": 80.5}, "min_size: expected int"),
        ({"max_size": 32}, "min_size must be at most max_size"),
        ({"max_detections": None}, "max_detections: expected int, found nothing"),
        ({"num_identities": 7}, "num_identities belongs to the weights, which were made with 4: 7 needs a new detector"),
        ({"queue_size": 7}, "queue_size belongs to the weights"),
        ({"embedding_dim": 128}, "embedding_dim belongs to the weights"),
        ({"anchor_sizes": [32, 64]}, "anchor_sizes belongs to the weights"),
        ({"anchor_ratios": [1.0]}, "anchor_ratios belongs to the weights"),
    ],
)
def test_what_cannot_be_set(changes: dict[str, Any], message: str) -> None:
    model = detector("seqnet")
    before = model.config
    with pytest.raises(ArgumentError) as caught:
        model.configured(**changes)
    assert message in str(caught.value)
    with pytest.raises(ArgumentError, match="belongs to the weights"):
        model.config = replace(before, num_identities=9)
    for other in (NAEPlusConfig(num_identities=4), {"score_threshold": 0.2}, None):
        with pytest.raises(ArgumentError, match="config must be a SeqNetConfig"):
            model.config = other
    assert model.config is before


def test_naes_fused_map_belongs_to_its_weights() -> None:
    with pytest.raises(ArgumentError, match="fuse_c4 belongs to the weights"):
        detector("nae+").configured(fuse_c4=False)
    assert detector("nae+").configured(fuse_c4=True, num_identities=4).config == detector("nae+").config


def test_freezing_follows_and_is_left_alone_otherwise() -> None:
    model = copy.deepcopy(detector("seqnet")).train()
    stem = [each for name, each in model.named_parameters() if name.startswith("backbone.conv1")]
    assert stem and not any(each.requires_grad for each in stem)
    model.config = replace(model.config, freeze_stem=False, batch_norm="frozen")
    assert all(each.requires_grad for each in stem)
    halves = (model.backbone, model.get_submodule("box_stage"), model.get_submodule("reid_stage"))
    norms = [module for half in halves for module in half.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training or norm.weight.requires_grad for norm in norms)
    model.requires_grad_(False)
    model.config = replace(model.config, score_threshold=0.7)
    assert not any(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize("changes", [{"score_threshold": 0.25}, {"min_size": 80, "max_size": 120}, {"max_detections": 7}])
def test_what_is_saved_behaves_as_what_was_measured(tmp_path: Path, changes: dict[str, Any]) -> None:
    """And what is loaded with settings is what is set later; a gallery tells them apart."""
    model = pretrainps.build_detector("seqnet", backbone=build_backbone("resnet_tiny"), config=SETTINGS)
    model.load_state_dict(detector("seqnet").state_dict())
    model.eval()
    plain = fingerprint(model)
    saved = f"file:{pretrainps.save_pretrained(model, tmp_path / 'plain')}"
    model.config = model.config.changed(changes)
    assert model.spec.detector == model.detector_spec()
    again = pretrainps.load(f"file:{pretrainps.save_pretrained(model, tmp_path / 'set')}")
    loaded = pretrainps.load(saved, config=changes)
    assert isinstance(again, PersonSearchDetector) and isinstance(loaded, PersonSearchDetector)
    assert again.config == loaded.config == model.config
    assert_same(answers(again), answers(model))
    assert_same(answers(loaded), answers(model))
    assert fingerprint(model) == fingerprint(again) == fingerprint(loaded) != plain, "not the one that was remembered"


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("seqnet-tiny-synthetic", {"score_treshold": 0.2}, "Did you mean 'score_threshold'"),
        ("seqnet-tiny-synthetic", {"embedding_dim": 64}, "embedding_dim belongs to the weights"),
        ("seqnet-tiny-synthetic", 0.3, "expected a mapping"),
        ("tiny-hybrid-synthetic", {"score_threshold": 0.2}, "is no detector"),
    ],
)
def test_settings_that_a_file_cannot_have(name: str, config: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        pretrainps.load(name, config=config)
    assert pretrainps.load(name, config={}, progress=False).spec.name == name


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_of_the_weights_or_can_be_set(kind: str) -> None:
    """A field that is added later must be in one of the two ways."""
    model = detector(kind)
    config = detector_entry(kind).config
    names = {each.name for each in fields(config)}
    for name in names:
        assert model.config.changed({name: getattr(model.config, name)}) == model.config
    assert config.in_weights < names


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: model.configured()])
def test_settings_of_a_copy_are_its_own(copied: Any) -> None:
    images, _ = scenes()
    model = detector("seqnet").configured()
    before = [result["boxes"] for result in model(images)]
    other = copied(model)
    other.config = replace(other.config, min_size=70, max_size=90, rpn_proposals=3, region_size=6, max_detections=1)
    torch.testing.assert_close([result["boxes"] for result in model(images)], before)
    wanted = built("seqnet", other.config.non_defaults())(images)
    torch.testing.assert_close([result["boxes"] for result in other(images)], [result["boxes"] for result in wanted])
    assert model.transform.min_size != other.transform.min_size
