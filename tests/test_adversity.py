"""Files that change under our hands, configurations that lie, processes that collide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pretrainps
from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.download import Cache, fetch
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import BundledSource, FileFormat, HttpSource, HubSource, LocalSource
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer
from tests.support.weights import FILES, REPO, authors_file, authors_tensors, torch_bytes

SMALL = "shufflenetv1-hybrid"
pytestmark = pytest.mark.usefixtures("published")


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    return hub


def local(tmp_path: Path, value: object, **file: object) -> ModelSpec:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(value))
    spec = replace(find_spec(SMALL), sources=(LocalSource(path=str(path)),), published_size=None)
    return replace(spec, file=replace(spec.file, **file))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_rewriting_a_local_file_does_not_reach_the_loaded_model(tmp_path: Path, suffix: str) -> None:
    from pretrainps.export.weights import export_weights

    path = tmp_path / f"w{suffix}"
    export_weights(build_backbone("resnet18"), "torchvision", path)
    model = pretrainps.load(f"file:{path}")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.save({"state_dict": model.state_dict()}, path)  # a mapped file would be gone before it is read


def test_verify_hashes_the_conversion_too() -> None:
    pretrainps.load(SMALL, progress=False)
    (native,) = Cache().folder(SMALL).glob("native-*.safetensors")
    stat = native.stat()
    body = bytearray(native.read_bytes())
    body[-400:] = bytes(400)
    native.write_bytes(body)
    os.utime(native, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    model = pretrainps.load(SMALL, verify=True)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in authors_tensors(SMALL).items())


def test_two_keys_that_stand_for_one_tensor(tmp_path: Path) -> None:
    tensors, zeros = authors_tensors(SMALL), {k: torch.zeros_like(v) for k, v in authors_tensors(SMALL).items()}
    prefixed = {f"backbone.{k}": v for k, v in tensors.items()}
    with pytest.raises(errors.StateDictMismatchError, match="UNEXPECTED"):
        pretrainps.load(local(tmp_path, {"state_dict": prefixed | zeros}, prefix="backbone."))
    r18 = authors_tensors("resnet18-hybrid")
    twice = {**r18, **{f"backbone.{k}": torch.zeros_like(v) for k, v in r18.items() if not k.startswith("layer4")}}
    path = tmp_path / "twice.pth"
    path.write_bytes(torch_bytes(twice))
    with pytest.raises(errors.StateDictMismatchError):
        pretrainps.load(f"file:{path}")
    nae = replace(
        find_spec("resnet18-hybrid"), sources=(LocalSource(path=str(path)),), file=FileFormat(layout="nae"), published_size=None
    )
    with pytest.raises(errors.LayoutError, match="both mean"):
        pretrainps.load(nae)


def test_a_configuration_cannot_excuse_missing_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = pretrainps.save_pretrained(pretrainps.load(SMALL, progress=False), tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    config["pretrainps"]["model"]["file"] = {"expected_missing": ["*"], "ignored": ["*"]}
    del config["pretrainps"]["model"]["sha256"]
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(errors.StateDictMismatchError):
        pretrainps.load(f"file:{folder}")
    with pytest.raises(errors.StateDictMismatchError):
        pretrainps.load(local(tmp_path, {"state_dict": {}}, expected_missing=("*",)))


def test_parameters_in_a_file_become_plain_tensors(tmp_path: Path) -> None:
    strange = {
        k: torch.nn.Parameter(v, requires_grad=False) if v.is_floating_point() else v for k, v in authors_tensors(SMALL).items()
    }
    model = pretrainps.load(local(tmp_path, {"state_dict": strange}))
    reference = build_backbone("shufflenetv1")
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]
    assert all(p.requires_grad for p in model.parameters()) and not any(b.requires_grad for b in model.buffers())


def test_an_averaged_copy_is_taken_and_the_other_named(tmp_path: Path) -> None:
    student = {k: v + 1 for k, v in authors_tensors(SMALL).items()}
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"student": student, "teacher": authors_tensors(SMALL)}))
    model = pretrainps.load(f"file:{path}")
    assert torch.equal(model.state_dict()["conv1.bn.bias"], authors_tensors(SMALL)["conv1.bn.bias"])
    assert "more tensors under: student" in str(pretrainps.inspect(path))


def first_weight(name: str) -> float:
    return float(next(pretrainps.load(name, progress=False).parameters()).detach().mean())


def test_a_moved_branch_is_refused_until_the_pin_is_forgotten(published: FakeHub) -> None:
    for number in (1, 2):
        model = pretrainps.load(SMALL, progress=False)
        with torch.no_grad():
            next(model.parameters()).fill_(number)
        folder = pretrainps.save_pretrained(model, Path(Cache().root).parent / f"v{number}")
        published.add("me/mine", {p.name: p.read_bytes() for p in folder.iterdir()})
        assert first_weight("hf:me/mine") == 1.0, "pinned"
    with pytest.raises(errors.IntegrityError, match="cache remove hf:me/mine --forget-pin"):
        pretrainps.download("hf:me/mine", force=True, progress=False)
    assert "hf:me/mine" in Cache().names() and not any("config" in name for name in Cache().names())
    Cache().remove("hf:me/mine", forget_pin=True)
    assert first_weight("hf:me/mine") == 2.0


def test_touching_the_cached_configuration_keeps_its_commit(published: FakeHub, tmp_path: Path) -> None:
    folder = pretrainps.save_pretrained(pretrainps.load(SMALL, progress=False), tmp_path / "saved")
    commit = published.add("me/mine", {p.name: p.read_bytes() for p in folder.iterdir()})
    pretrainps.info("hf:me/mine")
    os.utime(Cache().original("hf:me/mine/config.json") / "config.json")
    assert isinstance(source := pretrainps.info("hf:me/mine").sources[0], HubSource) and source.revision == commit


def test_a_damaged_copy_in_the_hubs_cache_is_not_pinned_offline() -> None:
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(REPO, FILES[SMALL])).resolve()
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(errors.IntegrityError, match="damaged"):
        pretrainps.load(SMALL, offline=True)
    assert not Cache().pin_path(SMALL).exists()


def test_what_is_no_checkpoint_is_not_pinned(files: FileServer) -> None:
    url = files.put("lup.pth", b'{"error": "over quota"}')
    spec = replace(find_spec("resnet50-luperson"), sources=(HttpSource(url=url),))
    with pytest.raises(errors.IntegrityError, match="no checkpoint"):
        pretrainps.load(spec, progress=False)
    files.put("lup.pth", torch_bytes(authors_tensors("resnet50-hybrid")))
    assert pretrainps.load(spec, progress=False).load_report.share == 1


@pytest.mark.parametrize(
    "failure",
    [RuntimeError("Data processing error: CAS service error"), ConnectionResetError(104, "reset"), ImportError("socksio")],
)
def test_failures_of_the_transfer_library_lead_to_the_next_source(
    files: FileServer, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    import huggingface_hub

    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    hub_source = find_spec(SMALL).sources[0]
    spec = replace(find_spec(SMALL), sources=(hub_source, HttpSource(url=files.put("s.pth", authors_file(SMALL)))))
    assert pretrainps.load(spec, progress=False).load_report.share == 1


def test_a_failed_look_up_leaves_no_trace() -> None:
    for name in ("hf:no/where", "resnet50-hybrid"):
        with pytest.raises(errors.WeightsUnavailableError):
            pretrainps.download(name, progress=False)
    assert Cache().names() == [] and not list((Cache().root / "models").iterdir())


@pytest.mark.parametrize("name", ["native-model.pth", "record.json", "incoming", "pins"])
def test_any_file_name_at_the_source(published: FakeHub, name: str) -> None:
    published.add("o/r", {name: authors_file(SMALL)})
    for offline in (False, True):
        assert pretrainps.load(f"hf:o/r/{name}", progress=False, offline=offline).load_report.share == 1


def test_missing_bundled_file_leads_to_the_next_source_or_says_so(files: FileServer) -> None:
    gone = BundledSource(file="no-such-file.safetensors")
    with pytest.raises(errors.WeightsUnavailableError, match="does not exist"):
        pretrainps.load(replace(find_spec(SMALL), sources=(gone,)))
    spec = replace(find_spec(SMALL), sources=(gone, HttpSource(url=files.put("s.pth", authors_file(SMALL)))))
    assert pretrainps.load(spec, progress=False).load_report.share == 1


def test_registry_upgrade_killed_before_its_record_was_written(files: FileServer) -> None:
    cache = Cache()
    old = replace(find_spec(SMALL), sources=(HttpSource(url=files.put("s.pth", authors_file(SMALL))),))
    path = fetch(old, cache=cache, progress=False).path
    newer = torch_bytes({"state_dict": {k: v + 0 for k, v in authors_tensors(SMALL).items()}, "epoch": 1})
    path.write_bytes(newer)
    import hashlib

    assert pretrainps.load(replace(old, sha256=hashlib.sha256(newer).hexdigest())).load_report.share == 1


@pytest.mark.parametrize("device", ["nosuch", "cuda:99", "meta:x"])
def test_devices_that_are_not_there_are_named_before_any_download(published: FakeHub, device: str) -> None:
    with pytest.raises(errors.ArgumentError, match="cannot be used here"):
        pretrainps.load(SMALL, device=device)
    assert published.requests == []


@pytest.mark.parametrize("place", ["folder.pth", "file/w.pth"])
def test_outputs_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    from pretrainps.export.weights import export_weights

    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.CacheError, match="cannot be written") as caught:
        export_weights(build_backbone("shufflenetv1"), "mmdet", tmp_path / place)
    assert "PRETRAINPS_HOME" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.pth"]


def test_a_head_that_was_saved_can_be_asked_for_by_its_kind(tmp_path: Path) -> None:
    model = pretrainps.load(SMALL, head="embedding", embedding_dim=8, progress=False)
    folder = pretrainps.save_pretrained(model, tmp_path / "saved")
    assert pretrainps.load(f"file:{folder}", head="embedding").load_report.new == ()
    assert pretrainps.load(model.spec, head="embedding", progress=False).load_report.share == 1
    for other in ({"head": "classifier", "num_classes": 3}, {"head": "embedding", "embedding_dim": 9}):
        with pytest.raises(errors.ArgumentError, match="own head"):
            pretrainps.load(f"file:{folder}", **other)  # type: ignore[arg-type]


def test_a_published_model_does_not_tell_where_it_lay(published: FakeHub, tmp_path: Path) -> None:
    secret = tmp_path / "customer-x"
    secret.mkdir()
    (secret / "w.pth").write_bytes(authors_file(SMALL))
    folder = pretrainps.save_pretrained(pretrainps.load(f"file:{secret / 'w.pth'}"), tmp_path / "out")
    text = (folder / "README.md").read_text() + (folder / "config.json").read_text()
    header = (folder / "model.safetensors").read_bytes()[:20000].decode("latin1")
    assert str(tmp_path) not in text + header


LOADER = """
import sys, pretrainps
for round in range(12):
    ignore = [sys.argv[1]] if round % 2 else []
    assert pretrainps.load("shufflenetv1-hybrid", ignore=ignore, progress=False).load_report.share == 1
"""


def test_processes_that_load_with_different_options_at_once() -> None:
    """Each option set has its own conversion; none may vanish under another process."""
    pretrainps.load(SMALL, progress=False)
    processes = [
        subprocess.Popen([sys.executable, "-c", LOADER, option], env=os.environ.copy(), stderr=subprocess.PIPE, text=True)
        for option in ("a.*", "b.*", "c.*")
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


def test_loading_while_another_process_removes_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", LOADER, "x.*"], env=os.environ.copy(), stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        Cache().remove(SMALL)
        time.sleep(0.02)
    _, err = process.communicate()
    # it loads, or, if it lost the race five times in a row, says so in words
    assert process.returncode == 0 or "errors.CacheError" in err.splitlines()[-1], err
