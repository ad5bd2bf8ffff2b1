"""The report lists every tensor of both sides exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pretrainps.errors import StateDictMismatchError
from pretrainps.weights import compare, require_complete


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))


KEYS = list(model().state_dict())


@settings(max_examples=100, deadline=None)
@given(
    kept=st.sets(st.sampled_from(KEYS)),
    reshaped=st.sets(st.sampled_from(KEYS)),
    added=st.sets(st.text("abc.", min_size=1, max_size=5)),
    excused=st.sets(st.sampled_from(KEYS)),
)
def test_every_tensor_is_in_exactly_one_list(kept: set[str], reshaped: set[str], added: set[str], excused: set[str]) -> None:
    state = model().state_dict()
    found = {k: torch.zeros(7, 7) if k in reshaped else v for k, v in state.items() if k in kept}
    found |= {k: torch.zeros(1) for k in added}
    report = compare(model(), found, name="m", expected_missing=excused)
    shapes = [key for key, _, _ in report.wrong_shape]
    assert sorted([*report.matched, *report.missing, *report.expected_missing, *shapes]) == sorted(state)
    assert sorted([*report.matched, *report.unexpected, *shapes]) == sorted(found)
    assert report.ok == (report.parameters_loaded > 0 and not report.missing and not report.unexpected and not shapes)
    learned = dict(model().named_parameters())
    assert report.parameters_loaded == sum(learned[k].numel() for k in report.matched if k in learned)
    assert (report.share == 1) == all(k in report.matched for k in learned)


def test_99_point_99_percent_is_not_rounded_up() -> None:
    big = nn.Linear(1000, 1000)
    found = {"weight": big.weight, "bias": torch.zeros(3)}
    report = compare(big, found, name="m")
    assert "100 %" not in str(report) and "99.9 %" in str(report)


@pytest.mark.parametrize("prefix", ["zz.", "module.", "module.backbone."])
def test_a_prefix_on_every_key_is_recognized(prefix: str) -> None:
    found = {prefix + k: v for k, v in model().state_dict().items()}
    report = compare(model(), found, name="m")
    with pytest.raises(StateDictMismatchError, match=f"prefix '{prefix}'") as caught:
        require_complete(report, "file")
    assert caught.value.report is report


def test_a_classifier_on_top_is_recognized() -> None:
    found = {**model().state_dict(), "classifier.weight": torch.zeros(751, 2), "classifier.bias": torch.zeros(751)}
    with pytest.raises(StateDictMismatchError, match=r"classifier\.weight"):
        require_complete(compare(model(), found, name="m"), "file")


def test_message_shows_both_shapes() -> None:
    found = {**model().state_dict(), "0.weight": torch.zeros(4, 3, 3, 3)}
    with pytest.raises(StateDictMismatchError, match=r"0\.weight is \[4, 3, 3, 3\] in the file and \[4, 3, 1, 1\]"):
        require_complete(compare(model(), found, name="m"), str(Path("file")))
