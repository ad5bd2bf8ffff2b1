"""A file of a detector gives that detector or an error, never a part of it."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import pretrainps
from pretrainps.backbones import ARCHITECTURES, Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.detectors.key_layouts import layout_of, layouts_of
from pretrainps.errors import CheckpointFormatError, PretrainPSError, StateDictMismatchError
from pretrainps.export.weights import export_weights
from pretrainps.registry.specs import ASSUMED_INPUT
from pretrainps.weights import compare
from pretrainps.weights.inspect import inspect
from pretrainps.weights.recognize_detector import identify, skeleton
from tests.support.detectors import KINDS
from tests.support.thin import _as_much_as_they_say as _as_much_as_they_say
from tests.support.thin import thin_tensors, write

MUTANTS = int(os.environ.get("PRETRAINPS_MUTANTS", "150"))
"""How many damaged files to try."""
SIZES: dict[str, Any] = {"num_identities": 7, "queue_size": 5, "embedding_dim": 16}
FORMS = [*((kind, {}) for kind in KINDS), ("nae+", {"fuse_c4": False})]
LAYOUTS = [(kind, form, layout) for kind, form in FORMS for layout in layouts_of(f"{kind}-resnet")]


@cache
def _native(kind: str, fused: bool, arch: str) -> dict[str, Tensor]:
    config = SIZES if fused else {**SIZES, "fuse_c4": False}
    with torch.device("meta"):
        model = assemble(kind, build_backbone(arch), config, ASSUMED_INPUT)
    return thin_tensors({key: tuple(value.shape) for key, value in model.state_dict().items()})


def native(kind: str, form: Mapping[str, Any] | None = None, arch: str = "resnet_tiny") -> dict[str, Tensor]:
    return dict(_native(kind, "fuse_c4" not in (form or {}), arch))


def in_layout(kind: str, form: Mapping[str, Any], layout: str) -> dict[str, Tensor]:
    return layout_of(f"{kind}-resnet", layout).from_native(native(kind, form))


def require_equal(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *but: str) -> None:
    assert state.keys() == wanted.keys()
    assert not [key for key, value in wanted.items() if key not in but and not torch.equal(state[key], value)]


# ---- whole files


@pytest.mark.parametrize(("kind", "form", "layout"), LAYOUTS)
def test_every_detector_in_every_layout(tmp_path: Path, kind: str, form: dict[str, Any], layout: str) -> None:
    tensors = {f"_orig_mod.module.{key}": value for key, value in in_layout(kind, form, layout).items()}
    path = write(tmp_path / "w.pth", {key: tensors[key] for key in sorted(tensors, reverse=True)}, ("model",))
    model = pretrainps.load(f"file:{path}")
    assert isinstance(model, PersonSearchDetector) and model.kind == kind and model.load_report.share == 1
    require_equal(model.state_dict(), native(kind, form), *([] if layout == "native" else ["oim_loss.cursor"]))
    assert f"gives the {kind} on resnet_tiny detector" in str(inspect(path))


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if not arch.endswith(("_small", "_base"))])
def test_own_detectors_on_every_backbone(arch: str) -> None:
    """By keys and shapes alone, for some of them are large."""
    shapes = {f"module.{key}": tuple(value.shape) for key, value in native("nae", arch=arch).items()}
    found = identify(shapes)
    assert found is not None and found.detector is not None and found.loads and not found.extra
    assert (found.arch, found.detector.kind, found.detector.config) == (arch, "nae", SIZES)
    alone = identify(shapes, arch=arch)
    assert alone is not None and alone.detector is None and alone.loads and not alone.extra


@pytest.mark.parametrize("kind", ["oim", "seqnet"])
def test_what_is_written_answers_the_same(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    config = {**SIZES, "score_threshold": 0.01}
    model = pretrainps.build_detector(kind, backbone=build_backbone("resnet_tiny"), config=config).eval()
    torch.save(model.state_dict(), tmp_path / "state.pth")
    names = ["state.pth"]
    if kind == "oim":
        save_file({key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "state.safetensors")
        names.append("state.safetensors")
    for layout in layouts_of(model.family):
        export_weights(model, layout, tmp_path / f"{layout}.pth")
        names.append(f"{layout}.pth")
    pretrainps.save_pretrained(model, tmp_path / "folder")
    scene, box = [torch.rand(3, 96, 128)], [torch.tensor([[10.0, 10, 40, 90]])]
    for name in (*names, "folder"):
        again: Any = pretrainps.load(f"file:{tmp_path / name}")
        require_equal(again.state_dict(), model.state_dict())
        torch.testing.assert_close(again.embed(scene, box)[0], model.embed(scene, box)[0])


# ---- parts


@pytest.mark.parametrize(("kind", "form", "layout"), LAYOUTS[::2])
def test_stripped_tables_start_anew_and_are_said_to(tmp_path: Path, kind: str, form: dict[str, Any], layout: str) -> None:
    whole = in_layout(kind, form, layout)
    tables = [key for key in whole if "oim_loss" in key or "reid_loss" in key]
    for lost in (tables, [key for key in tables if key.endswith((".lut", "lookup_table"))]):
        path = write(tmp_path / "w.pth", {key: value for key, value in whole.items() if key not in lost})
        model = pretrainps.load(f"file:{path}")
        assert isinstance(model, PersonSearchDetector) and model.kind == kind
        report = model.load_report
        assert "oim_loss.lookup_table" in report.new and "new, freshly initialized" in str(report)
        assert ("oim_loss.queue" in report.new) == (lost == tables)
        lists = [*report.matched, *report.new, *report.expected_missing]
        assert sorted(lists) == sorted(model.state_dict()), "each tensor is in one list"
        assert not any(model.state_dict()[key].any() for key in report.new)
        assert "oim_loss.lookup_table" in str(inspect(path))


@pytest.mark.parametrize("layout", ["native", "seqnet"])
@pytest.mark.parametrize(
    "lost",
    ["rpn.head.cls_logits.bias", "embedding_head.rescaler.running_var", "backbone.conv1.weight", "box_head.bbox_pred.0.bias"],
)
def test_one_tensor_less_is_named(tmp_path: Path, layout: str, lost: str) -> None:
    left = {key: value for key, value in native("seqnet").items() if key != lost}
    path = write(tmp_path / "w.pth", layout_of("seqnet-resnet", layout).from_native(left))
    with pytest.raises(StateDictMismatchError, match=f"MISSING.*{lost}") as caught:
        pretrainps.load(f"file:{path}")
    assert caught.value.report.missing == (lost,)
    assert "seqnet on resnet_tiny" in str(inspect(path)) and "would load" not in str(inspect(path))


@pytest.mark.parametrize(("kind", "form", "layout"), LAYOUTS[::2])
def test_what_is_beside_a_detector_can_be_ignored(tmp_path: Path, kind: str, form: dict[str, Any], layout: str) -> None:
    others = {"n_averaged": torch.tensor(3), "backbone.fc.weight": torch.ones(3, 2), "ema.decay": torch.ones(1)}
    path = write(tmp_path / "w.pth", {**in_layout(kind, form, layout), **others})
    with pytest.raises(StateDictMismatchError, match="n_averaged"):
        pretrainps.load(f"file:{path}")
    for ignore in (["n_averaged", "*.fc.*", "ema.*"], inspect(path).to_ignore):
        model = pretrainps.load(f"file:{path}", ignore=ignore)
        assert isinstance(model, PersonSearchDetector) and set(model.load_report.ignored) >= set(others)
    inside = {f"{key.rpartition('.')[0]}.more": value for key, value in list(in_layout(kind, form, layout).items())[:1]}
    path = write(tmp_path / "w.pth", {**in_layout(kind, form, layout), **inside})
    with pytest.raises(StateDictMismatchError, match="another architecture"):
        pretrainps.load(f"file:{path}", ignore=["*.more"])


def test_the_backbone_alone_when_it_is_asked_for(tmp_path: Path) -> None:
    for kind, form, layout in LAYOUTS:
        path = write(tmp_path / "w.pth", in_layout(kind, form, layout))
        backbone = pretrainps.load(f"file:{path}", arch="resnet_tiny")
        assert isinstance(backbone, Backbone)
        whole = native(kind, form)
        wanted = {key: whole.get(f"backbone.{key}", whole.get(f"box_stage.stage.{key}")) for key in backbone.state_dict()}
        require_equal(backbone.state_dict(), wanted)  # type: ignore[arg-type]


def test_a_detector_on_a_backbone_that_no_key_tells(tmp_path: Path) -> None:
    model = pretrainps.build_detector("nae", backbone=build_backbone("timm:regnety_002"), num_identities=3)
    path = write(tmp_path / "w.pth", model.state_dict())
    with pytest.raises(CheckpointFormatError, match=r"detector 'nae', on a backbone that is not recognized.*build_detector"):
        pretrainps.load(f"file:{path}")
    assert "NAE" in str(inspect(path))
    backbone = pretrainps.load(f"file:{path}", arch="timm:regnety_002")
    assert isinstance(backbone, Backbone) and backbone.load_report.share == 1
    again = pretrainps.build_detector("nae", backbone=backbone, num_identities=3)
    again.load_state_dict(torch.load(path, weights_only=True))
    pretrainps.save_pretrained(again, tmp_path / "saved")
    require_equal(pretrainps.load(f"file:{tmp_path / 'saved'}").state_dict(), model.state_dict())


# ---- damaged files


class Mutant:
    """A detector's file with one to three things wrong, or none but its packing."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kind, self.form, self.layout = self.random.choice(LAYOUTS)
        self.tensors = in_layout(self.kind, self.form, self.layout)
        steps = (self.remove, self.add, self.rename, self.reshape, self.change_type, self.swap_order)
        self.steps = [self.random.choice(steps) for _ in range(self.random.choice((0, 1, 1, 1, 2, 3)))]
        self.half = False
        for step in self.steps:
            step()
        parts = ("module", "_orig_mod", "model", "backbone", "net", "detector", "0")
        prefix = "".join(f"{self.random.choice(parts)}." for _ in range(self.random.choice((0, 0, 1, 2))))
        self.tensors = {prefix + key: value for key, value in self.tensors.items()}
        self.wrapper = self.random.choice(((), ("model",), ("state_dict",), ("a", "b")))

    def pick(self) -> str:
        return self.random.choice(list(self.tensors))

    def remove(self) -> None:
        del self.tensors[self.pick()]

    def add(self) -> None:
        near = self.pick().rpartition(".")[0]
        self.tensors[self.random.choice((f"{near}.more", "n_averaged", "roi_heads.x.weight", "fc.weight"))] = torch.ones(2, 3)

    def rename(self) -> None:
        key = self.pick()
        self.tensors[self.random.choice((f"{key}_", f"x.{key}", key.replace(".", "_")))] = self.tensors.pop(key)

    def reshape(self) -> None:
        key = self.pick()
        old = self.tensors[key]
        self.tensors[key] = self.random.choice((torch.ones(*old.shape, 1), torch.ones(3), old[:1] if old.ndim else old[None]))

    def change_type(self) -> None:
        key = self.pick()
        self.tensors[key] = self.tensors[key].to(self.random.choice((torch.float16, torch.int64, torch.float64)))

    def swap_order(self) -> None:
        keys = list(self.tensors)
        self.random.shuffle(keys)
        self.tensors = {key: self.tensors[key] for key in keys}

    def require_right(self, state: Mapping[str, Tensor], matched: tuple[str, ...]) -> None:
        """What was filled is what the detector had there, as far as it was not another table or another type."""
        wanted = native(self.kind, self.form)
        assert state.keys() == wanted.keys()
        for key in matched:
            known = wanted[key]
            table = key in ("oim_loss.lookup_table", "oim_loss.queue")
            assert table or torch.allclose(state[key].double(), known.double(), atol=1e-3), key
            assert table or state[key].shape == known.shape


def test_damaged_detector_files_in_memory() -> None:
    """The steps of loading on tensors in memory: recognized, renamed, compared."""
    outcomes = {"detector": 0, "refused": 0}
    models: dict[str, Any] = {}  # a model is slow to make, and many of the files are of the same
    for seed in range(MUTANTS):
        mutant = Mutant(seed)
        found = identify({key: tuple(value.shape) for key, value in mutant.tensors.items()})
        if found is None:
            outcomes["refused"] += 1
            continue
        what = repr((found.arch, found.detector, found.head))
        if what not in models:
            models[what] = skeleton(found)
        model = models[what]
        left = [key for key in mutant.tensors if key not in found.known_extra]
        bare = {key.removeprefix(found.file.prefix): mutant.tensors[key] for key in left if key.startswith(found.file.prefix)}
        unprefixed = [key for key in left if not key.startswith(found.file.prefix)]
        family = model.family if isinstance(model, PersonSearchDetector | Backbone) else model.backbone.family
        try:
            tensors = layout_of(family, found.file.layout).read(bare)
        except PretrainPSError:
            outcomes["refused"] += 1
            continue
        file = found.file
        report = compare(model, tensors, name="m", unprefixed=unprefixed, expected_missing=file.expected_missing, new=file.new)
        assert report.ok == (found.loads and not found.extra and not report.wrong_kind), (seed, mutant.steps, report)
        if not report.ok:
            outcomes["refused"] += 1
            continue
        assert isinstance(model, PersonSearchDetector) and model.kind == mutant.kind, (seed, mutant.steps)
        state = {key: tensors.get(key, torch.zeros(())) for key in model.state_dict()}
        mutant.require_right(state, report.matched)
        outcomes["detector"] += 1
    assert min(outcomes.values()) > MUTANTS // 10, outcomes


def test_damaged_detector_files(tmp_path: Path) -> None:
    """Each ends in the right detector or in an error of ours; none in a backbone, and none in another detector."""
    for seed in range(10_000, 10_000 + MUTANTS // 10):
        mutant = Mutant(seed)
        path = write(tmp_path / "w.pth", mutant.tensors, mutant.wrapper)
        seen = inspect(path)
        advised = "would load" in str(seen) and not seen.to_ignore
        try:
            model = pretrainps.load(f"file:{path}")
        except PretrainPSError as error:
            assert not advised, (seed, mutant.steps, error)
            continue
        assert isinstance(model, PersonSearchDetector) and model.kind == mutant.kind, (seed, mutant.steps)
        assert advised, (seed, mutant.steps)
        mutant.require_right(model.state_dict(), model.load_report.matched)
