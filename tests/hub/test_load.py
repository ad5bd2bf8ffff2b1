"""From a name to a complete model, or to an error that says why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import pretrainps
from pretrainps import errors
from pretrainps.backbones import Backbone
from pretrainps.download import Cache
from pretrainps.heads import CropModel
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import BundledSource, FileFormat, LocalSource
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer
from tests.support.weights import FILES, REPO, SHAPES, authors_file, authors_tensors, random_values, torch_bytes

SMALL = "shufflenetv1-hybrid"


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    """The smallest of the authors' files, from its published address."""
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    return hub


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_of_the_authors_exact_structure_loads_completely(hub: FakeHub, name: str) -> None:
    hub.add(REPO, {FILES[name]: authors_file(name)})
    model = pretrainps.load(name, progress=False)
    assert isinstance(model, Backbone) and not model.training
    report = model.load_report
    assert report.share == 1 and len(report.matched) == len(SHAPES[name]())
    assert not (report.expected_missing or report.ignored or report.missing or report.unexpected)
    assert report.parameters == find_spec(name).parameters
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in authors_tensors(name).items())
    assert model.spec.sha256, "what was loaded is known by its hash"


def test_second_load_uses_the_conversion_and_no_network(published: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pretrainps.load(SMALL, progress=False)
    published.requests.clear()
    monkeypatch.setattr("torch.load", lambda *args, **kwargs: pytest.fail("the pickle was read again"))
    again = pretrainps.load(SMALL, progress=False)
    assert published.requests == []
    assert again.load_report == first.load_report
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_damaged_conversion_is_made_again(published: FakeHub) -> None:
    pretrainps.load(SMALL, progress=False)
    (native,) = Cache().folder(SMALL).glob("native-*.safetensors")
    native.write_bytes(native.read_bytes()[:-1] + b"x")
    assert pretrainps.load(SMALL, progress=False).load_report.ok
    assert torch.equal(pretrainps.load(SMALL).state_dict()["conv1.conv.weight"], authors_tensors(SMALL)["conv1.conv.weight"])


def test_training_a_loaded_model_does_not_touch_the_cache(published: FakeHub) -> None:
    model = pretrainps.load(SMALL, progress=False)
    (native,) = Cache().folder(SMALL).glob("native-*.safetensors")
    before = native.read_bytes()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert native.read_bytes() == before
    assert not torch.equal(model.state_dict()["conv1.conv.weight"], pretrainps.load(SMALL).state_dict()["conv1.conv.weight"])


def spec_for(tmp_path: Path, tensors: dict[str, torch.Tensor], **changes: object) -> ModelSpec:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"state_dict": tensors}))
    return replace(find_spec(SMALL), sources=(LocalSource(path=str(path)),), published_size=None, **changes)


def test_every_key_prefixed(tmp_path: Path) -> None:
    """timm accepts such a file without a warning."""
    spec = spec_for(tmp_path, {f"zz.{k}": v for k, v in authors_tensors(SMALL).items()})
    with pytest.raises(errors.StateDictMismatchError, match=r"prefix 'zz\.'") as caught:
        pretrainps.load(spec)
    assert caught.value.report.parameters_loaded == 0


def test_declared_prefix_is_stripped(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, {f"zz.{k}": v for k, v in authors_tensors(SMALL).items()})
    assert pretrainps.load(replace(spec, file=replace(spec.file, prefix="zz."))).load_report.share == 1
    with pytest.raises(errors.CheckpointFormatError, match=r"no tensor has the declared prefix 'yy\.'"):
        pretrainps.load(replace(spec, file=replace(spec.file, prefix="yy.")))


@pytest.mark.parametrize(
    "key", ["conv1.conv.weight", "layers.2.3.g_conv_1x1_expand.bn.running_var", "conv1.bn.num_batches_tracked"]
)
def test_one_key_missing(tmp_path: Path, key: str) -> None:
    spec = spec_for(tmp_path, {k: v for k, v in authors_tensors(SMALL).items() if k != key})
    with pytest.raises(errors.StateDictMismatchError, match="MISSING") as caught:
        pretrainps.load(spec)
    assert caught.value.report.missing == (key,)


def test_one_wrong_shape(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, {**authors_tensors(SMALL), "conv1.conv.weight": torch.zeros(24, 3, 7, 7)})
    with pytest.raises(errors.StateDictMismatchError, match=r"\[24, 3, 7, 7\] in the file and \[24, 3, 3, 3\]"):
        pretrainps.load(spec)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_said_to_be(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {k: v.to(dtype) if v.is_floating_point() else v.int() for k, v in authors_tensors(SMALL).items()}
    model = pretrainps.load(spec_for(tmp_path, tensors))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.state_dict()["conv1.bn.num_batches_tracked"].dtype == torch.int64
    assert len(model.load_report.converted) == 294 and "converted: 294" in str(model.load_report)
    assert torch.equal(model.state_dict()["conv1.conv.weight"], tensors["conv1.conv.weight"].float())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    spec = spec_for(tmp_path, {**authors_tensors(SMALL), "conv1.bn.bias": torch.zeros(24, dtype=torch.int64)})
    with pytest.raises(errors.StateDictMismatchError, match=r"conv1\.bn\.bias is int64 in the file and float32"):
        pretrainps.load(spec)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    bad = authors_tensors(SMALL)["conv1.bn.bias"].clone()
    bad[3] = float("nan")
    spec = spec_for(tmp_path, {**authors_tensors(SMALL), "conv1.bn.bias": bad})
    with pytest.raises(errors.CheckpointFormatError, match=r"NaN or infinity \(conv1\.bn\.bias\)"):
        pretrainps.load(spec)


def test_751_class_head_on_a_headless_model(tmp_path: Path) -> None:
    head = {"classifier.weight": torch.zeros(751, 960), "classifier.bias": torch.zeros(751)}
    spec = spec_for(tmp_path, {**authors_tensors(SMALL), **head})
    with pytest.raises(errors.StateDictMismatchError, match=r"classifier\.weight"):
        pretrainps.load(spec)
    model = pretrainps.load(spec, ignore=["classifier.*"])
    assert model.load_report.ignored == tuple(head) and model.load_report.share == 1


def test_wrong_architecture(tmp_path: Path) -> None:
    with pytest.raises(errors.StateDictMismatchError):
        pretrainps.load(
            replace(spec_for(tmp_path, authors_tensors(SMALL)), arch="resnet18", file=FileFormat(wrapper=("state_dict",)))
        )


def test_files_from_before_batches_were_counted(tmp_path: Path) -> None:
    old = {k: v for k, v in random_values(SHAPES["resnet18-hybrid"]()).items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(torch_bytes({**old, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}))
    spec = replace(find_spec("resnet18-imagenet"), sources=(LocalSource(path=str(path)),), sha256_prefix=None)
    model = pretrainps.load(spec)
    assert model.load_report.ignored == ("fc.weight", "fc.bias")
    assert len(model.load_report.expected_missing) == 20
    assert int(model.state_dict()["bn1.num_batches_tracked"]) == 0
    assert not any(t.is_meta for t in model.state_dict().values())


def test_heads_are_new_and_said_to_be(published: FakeHub) -> None:
    embedder = pretrainps.load(SMALL, head="embedding", progress=False)
    assert isinstance(embedder, CropModel) and embedder.load_report.new == ()
    assert embedder(torch.rand(2, 3, 64, 32)).shape == (2, 960)
    classifier = pretrainps.load(SMALL, head="classifier", num_classes=5, progress=False)
    assert classifier.load_report.new == ("head.fc.weight", "head.fc.bias")
    assert "new, freshly initialized: 2" in str(classifier.load_report)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "classifier"},
        {"num_classes": 3},
        {"head": "embedding", "num_classes": 3},
        {"head": "x"},
        {"embedding_dim": 8},
        {"head": "classifier", "num_classes": 2, "embedding_dim": 3},
    ],
)
def test_head_options_that_make_no_sense(published: FakeHub, options: dict[str, object]) -> None:
    with pytest.raises(errors.ArgumentError):
        pretrainps.load(SMALL, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [{}, {"head": "embedding", "embedding_dim": 16}, {"head": "classifier", "num_classes": 3}])
def test_save_and_load_back(published: FakeHub, tmp_path: Path, head: dict[str, object]) -> None:
    model = pretrainps.load(SMALL, progress=False, **head)  # type: ignore[arg-type]
    folder = pretrainps.save_pretrained(model, tmp_path / "saved")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for name in (f"file:{folder}", f"file:{folder / 'model.safetensors'}"):
        again = pretrainps.load(name)
        assert again.load_report.share == 1 and not again.load_report.new
        images = torch.rand(2, 3, 64, 32)
        ours, theirs = again(images), model(images)
        if isinstance(theirs, dict):
            ours, theirs = ours["c5"], theirs["c5"]
        torch.testing.assert_close(ours, theirs)  # sums may round otherwise in mapped memory
        assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())
        assert again.spec.input == model.spec.input and again.spec.licence == model.spec.licence
    assert torch.equal(
        pretrainps.preprocess(f"file:{folder}")(torch.ones(3, 4, 4)), pretrainps.preprocess(SMALL)(torch.ones(3, 4, 4))
    )


def test_saving_twice_gives_the_same_bytes(published: FakeHub, tmp_path: Path) -> None:
    model = pretrainps.load(SMALL, progress=False)
    one, two = (pretrainps.save_pretrained(model, tmp_path / str(i) / "mine") for i in range(2))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_tampered_saved_model(published: FakeHub, tmp_path: Path) -> None:
    folder = pretrainps.save_pretrained(pretrainps.load(SMALL, progress=False), tmp_path / "saved")
    body = bytearray((folder / "model.safetensors").read_bytes())
    body[-1] ^= 1
    (folder / "model.safetensors").write_bytes(body)
    with pytest.raises(errors.IntegrityError):
        pretrainps.load(f"file:{folder}")


@pytest.mark.parametrize(
    ("prepare", "kind"),
    [
        (lambda f: (f / "config.json").unlink(), errors.WeightsUnavailableError),
        (lambda f: (f / "model.safetensors").unlink(), errors.WeightsUnavailableError),
        (lambda f: (f / "config.json").write_text("{"), errors.RegistryError),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), errors.UnknownModelError),
        (lambda f: (f / "config.json").write_text('{"pretrainps": {"format": 99, "model": {}}}'), errors.RegistryError),
        (lambda f: (f / "config.json").write_text('{"pretrainps": {"format": 1, "model": {"x": 1}}}'), errors.RegistryError),
    ],
)
def test_damaged_saved_folders(published: FakeHub, tmp_path: Path, prepare: object, kind: type[Exception]) -> None:
    folder = pretrainps.save_pretrained(pretrainps.load(SMALL, progress=False), tmp_path / "saved")
    prepare(folder)  # type: ignore[operator]
    with pytest.raises(kind):
        pretrainps.load(f"file:{folder}")


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own upload code
def test_push_and_load_back(published: FakeHub) -> None:
    model = pretrainps.load(SMALL, head="embedding", embedding_dim=8, progress=False)
    commit = pretrainps.push_to_hub(model, "me/mine", token="hf_x")
    images = torch.rand(1, 3, 64, 32)
    for name in ("hf:me/mine", f"hf:me/mine@{commit}"):
        again = pretrainps.load(name, progress=False)
        torch.testing.assert_close(again(images), model(images))  # sums may round otherwise in mapped memory
        assert again.load_report.share == 1
        assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())
    published.requests.clear()
    pretrainps.load("hf:me/mine", progress=False)
    assert published.requests == [], "a cached model needs no network, configuration included"


def test_push_refused(published: FakeHub) -> None:
    model = pretrainps.load(SMALL, progress=False)
    published.fault("POST /api/repos/create", status=401, times=9)
    with pytest.raises(errors.GatedWeightsError, match="hf auth login"):
        pretrainps.push_to_hub(model, "me/mine")


def test_bare_files_on_the_hub_are_recognized(published: FakeHub) -> None:
    model = pretrainps.load(f"hf:{REPO}/{FILES[SMALL]}", progress=False)
    assert model.spec.arch == "shufflenetv1" and model.load_report.share == 1
    assert model.spec.input.status == "assumed"
    with pytest.raises(errors.WeightsUnavailableError, match="no such file"):
        pretrainps.load(f"hf:{REPO}", progress=False)


def test_bare_local_files_are_recognized(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(torch_bytes({"model": {f"module.{k}": v for k, v in authors_tensors("resnet18-hybrid").items()}}))
    model = pretrainps.load(f"file:{path}")
    assert model.spec.arch == "resnet18" and model.load_report.share == 1
    assert model.spec.file.prefix == "module." and model.spec.file.wrapper == ("model",)


def test_bare_local_file_with_a_classifier_is_not_silently_cut(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(torch_bytes({**authors_tensors("resnet18-hybrid"), "classifier.weight": torch.zeros(751, 512)}))
    with pytest.raises(errors.StateDictMismatchError, match="classifier"):
        pretrainps.load(f"file:{path}")
    assert pretrainps.load(f"file:{path}", ignore=["classifier.*"]).load_report.share == 1


def test_timm_models_come_from_timms_repositories(hub: FakeHub, tmp_path: Path) -> None:
    import timm

    theirs = timm.create_model("regnety_002").eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    tag = timm.get_pretrained_cfg("regnety_002").tag
    hub.add(f"timm/regnety_002.{tag}", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    model = pretrainps.load("timm:regnety_002", progress=False)
    assert model.load_report.share == 1 and all(key.startswith("head.") for key in model.load_report.ignored)
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(images)["c5"], theirs.forward_features(images), rtol=1e-4, atol=1e-5)
    path = tmp_path / "model.safetensors"
    assert pretrainps.load(f"file:{path}", arch="timm:regnety_002").load_report.share == 1


def test_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('data only')")
    monkeypatch.syspath_prepend(str(tmp_path))
    pretrainps.save_pretrained(pretrainps.load(spec_for(tmp_path, authors_tensors(SMALL))), package)
    sha256 = json.loads((package / "config.json").read_text())["pretrainps"]["model"]["sha256"]
    source = BundledSource(package="my_weights", file="model.safetensors")
    spec = replace(find_spec(SMALL), sources=(source,), file=FileFormat(), sha256=sha256, published_size=None)
    assert pretrainps.load(spec, offline=True).load_report.share == 1
    with pytest.raises(errors.IntegrityError):
        pretrainps.load(replace(spec, sha256="0" * 64))


@pytest.mark.parametrize("name", ["nosuch:thing", "hf:one", "hf:", "hf:a//b", "file:/no/such/file.pth", "file:/no/such/dir/"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(errors.PretrainPSError):
        pretrainps.load(name)


def test_download_returns_the_verified_original(published: FakeHub) -> None:
    path = pretrainps.download(SMALL, progress=False)
    assert path.read_bytes() == authors_file(SMALL)
    assert pretrainps.download(SMALL, offline=True) == path


def test_solider_checkpoint_of_its_real_structure(tmp_path: Path) -> None:
    """Teacher and student, heads and optimizer, command-line options: what main_solider.py saves."""
    import argparse

    keys = json.loads((Path(__file__).parent.parent / "golden" / "solider_swin_tiny_keys.json").read_text())
    shapes = {k.replace("backbone.swin.", "backbone."): tuple(v) for k, v in keys.items() if k.startswith("backbone.swin.")}
    teacher = random_values(shapes) | {"head.mlp.0.weight": torch.zeros(4, 4), "head.last_layer.weight_g": torch.zeros(4, 1)}
    path = tmp_path / "solider.pth"
    path.write_bytes(torch_bytes({"teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="swin_tiny")}))
    spec = replace(find_spec("swin-tiny-solider"), sources=(LocalSource(path=str(path)),))
    model = pretrainps.load(spec)
    assert model.load_report.share == 1 and len(model.load_report.ignored) == 12 + 2
    assert model.semantic_weight == 0.6
    model.semantic_weight = 0.25  # type: ignore[assignment]
    again = pretrainps.load(f"file:{pretrainps.save_pretrained(model, tmp_path / 'saved')}")
    images = torch.rand(1, 3, 64, 32)
    torch.testing.assert_close(again(images)["c5"], model(images)["c5"])
    assert again.semantic_weight == 0.25


def test_google_drive_model_by_name(drive: object, tmp_path: Path) -> None:
    body = torch_bytes(authors_tensors("resnet50-hybrid"))
    drive.files["1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6"] = body  # type: ignore[attr-defined]
    drive.confirm.add("1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6")  # type: ignore[attr-defined]
    assert pretrainps.load("resnet50-luperson", progress=False).load_report.share == 1


def test_https_model_by_name(files: FileServer) -> None:
    tensors = {f"backbone.{k}": v for k, v in authors_tensors(SMALL).items()} | {"head.fc.weight": torch.zeros(1000, 960)}
    url = files.put("shufflenet.pth", torch_bytes({"meta": {"epoch": 300}, "state_dict": tensors}))
    from pretrainps.registry.specs import HttpSource

    spec = replace(find_spec("shufflenetv1-imagenet"), sources=(HttpSource(url=url),), sha256_prefix=None)
    assert pretrainps.load(spec, progress=False).load_report.ignored == ("head.fc.weight",)
