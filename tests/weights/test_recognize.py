"""A file gives exactly the model in it, with any names of its keys, or an error with a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import pretrainps
from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.detectors.key_layouts import families, layout_of, layouts_of
from pretrainps.errors import CheckpointFormatError, LayoutError, PretrainPSError, StateDictMismatchError
from pretrainps.export.weights import export_weights
from pretrainps.heads import CropModel
from pretrainps.registry.specs import HeadSpec
from pretrainps.weights.inspect import inspect
from pretrainps.weights.recognize import recognize
from pretrainps.weights.trunk import likely_architecture
from tests.support.thin import _as_much_as_they_say as _as_much_as_they_say
from tests.support.thin import thin_tensors, write

EVERY = [(arch, layout) for arch, each in ARCHITECTURES.items() for layout in layouts_of(each.family)]
SMALL = ("resnet_tiny", "shufflenetv1", "solider_swin_tiny")


@cache
def native(arch: str) -> dict[str, Tensor]:
    return thin_tensors({key: tuple(value.shape) for key, value in build_backbone(arch, empty=True).state_dict().items()})


def in_layout(arch: str, layout: str) -> dict[str, Tensor]:
    return layout_of(ARCHITECTURES[arch].family, layout).from_native(dict(native(arch)))


def require_equal(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], layout: str = "native") -> None:
    assert state.keys() == wanted.keys()
    uncounted = layout == "detectron2"  # it does not count batches
    differ = [key for key, value in wanted.items() if not torch.equal(state[key], value)]
    assert all(uncounted and key.endswith("num_batches_tracked") for key in differ), differ


# ---- every architecture, every layout


@pytest.mark.parametrize(("arch", "layout"), EVERY)
def test_every_layout_of_every_architecture_is_told_by_its_keys(arch: str, layout: str) -> None:
    shapes = {f"a.b.{key}": tuple(value.shape) for key, value in reversed(in_layout(arch, layout).items())}
    found = recognize(shapes)
    assert found is not None and found.arch == arch and found.loads and not found.extra
    assert found.file.prefix == "a.b." and found.matched == len(native(arch)) - len(
        [key for key in native(arch) if layout == "detectron2" and key.endswith("num_batches_tracked")]
    )


@pytest.mark.parametrize(("arch", "layout"), [(arch, layout) for arch, layout in EVERY if arch in SMALL])
def test_every_layout_loads_bit_for_bit(tmp_path: Path, arch: str, layout: str) -> None:
    """Keys in any order, behind any prefix, in any wrapper; under `arch=` too."""
    tensors = in_layout(arch, layout)
    turned = {f"module.net.{key}": tensors[key] for key in sorted(tensors, reverse=True)}
    plain, wrapped = write(tmp_path / "plain.pth", tensors), write(tmp_path / "w.pth", turned, ("state_dict", "model"))
    for path, options in ((plain, {}), (wrapped, {"arch": arch})):
        require_equal(pretrainps.load(f"file:{path}", **options).state_dict(), native(arch), layout)  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", SMALL)
def test_what_is_written_answers_the_same(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(0)
    model = build_backbone(arch).eval()
    with torch.no_grad():  # a trained network's norms are not all ones
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    images = torch.rand(1, 3, 64, 32)
    wanted = model(images)["c5"]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "state.pth")
    names = ["state.pth"]
    if arch == "shufflenetv1":
        save_file(state, tmp_path / "state.safetensors")
        names.append("state.safetensors")
    for layout in [each for each in layouts_of(model.family) if each not in ("native", "timm", "mmdet")]:
        export_weights(model, layout, tmp_path / f"{layout}.pth")
        names.append(f"{layout}.pth")
    pretrainps.save_pretrained(pretrainps.load(f"file:{tmp_path / names[0]}"), tmp_path / "folder")
    for name in (*names, "folder"):
        again = pretrainps.load(f"file:{tmp_path / name}")
        require_equal(again.state_dict(), state, name.removesuffix(".pth"))
        torch.testing.assert_close(again(images)["c5"], wanted)  # sums may round otherwise in other memory


# ---- one tensor changed


MUTATIONS = ("removed", "added", "renamed", "reshaped")


def mutated(tensors: Mapping[str, Tensor], mutation: str, place: int, same_module: bool) -> dict[str, Tensor]:
    changed = dict(tensors)
    key = sorted(changed)[place % len(changed)]
    module, _, name = key.rpartition(".")
    other = f"{module}.other_{name}" if same_module else f"elsewhere.{name}"
    if mutation == "removed":
        del changed[key]
    elif mutation == "added":
        changed[other] = torch.ones(3)
    elif mutation == "renamed":
        changed[other] = changed.pop(key)
    else:
        changed[key] = torch.ones(*changed[key].shape, 2)
    return changed


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pair=st.sampled_from([pair for pair in EVERY if pair[0] in ("resnet_tiny", "shufflenetv1")]),
    mutation=st.sampled_from(MUTATIONS),
    place=st.integers(0, 999),
    same_module=st.booleans(),
    prefix=st.sampled_from(["", "module.", "a.b.c."]),
)
def test_one_changed_tensor_never_loads(
    tmp_path: Path, pair: tuple[str, str], mutation: str, place: int, same_module: bool, prefix: str
) -> None:
    changed = mutated(in_layout(*pair), mutation, place, same_module)
    path = write(tmp_path / "w.pth", {prefix + key: value for key, value in changed.items()})
    with pytest.raises(PretrainPSError):
        pretrainps.load(f"file:{path}")


@pytest.mark.parametrize(("layout", "mutation"), [("native", "renamed"), ("solider", "removed"), ("solider", "renamed")])
def test_one_changed_tensor_of_a_swin_never_loads(tmp_path: Path, layout: str, mutation: str) -> None:
    tensors = in_layout("solider_swin_tiny", layout)
    place = next(place for place, key in enumerate(sorted(tensors)) if "downsample.norm" in key)
    path = write(tmp_path / "w.pth", mutated(tensors, mutation, place, same_module=True))
    with pytest.raises(PretrainPSError):
        pretrainps.load(f"file:{path}")


# ---- layouts that reorder values


def test_names_of_two_code_bases_do_not_say_in_which_order_values_lie(tmp_path: Path) -> None:
    """mmdetection's names for attention with timm's for patch merging: either order may be meant."""
    tensors = {key.replace(".attn.qkv", ".attn.w_msa.qkv"): value for key, value in native("solider_swin_tiny").items()}
    path = write(tmp_path / "w.pth", tensors)
    with pytest.raises(PretrainPSError):
        pretrainps.load(f"file:{path}")
    reordering = [layout for layouts in families().values() for layout in layouts.values() if layout.reorders]
    assert [layout.name for layout in reordering] == ["solider"]
    with pytest.raises(LayoutError, match="order of the values cannot be known"):
        reordering[0].read(tensors)


def test_only_the_layouts_that_say_so_change_values() -> None:
    for arch, name in EVERY:
        layout = layout_of(ARCHITECTURES[arch].family, name)
        if arch not in SMALL:
            continue
        written = layout.from_native(dict(native(arch)))
        moved = {key for key, value in layout.to_native(written).items() if not any(value is each for each in written.values())}
        assert bool(moved) == layout.reorders, (arch, name)


def test_two_copies_that_differ_are_part_of_a_detector(tmp_path: Path) -> None:
    tensors = in_layout("resnet_tiny", "seqnet")
    key = "roi_heads.reid_head.layer4.0.conv1.weight"
    path = write(tmp_path / "w.pth", {**tensors, key: tensors[key] + 1})
    with pytest.raises(LayoutError, match=r"w\.pth: its two copies .* part of a trained SeqNet"):
        pretrainps.load(f"file:{path}")
    assert "part of a trained SeqNet" in str(inspect(path))
    require_equal(pretrainps.load(f"file:{path}", arch="resnet_tiny").state_dict(), native("resnet_tiny"))


# ---- prefixes


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "net.", "student.backbone.body.", "model.0.", "layer1.layer2."]
)
@pytest.mark.parametrize("layout", ["torchvision", "detectron2", "seqnet"])
def test_a_prefix_of_any_depth_is_found(prefix: str, layout: str) -> None:
    shapes = {prefix + key: tuple(value.shape) for key, value in in_layout("resnet_tiny", layout).items()}
    found = recognize({**shapes, "epoch": ()})
    assert found is not None and (found.file.prefix, found.loads, found.extra) == (prefix, True, ("epoch",))


def test_a_prefix_can_be_given(tmp_path: Path) -> None:
    tensors = {f"{who}.{key}": value for who in ("teacher", "student") for key, value in native("resnet_tiny").items()}
    path = write(tmp_path / "w.pth", {**tensors, "student.conv1.weight": tensors["student.conv1.weight"] + 1})
    with pytest.raises(StateDictMismatchError, match="UNEXPECTED"):  # which of the two, no key says
        pretrainps.load(f"file:{path}")
    options: dict[str, Any]
    for options in ({}, {"arch": "resnet_tiny"}):
        model = pretrainps.load(f"file:{path}", prefix="student.", ignore=["teacher.*"], **options)
        assert torch.equal(model.state_dict()["conv1.weight"], native("resnet_tiny")["conv1.weight"] + 1)
    with pytest.raises(PretrainPSError, match=r"prefix 'nobody\.'"):
        pretrainps.load(f"file:{path}", prefix="nobody.", arch="resnet_tiny")


def test_a_prefix_without_a_dot_must_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {f"net/{key}": value for key, value in native("resnet_tiny").items()})
    with pytest.raises(CheckpointFormatError):
        pretrainps.load(f"file:{path}")
    require_equal(pretrainps.load(f"file:{path}", prefix="net/").state_dict(), native("resnet_tiny"))


def test_the_prefix_in_the_error_works_for_a_model_whose_file_is_declared(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {f"a.b.{key}": value for key, value in native("resnet_tiny").items()})
    spec = pretrainps.load(f"file:{path}").spec
    from dataclasses import replace

    declared = replace(spec, file=replace(spec.file, prefix=""))
    with pytest.raises(StateDictMismatchError, match="prefix") as caught:
        pretrainps.load(declared)
    require_equal(pretrainps.load(declared, **remedy(caught.value)).state_dict(), native("resnet_tiny"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_prefixes_of_timm_models(tmp_path: Path, prefix: str) -> None:
    import timm

    theirs = timm.create_model("regnety_002").eval()
    path = write(tmp_path / "w.pth", {prefix + key: value for key, value in theirs.state_dict().items()}, ("state_dict",))
    model = pretrainps.load(f"file:{path}", arch="timm:regnety_002")
    assert model.load_report.share == 1 and set(model.load_report.ignored) == {
        f"{prefix}head.fc.weight",
        f"{prefix}head.fc.bias",
    }
    require_equal(model.state_dict(), {key: theirs.state_dict()[key] for key in model.state_dict()})


# ---- what may be ignored


def remedy(error: Exception) -> dict[str, Any]:
    """Return the arguments of `load` in an error's advice."""
    found: dict[str, Any] = {}
    if given := re.search(r"prefix='([^']+)' \(--prefix", str(error)):
        found["prefix"] = given[1]
    if given := re.search(r"arch='([^']+)'", str(error)):
        found["arch"] = given[1]
    if given := re.search(r"ignore=\[([^\]]+)\]", str(error)):
        found["ignore"] = [each.strip(" '") for each in given[1].split(",")]
    assert found, error
    return found


@pytest.mark.parametrize(
    "additional",
    [
        {"fc.weight": (9, 128), "fc.bias": (9,)},
        {"bottleneck.weight": (128,), "bottleneck.running_mean": (128,), "classifier.weight": (751, 128)},
        {"n_averaged": ()},
        {"head[0].weight": (3,), "optimizer.step": ()},
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_is_beside_the_trunk_may_be_ignored(tmp_path: Path, additional: dict[str, tuple[int, ...]], prefix: str) -> None:
    tensors = {**native("resnet_tiny"), **{key: torch.ones(shape) for key, shape in additional.items()}}
    path = write(tmp_path / "w.pth", {prefix + key: value for key, value in tensors.items()})
    with pytest.raises(StateDictMismatchError) as caught:
        pretrainps.load(f"file:{path}")
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.extra == tuple(prefix + key for key in additional)
    model = pretrainps.load(f"file:{path}", ignore=seen.to_ignore)
    assert set(model.load_report.ignored) == {prefix + key for key in additional}
    require_equal(model.state_dict(), native("resnet_tiny"))
    if "head[0].weight" not in additional:  # its pattern has brackets
        require_equal(pretrainps.load(f"file:{path}", **remedy(caught.value)).state_dict(), native("resnet_tiny"))


@pytest.mark.parametrize(
    ("name", "arch"),
    [("resnet34", "timm:resnet34"), ("resnet101", "timm:resnet101")],
)
def test_another_resnet_is_named_and_loads_as_that(tmp_path: Path, name: str, arch: str) -> None:
    import torchvision

    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape) for key, value in getattr(torchvision.models, name)(weights=None).state_dict().items()
        }
    tensors = {f"module.{key}": value for key, value in thin_tensors(shapes).items() if not key.startswith("fc.")}
    path = write(tmp_path / "w.pth", tensors)
    assert arch in str(inspect(path)) and "would load" not in str(inspect(path))
    with pytest.raises(PretrainPSError):
        pretrainps.load(f"file:{path}", ignore=["*layer?.[3-9]*", "*layer?.1?.*", "*layer?.2*"])
    with pytest.raises(PretrainPSError) as caught:
        pretrainps.load(f"file:{path}")
    model = pretrainps.load(f"file:{path}", **remedy(caught.value))
    require_equal(model.state_dict(), {key.removeprefix("module."): value for key, value in tensors.items()})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152", "resnext101_32x8d", "wide_resnet50_2"])
def test_resnets_are_told_apart_by_shapes(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape) for key, value in getattr(torchvision.models, name)(weights=None).state_dict().items()
        }
    assert (likely_architecture({f"a.{key}": shape for key, shape in shapes.items()}) or "").removeprefix("timm:") == name
    assert likely_architecture({**shapes, "layer1.0.se.fc1.weight": (4, 4)}) is None


@pytest.mark.parametrize(
    "key", ["conv1.bias", "layer1.0.se.fc1.weight", "layer5.0.conv1.weight", "layer2.7.bn1.weight", "bn2.weight"]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_is_in_the_trunk_is_not_ignored(tmp_path: Path, key: str, prefix: str) -> None:
    tensors = {prefix + name: value for name, value in native("resnet_tiny").items()}
    path = write(tmp_path / "w.pth", {**tensors, prefix + key: torch.ones(16)})
    seen = inspect(path)
    assert seen.recognition is not None and seen.recognition.extra == () and seen.recognition.trunk == (prefix + key,)
    assert "would load" not in str(seen) and seen.to_json()["complete"] is False
    for ignore in ([], [prefix + key], ["*" + key], ["*"]):
        with pytest.raises(PretrainPSError):
            pretrainps.load(f"file:{path}", ignore=ignore)
    with pytest.raises(StateDictMismatchError, match="another architecture, and nothing of it may be left out") as caught:
        pretrainps.load(f"file:{path}", ignore=[prefix + key])
    assert len(caught.value.report.unexpected) == 1 and not caught.value.report.ignored


# ---- what inspect advises


def test_inspect_does_not_advise_what_load_refuses(tmp_path: Path) -> None:
    tensors = native("resnet_tiny")
    nan = {**tensors, "bn1.bias": torch.full_like(tensors["bn1.bias"], float("nan"))}
    whole_numbers = {**tensors, "bn1.bias": torch.zeros(tensors["bn1.bias"].shape, dtype=torch.int64)}
    for name, content in (("nan", nan), ("whole", whole_numbers)):
        path = write(tmp_path / f"{name}.pth", content)
        assert "would refuse" in str(inspect(path)) and inspect(path).to_json()["complete"] is False
        with pytest.raises(PretrainPSError):
            pretrainps.load(f"file:{path}")


# ---- models for crops


@pytest.mark.parametrize(
    ("head", "options"),
    [
        (HeadSpec(kind="embedding", embedding_dim=32), {"head": "embedding", "embedding_dim": 32}),
        (HeadSpec(kind="classifier", num_classes=5), {"head": "classifier", "num_classes": 5}),
        (HeadSpec(kind="embedding"), {"head": "embedding"}),
    ],
)
@pytest.mark.parametrize(("arch", "prefix"), [("resnet_tiny", ""), ("resnet_tiny", "module."), ("shufflenetv1", "a.b.")])
def test_models_for_crops(tmp_path: Path, head: HeadSpec, options: dict[str, Any], arch: str, prefix: str) -> None:
    model = CropModel(build_backbone(arch), head).eval()
    state = {prefix + key: value for key, value in model.state_dict().items()}
    path = write(tmp_path / "w.pth", state, ("state_dict",))
    has_head = any("head." in key for key in state)
    for given_options in (options, {}) if has_head else (options,):
        again = pretrainps.load(f"file:{path}", **given_options)
        assert isinstance(again, CropModel) and again.load_report.share == 1 and not again.load_report.new
        require_equal(again.state_dict(), model.state_dict())
    if has_head:
        assert f"with its head ({head.kind})" in str(inspect(path))
        bare = pretrainps.load(f"file:{path}", ignore=[f"{prefix}head.*"])
        require_equal(bare.state_dict(), model.backbone.state_dict())


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_head_that_is_not_whole(tmp_path: Path, mutation: str) -> None:
    state = CropModel(build_backbone("resnet_tiny"), HeadSpec(kind="classifier", num_classes=5)).state_dict()
    for place in (sorted(state).index("head.fc.bias"), sorted(state).index("head.fc.weight")):
        path = write(tmp_path / "w.pth", mutated(state, mutation, place, same_module=True))
        with pytest.raises(StateDictMismatchError, match=r"head\."):
            pretrainps.load(f"file:{path}")


def test_models_for_crops_on_a_timm_backbone(tmp_path: Path) -> None:
    model = CropModel(build_backbone("timm:regnety_002"), HeadSpec(kind="embedding", embedding_dim=8))
    path = write(tmp_path / "w.pth", {f"module.{key}": value for key, value in model.state_dict().items()})
    with pytest.raises(CheckpointFormatError, match=r"--arch timm:NAME"):
        pretrainps.load(f"file:{path}")
    again = pretrainps.load(f"file:{path}", arch="timm:regnety_002")
    require_equal(again.state_dict(), model.state_dict())
    folder = pretrainps.save_pretrained(again, tmp_path / "saved")  # timm's own classifier would be called "head" too
    require_equal(pretrainps.load(f"file:{folder}").state_dict(), model.state_dict())


def test_the_command_line_takes_the_same_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pretrainps.cli import main

    tensors = {f"net/{key}": value for key, value in native("resnet_tiny").items()}
    path = write(tmp_path / "w.pth", {**tensors, "fc.weight": torch.ones(3, 4), "fc.bias": torch.ones(3)})
    command = ["export-weights", f"file:{path}", "--layout", "native", "-o", str(tmp_path / "out.pth"), "--quiet"]
    assert main([*command, "--prefix", "net/"]) == 1
    assert "--ignore 'fc.*'" in capsys.readouterr().err
    assert main([*command, "--prefix", "net/", "--ignore", "fc.*"]) == 0
    require_equal(torch.load(tmp_path / "out.pth", weights_only=True), native("resnet_tiny"))
