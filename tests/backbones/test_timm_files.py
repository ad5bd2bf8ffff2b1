"""timm's files in older forms are converted by timm's own filters, and a real mismatch is still found."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from timm.models import _builder

import pretrainps
from pretrainps.backbones import Backbone, build_backbone, timm_files
from pretrainps.backbones.timm_files import TimmFiles
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.errors import StateDictMismatchError
from pretrainps.registry.specs import FileFormat
from pretrainps.weights import LoadReport, compare, convert
from pretrainps.weights.read import Contents
from tests.support.weights import torch_bytes

SWIN = "swin_tiny_patch4_window7_224"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def backbone() -> Iterator[Backbone]:
    """One backbone, and one model of timm's for its filter, for all tests: both take seconds to make."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timm_files, "_model_and_filter", functools.cache(timm_files._model_and_filter))
        yield build_backbone(f"timm:{SWIN}")


@pytest.fixture(scope="module")
def swin() -> Tensors:
    return {key: torch.rand_like(value) for key, value in timm.create_model(SWIN).state_dict().items()}


def report_of(backbone: Backbone, file: Tensors) -> tuple[LoadReport, Tensors]:
    """The result of `load` for a file with these tensors, without writing it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules[convert.__module__], "read_contents", lambda *args, **kwargs: Contents(dict(file)))
        found = convert(
            Path("w"),
            FileFormat(layout="timm", ignored=backbone.dropped_keys),
            layout_of("timm", "timm"),
            adapter=backbone.adapter,
        )
    return compare(backbone, found.tensors, name="x", ignored=found.ignored, unprefixed=found.unprefixed), found.tensors


def authors_stages(state: Tensors) -> Tensors:
    return {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key).replace(
            "head.fc.", "head."
        ): value
        for key, value in state.items()
    }


def older_buffers(state: Tensors) -> Tensors:
    index = torch.zeros(49, 49, dtype=torch.int64)
    return {
        **state,
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        "layers.0.blocks.0.attn.relative_position_index": index,
    }


def loaded(tmp_path: Path, state: Tensors, name: str) -> Backbone:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(state))
    model = pretrainps.load(f"file:{path}", arch=f"timm:{name}")
    assert isinstance(model, Backbone)
    return model


@pytest.mark.parametrize("form", [dict, authors_stages, older_buffers, lambda state: older_buffers(authors_stages(state))])
def test_each_form_gives_the_same_and_each_tensor_is_accounted_for(
    backbone: Backbone, swin: Tensors, form: Callable[[Tensors], Tensors]
) -> None:
    file = form(swin)
    report, found = report_of(backbone, file)
    assert report.ok and all(torch.equal(found[key], swin[key]) for key in report.matched)
    assert len(report.matched) + len(report.ignored) == len(file) and set(report.ignored) <= set(file)


def without_one(state: Tensors) -> Tensors:
    del state["layers.1.blocks.0.norm1.weight"]
    return state


def of_another_window(state: Tensors) -> Tensors:
    """timm would resize it."""
    state["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.rand(529, 3)
    return state


def of_another_patch(state: Tensors) -> Tensors:
    """timm would resample it."""
    state["patch_embed.proj.weight"] = torch.rand(96, 3, 8, 8)
    return state


def with_one_more(state: Tensors) -> Tensors:
    return {**state, "layers.9.extra.weight": torch.ones(1)}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("change", [without_one, of_another_window, of_another_patch, with_one_more])
def test_a_real_mismatch_is_not_hidden(
    backbone: Backbone, swin: Tensors, change: Callable[[Tensors], Tensors], old: bool
) -> None:
    state = change(dict(swin))
    report, _ = report_of(backbone, older_buffers(authors_stages(state)) if old else state)
    assert not report.ok
    odd = (len(report.missing), len(report.unexpected), len(report.wrong_shape))
    assert odd == {without_one: (1, 0, 0), with_one_more: (0, 1, 0)}.get(change, (0, 0, 1))


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        (
            "convnext_atto",
            (
                (r"stem\.", "downsample_layers.0."),
                (r"stages\.(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2"),
                (r"\.blocks\.", "."),
                ("conv_dw", "dwconv"),
                (r"mlp\.fc", "pwconv"),
                (r"head\.fc\.", "head."),
                (r"head\.norm", "norm"),
            ),
        ),
        ("regnety_002", ()),
        ("resnet18", ()),
    ],
)
def test_other_models(tmp_path: Path, name: str, rules: tuple[tuple[str, str], ...]) -> None:
    state = timm.create_model(name).state_dict()
    file = {}
    for key, value in state.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        file[key] = value
    model = loaded(tmp_path, file, name)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert len(model.load_report.matched) + len(model.load_report.ignored) == len(file)


def test_a_filter_that_fails_leaves_the_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: Tensors, model: object) -> Tensors:
        raise KeyError("stages.0")

    monkeypatch.setattr("pretrainps.backbones.timm_files._model_and_filter", lambda name: (None, fail))
    state = timm.create_model("regnety_002").state_dict()
    with pytest.raises(StateDictMismatchError, match=r"UNEXPECTED.*other\.weight"):
        loaded(tmp_path, {**state, "other.weight": torch.ones(1)}, "regnety_002")


@pytest.mark.parametrize("make", [lambda state: {"w": state["a"] * 2}, lambda state: {"w": torch.zeros(2)}])
def test_what_a_filter_makes_up_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: object) -> None:
    """Numbers that are in no tensor of the file are none of its own; those computed from one keep their origin."""
    monkeypatch.setattr(
        "pretrainps.backbones.timm_files._model_and_filter", lambda name: (None, lambda state, model: make(state))
    )  # type: ignore[operator]
    adapted = TimmFiles("x", {"w": (2,)})({"a": torch.ones(2)}, ())
    assert adapted.sources in ({"w": ("a",)}, {})
    assert "w" not in adapted.tensors or adapted.tensors["w"].tolist() == [2, 2]


def test_timms_own_loading_is_left_as_it_was() -> None:
    before = _builder.load_pretrained
    adapter = build_backbone("timm:regnety_002").adapter
    assert adapter is not None
    adapter({"x": torch.ones(1)}, ())
    assert _builder.load_pretrained is before


def test_the_cached_conversion_follows_timms_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrainps.weights.convert import _fingerprint

    file, prints = FileFormat(layout="timm"), set()
    for version in ("1.0.15", "1.0.31"):
        monkeypatch.setattr(timm, "__version__", version)
        prints.add(_fingerprint(file, "timm", TimmFiles("resnet18", {})))
    prints.add(_fingerprint(file, "timm", TimmFiles("resnet34", {})))
    assert len(prints) == 3


def test_files_of_our_own_names_meet_no_filter(tmp_path: Path) -> None:
    def refuse(tensors: object, known: object) -> object:
        raise AssertionError("asked")

    (tmp_path / "w.pth").write_bytes(torch_bytes({"w": torch.ones(1)}))
    refuse.fingerprint = ""  # type: ignore[attr-defined]
    assert list(convert(tmp_path / "w.pth", FileFormat(), layout_of("timm", "native"), adapter=refuse).tensors) == ["w"]  # type: ignore[arg-type]
