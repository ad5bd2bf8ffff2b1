"""A detector that starts from a trained one answers as that does, and knows other people."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.errors import ArgumentError, StateDictMismatchError
from pretrainps.training.finetuning.from_detector import continue_detector
from tests.support.detectors import SMALL, lively_detector


def detector_that_finds(kind: str) -> Any:
    model = pretrainps.build_detector(kind, backbone=build_backbone("shufflenetv1"), config={**SMALL, "score_threshold": 0.1})
    model.load_state_dict(lively_detector(kind, "shufflenetv1").state_dict())
    return model.eval()


@pytest.mark.parametrize("kind", ["nae", "seqnet"])
def test_all_but_the_tables_is_taken_over(kind: str) -> None:
    trained = detector_that_finds(kind)
    trained.oim_loss.lookup_table.fill_(0.5)
    detector: Any = continue_detector(trained, num_identities=7)
    state, before = detector.state_dict(), trained.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items() if not key.startswith("oim_loss."))
    assert detector.training and detector.oim_loss.lookup_table.shape == (7, 256) and not detector.oim_loss.lookup_table.any()
    assert detector.config.queue_size == trained.config.queue_size and detector.convention == trained.convention
    assert set(detector.load_report.new) == {key for key in state if key.startswith("oim_loss.")}
    assert "freshly initialized" in str(detector.load_report) and "new identity tables" in detector.spec.provenance.note
    image = torch.rand(3, 96, 128)
    wanted, found = trained([image])[0], detector.eval()([image])[0]
    assert len(wanted["boxes"])
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_the_same_people_stay_known() -> None:
    trained = detector_that_finds("nae")
    trained.oim_loss.lookup_table.fill_(0.5)
    again: Any = continue_detector(trained, num_identities=10, same_people=True, config={"min_size": 128})
    assert torch.equal(again.oim_loss.lookup_table, trained.oim_loss.lookup_table)
    assert again.config.min_size == 128 and not again.load_report.new
    with pytest.raises(StateDictMismatchError, match="lookup_table"):
        continue_detector(trained, num_identities=11, same_people=True)


def test_what_does_not_fit_is_refused() -> None:
    trained = detector_that_finds("nae")
    with pytest.raises(ArgumentError, match=r"is a NAE.*'seqnet'.*Take a recipe for 'nae'"):
        continue_detector(trained, kind="seqnet", num_identities=7)
    other = pretrainps.build_detector("nae", backbone=build_backbone("shufflenetv1"), config={**SMALL, "anchor_sizes": (8,)})
    with pytest.raises(StateDictMismatchError, match="rpn"):
        continue_detector(trained, num_identities=7, config=other.config.non_defaults())
