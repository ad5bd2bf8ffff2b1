"""What was pre-trained is what a detector starts with, tensor by tensor; and what is saved loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pretrainps
from pretrainps.backbones import Backbone
from pretrainps.detectors import DETECTORS
from pretrainps.errors import ArgumentError, IntegrityError, StateDictMismatchError, WeightsUnavailableError
from pretrainps.registry.specs import Licence, Provenance
from pretrainps.training.finetuning.from_pretraining import start_detector
from pretrainps.training.pretraining.save import HEADS, save_backbone
from tests.support.detectors import KINDS
from tests.training.hybrids import TINY, batch, hybrid, scenes, total

STAGES = {"oim": 1, "nae": 1, "nae+": 1, "seqnet": 2}
SMALL: dict[str, Any] = {"min_size": 64, "max_size": 96, "queue_size": 4}


def trained(kind: str = "none", **settings: Any) -> Any:
    """A model whose batch norms have seen something."""
    model = hybrid(kind, **settings)
    detection, reid = batch()
    model(detection, reid if model.identity is not None else {})
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_heads", [True, False])
def test_a_detector_starts_with_the_same_tensors(kind: str, with_heads: bool) -> None:
    model = trained()
    detector = start_detector(kind, model, num_identities=3, with_heads=with_heads, config=SMALL)
    state, report = detector.state_dict(), detector.load_report
    wanted = {f"backbone.{key}": value for key, value in model.backbone.state_dict().items()}
    for stage in ("box_stage", "reid_stage")[: STAGES[kind]]:
        wanted |= {f"{stage}.stage.{key}": value for key, value in model.box_stage.stage.state_dict().items()}
    if with_heads:
        wanted |= {key: value for key, value in model.detection_state().items() if key.startswith("rpn.")}
        place = {"oim": "box_head", "seqnet": "proposal_head"}.get(kind)
        wanted |= {
            key.replace("box_head", str(place)): value
            for key, value in model.detection_state().items()
            if place and key.startswith("box_head.")
        }
        wanted |= model.embedding_state()
    for key, value in wanted.items():
        assert torch.equal(state[key].flatten(), value.flatten()), key
    assert set(report.matched) == set(wanted) and set(report.matched) | set(report.new) == set(state)
    assert ("box_head.cls_score.weight" in report.ignored) == (not with_heads or kind in ("nae", "nae+"))
    assert report.ok and "freshly initialized" in str(report)
    assert ("heads from the same pre-training" in detector.spec.provenance.note) == with_heads
    if kind == "seqnet" and with_heads:
        images, targets = scenes(2)
        total(detector(images, [{"boxes": each["boxes"], "ids": torch.tensor([1])} for each in targets])).backward()


def test_the_detector_is_a_copy() -> None:
    model = trained()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    detector = start_detector("oim", model, num_identities=3, with_heads=True, config=SMALL)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["none", "domain_norm"])
def test_a_saved_folder_gives_backbone_and_detector_back(kind: str, tmp_path: Path) -> None:
    model = trained(kind).eval()
    folder = save_backbone(model, tmp_path / "hybrid", title="A trial", licence=Licence(id="mit", stated_in="the test"))
    loaded = pretrainps.load(f"file:{folder}")
    assert isinstance(loaded, Backbone) and loaded.load_report.ok
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels)["c5"], model.box_stage.stage.last_stage(model.backbone.trunk(pixels)))
    assert (loaded.spec.title, loaded.spec.licence.id, loaded.spec.input) == ("A trial", "mit", model.convention)
    told = loaded.spec.provenance.note
    assert all(word in told for word in ("street, yard", "hall, city", "oim", f"alignment: {kind}", "Started at random"))
    straight = start_detector("seqnet", model, num_identities=3, with_heads=True, config=SMALL).state_dict()
    again = start_detector("seqnet", folder, num_identities=3, with_heads=True, config=SMALL)
    assert all(torch.equal(straight[key], again.state_dict()[key]) for key in again.load_report.matched)
    assert again.config.anchor_sizes == model.settings.detector.anchor_sizes and again.config.region_size == 4


def test_provenance_is_kept_and_added_to(tmp_path: Path) -> None:
    told = Provenance(authors="Ada", paper="none", url="https://example.org", note="For a test.")
    folder = save_backbone(trained(reid_sets={}), tmp_path, provenance=told)
    found = pretrainps.info(f"file:{folder}").provenance
    assert (found.authors, found.url) == ("Ada", "https://example.org")
    assert found.note.startswith("For a test. Started at random, then trained by pretrainps on detection (street, yard), ")


def test_a_hybrid_goes_on_from_its_origin(tmp_path: Path) -> None:
    folder = save_backbone(trained(), tmp_path, title="First", licence=Licence(id="mit", stated_in="the test"))
    loaded = pretrainps.load(f"file:{folder}")
    assert isinstance(loaded, Backbone)
    from pretrainps.training.pretraining.model import HybridModel, HybridSettings

    second = HybridModel(loaded, HybridSettings(detection_sets=("yard",)))
    assert second.convention == loaded.spec.input
    note = start_detector("nae", second, num_identities=2, with_heads=False).spec.provenance.note
    assert "Started from First, then trained" in note


def test_heads_need_the_settings_they_were_trained_with() -> None:
    model = trained()
    for config in ({"anchor_sizes": [8, 16]}, DETECTORS["nae"].config(num_identities=3)):
        with pytest.raises(ArgumentError, match=r"NAEConfig\.(anchor_sizes|embedding_dim).*with_heads=False"):
            start_detector("nae", model, num_identities=3, with_heads=True, config=config)
        start_detector("nae", model, num_identities=3, with_heads=False, config=config)


def test_naeplus_pools_as_it_likes() -> None:
    """Its pooling is for its own box head: the embedding of a pre-training reads cells, not what is pooled."""
    model = trained(detector={"pooling": "max"})
    wanted = DETECTORS["nae+"].config(**{**TINY, "num_identities": 3, "pooling": "average"})
    for config in (wanted, {}):
        detector = start_detector("nae+", model, num_identities=3, with_heads=True, config=config)
        assert detector.config.pooling == "average"
    with pytest.raises(ArgumentError, match="pooling is average"):
        start_detector("nae", model, num_identities=3, with_heads=True, config={"pooling": "average"})


def test_heads_that_lack_a_tensor_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    whole = model.detection_state()
    monkeypatch.setattr(
        model, "detection_state", lambda: {key: value for key, value in whole.items() if "bbox_pred" not in key}
    )
    with pytest.raises(StateDictMismatchError, match=r"rpn\.head\.bbox_pred"):
        start_detector("oim", model, num_identities=3, with_heads=True, config=SMALL)


def test_a_folder_without_its_heads_is_refused(tmp_path: Path) -> None:
    one, other = save_backbone(trained(), tmp_path / "a"), save_backbone(trained("domain_norm"), tmp_path / "b")
    (one / HEADS).write_bytes((other / HEADS).read_bytes())
    with pytest.raises(IntegrityError, match="not of the same pre-training"):
        start_detector("oim", one, num_identities=3, with_heads=True)
    (one / HEADS).unlink()
    with pytest.raises(WeightsUnavailableError, match=r"has no heads\.safetensors"):
        start_detector("oim", one, num_identities=3, with_heads=True)


def test_the_backbone_alone_costs_a_run_no_random_numbers() -> None:
    model = trained()
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    model.plain_backbone()
    assert torch.equal(torch.rand(1), wanted)
