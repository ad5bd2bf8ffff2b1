"""What commit 749f621 wrote (0.1.0, before its release) is read by the package as it is now, and means what it meant.

`tests/fixtures/README.md` says what there is. Expected values were computed by that commit, under torch 2.14.1 on a CPU.
Stored tensors must come back bit for bit. What is computed from them may differ as sums do that another processor or another
torch orders otherwise: by `CLOSE`, losses of a training by `TRAINED`, and its weights by `WAY`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import pretrainps
from pretrainps.cli import main
from pretrainps.errors import IntegrityError
from tests.support.fakehub import FakeHub

ARCHIVE = Path(__file__).parent / "fixtures" / "0.1.0-749f621" / "files.tar.xz"
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
"""Boxes are in pixels; scores, embeddings and pooled maps are about 1."""
TRAINED = {"rtol": 1e-2, "atol": 1e-3}
WAY = {"finetune": 0.01, "pretrain": 0.2}
"""As a share of the way that weights went since the run was interrupted. Adam, which pre-trains, makes steps of full length out
of gradients that are nothing but rounding; without its state the share is above 0.5."""
CROPS = ("backbone", "embedder", "classifier")
DETECTORS = ("oim", "nae", "nae+", "seqnet", "oim-unusual", "nae-unusual", "nae+-unusual", "seqnet-unusual")
"""The unusual ones have no setting at its default, so all settings stand in their `config.json`."""
pytestmark = pytest.mark.xdist_group("compatibility")  # one process unpacks the archive, for all


@dataclass(frozen=True)
class Written:
    """What the archive holds."""

    folder: Path
    expected: Any
    arrays: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written") / "by 749f621"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with np.load(folder / "expected.npz") as arrays:
        return Written(folder, json.loads((folder / "expected.json").read_text()), dict(arrays))


@pytest.fixture
def written(unpacked: Written, monkeypatch: pytest.MonkeyPatch) -> Written:
    """The files, in the folder that paths are relative to. Only copies of them may be written to."""
    monkeypatch.chdir(unpacked.folder)
    return unpacked


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command, which must succeed, and returns what it says."""

    def command(*arguments: str | Path) -> str:
        status = main([str(each) for each in arguments])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return command


def digest(tensor: Tensor) -> str:
    head = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} "
    return head + hashlib.sha256(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def digests(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {key: digest(value) for key, value in tensors.items()}


def scene(written: Written) -> Tensor:
    with Image.open(written.expected["scene"]) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1) / 255


def close(found: Any, wanted: Any, **tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=np.float64), np.asarray(wanted), **(tolerance or CLOSE))


def same_numbers(found: Any, wanted: Any, place: str = "") -> None:
    """Compare reports: every number that there was is there still, and is what it was. Words may change."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            assert key in found, f"{place}.{key}"
            same_numbers(found[key], value, f"{place}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            same_numbers(one, other, f"{place}[{number}]")
    elif isinstance(wanted, int | float):
        np.testing.assert_allclose(found, wanted, **CLOSE, err_msg=place)


@pytest.mark.parametrize("name", (*CROPS, *DETECTORS))
def test_a_saved_model_has_its_tensors_and_its_kind(written: Written, name: str) -> None:
    wanted = written.expected["models"][name]
    model = pretrainps.load(f"file:models/{name}")
    assert digests(model.state_dict()) == wanted["tensors"]
    assert list(model.state_dict()) == list(wanted["tensors"]), "in the same order, by which optimizers count"
    assert model.load_report.share == 1 and model.load_report.parameters == wanted["parameters"]
    assert type(model).__name__ == wanted["type"] or name not in DETECTORS
    bare = pretrainps.load(f"file:models/{name}/model.safetensors")
    assert digests(bare.state_dict()) == wanted["tensors"], "the weights file alone says what it is"


@pytest.mark.parametrize("name", CROPS)
def test_a_saved_backbone_computes_what_it_did(written: Written, name: str) -> None:
    model = pretrainps.load(f"file:models/{name}")
    with torch.inference_mode():
        found = model(torch.from_numpy(written.arrays["crops"]).float())
    if name == "backbone":
        close(found["c5"].mean((2, 3)), written.arrays["backbone/c5"])
    else:
        close(found, written.arrays[f"{name}/rows"])


@pytest.mark.parametrize("name", DETECTORS)
def test_a_saved_detector_finds_what_it_did(written: Written, tmp_path: Path, name: str) -> None:
    model: Any = pretrainps.load(f"file:models/{name}")
    with torch.inference_mode():
        (found,) = model([scene(written)])
        (embedded,) = model.embed([scene(written)], [torch.tensor([[60.0, 40, 100, 150]])])
    for each in ("boxes", "scores", "embeddings", "labels"):
        close(found[each], written.arrays[f"{name}/{each}"], rtol=1e-3, atol=0.05 if each == "boxes" else 1e-3)
    close(embedded, written.arrays[f"{name}/embedded"])
    again: Any = pretrainps.load(pretrainps.save_pretrained(model, tmp_path / "again"))
    assert again.config == model.config and digests(again.state_dict()) == digests(model.state_dict())


@pytest.mark.parametrize("file", ["torchvision.pth", "timm.safetensors", "mmdet.pth"])
def test_exported_weights_come_back(written: Written, file: str) -> None:
    model = pretrainps.load(f"file:exports/{file}")
    assert digests(model.state_dict()) == written.expected["models"]["backbone"]["tensors"]


@pytest.mark.parametrize("name", ["backbone", "nae", "nae+", "seqnet"])
def test_other_code_bases_get_the_names_that_they_got(
    written: Written, tmp_path: Path, run: Callable[..., str], name: str
) -> None:
    entries = [each for each in written.expected["exports"] if each["model"] == name]
    assert entries
    for number, each in enumerate(entries):
        file = tmp_path / f"{number}.safetensors"
        run("export-weights", f"file:models/{name}", "--layout", each["layout"], "-o", file, "--quiet")
        assert digests(load_file(file)) == each["tensors"], each["layout"]


@pytest.mark.parametrize("name", ["campus", "street", "crowd", "market", "city"])
def test_synthesized_data_are_read_alike(written: Written, run: Callable[..., str], name: str) -> None:
    pytest.importorskip("scipy")
    found, wanted = json.loads(run("data", "check", f"data/{name}", "--json", "--quiet")), written.expected["data"][name]
    assert found["layout"] == wanted["layout"] and not found["unreadable"]
    for each in ("search", "splits"):
        same_numbers(found[each], wanted[each], each)


def gallery_copy(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path("galleries", name), tmp_path / name))


def detector_of(wanted: Any) -> Any:
    return pretrainps.load(wanted["model"])


@pytest.mark.parametrize("name", ["photos", "approximate", "film", "half", "interrupted", "film-interrupted"])
def test_a_gallery_opens_with_everyone_in_it(written: Written, tmp_path: Path, name: str) -> None:
    wanted = written.expected["galleries"][name]
    gallery = pretrainps.Gallery.open(Path("galleries", name))
    assert sorted(gallery.image_names) == wanted["images"]
    assert gallery.complete is wanted["complete"] and gallery.model_name == wanted["model"]
    for image, people in wanted["people"].items():
        assert [[*each.box, each.score] for each in gallery.detections_of(image)] == people, image
    assert gallery.matches(detector_of(wanted)), "the model is known by the same hash"


@pytest.mark.parametrize("name", ["photos", "film", "half"])
def test_a_complete_gallery_is_up_to_date(written: Written, tmp_path: Path, name: str) -> None:
    """Its images lie elsewhere now, and that it was made with this model is known."""
    if name == "film":
        pytest.importorskip("av")
    store, wanted = gallery_copy(name, tmp_path), written.expected["galleries"][name]
    options: dict[str, Any] = {"photos": {}, "film": {"fps": 2.0}, "half": {"precision": "bfloat16"}}[name]
    place = "walk.mp4" if name == "film" else "photos"
    report = pretrainps.Gallery.index(place, detector_of(wanted), store=store, progress=False, **options)
    assert (report.added, report.changed, report.removed) == (0, 0, 0) and report.unchanged == len(wanted["images"])
    assert [each.image for each in report.failures] == ([] if name == "film" else ["note.png"])
    gallery = pretrainps.Gallery.open(store)
    assert gallery.image_names == pretrainps.Gallery.open(Path("galleries", name)).image_names
    assert gallery.picture(gallery.image_names[0]).size == ((240, 160) if name == "film" else (480, 320))


@pytest.mark.parametrize("rerank", [False, True])
def test_a_gallery_answers_as_it_did(written: Written, rerank: bool) -> None:
    if rerank:
        pytest.importorskip("scipy")
    wanted, query = written.expected["reranked" if rerank else "hits"], written.expected["query"]
    gallery = pretrainps.Gallery.open("galleries/photos", root="photos")
    model: Any = pretrainps.load(gallery.model_name)
    found = gallery.search(model, f"photos/{query['image']}", tuple(query["box"]), top=5, rerank=rerank).hits
    assert [hit.detection.image for hit in found] == [image for image, _, _ in wanted]
    assert [[*hit.detection.box] for hit in found] == [box for _, box, _ in wanted], "read, not computed again"
    close([hit.similarity for hit in found], [similarity for _, _, similarity in wanted])


def test_an_approximate_gallery_is_searched_by_its_index(written: Written, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    wanted = written.expected["galleries"]["approximate"]
    gallery, model = pretrainps.Gallery.open("galleries/approximate", root="photos"), detector_of(wanted)
    assert gallery.method != "exact", "the index is still that of these people"
    first = gallery.detections_of("0.jpg")[0]
    hits = gallery.search(model, "photos/0.jpg", first.box, top=3).hits
    assert hits[0].detection == first and hits[0].similarity > 0.5
    pretrainps.Gallery.index("photos", model, store=gallery_copy("approximate", tmp_path), progress=False)
    again = pretrainps.Gallery.open(tmp_path / "approximate", root="photos")
    exact = again.search(model, "photos/0.jpg", first.box, top=3)
    assert again.method == "exact" and [hit.detection for hit in exact.hits] == [hit.detection for hit in hits]


@pytest.mark.parametrize(("name", "whole"), [("interrupted", "photos"), ("film-interrupted", "film")])
def test_an_interrupted_gallery_goes_on(written: Written, tmp_path: Path, name: str, whole: str) -> None:
    """What was looked at is not looked at again, and the end is that of the run that was not interrupted."""
    if whole == "film":
        pytest.importorskip("av")
    had, wanted = written.expected["galleries"][name], written.expected["galleries"][whole]
    store, place, fps = gallery_copy(name, tmp_path), *(("walk.mp4", 2.0) if whole == "film" else ("photos", None))
    report = pretrainps.Gallery.index(place, detector_of(had), store=store, fps=fps, progress=False)
    assert report.unchanged == len(had["images"]) > 0
    assert report.added == len(wanted["images"]) - len(had["images"]) > 0
    gallery = pretrainps.Gallery.open(store)
    assert gallery.complete and sorted(gallery.image_names) == wanted["images"]
    for image, people in wanted["people"].items():
        found = [[*each.box, each.score] for each in gallery.detections_of(image)]
        if image in had["people"]:
            assert found == people
        close(found, people, rtol=1e-3, atol=0.1)


def test_a_gallery_is_extended(written: Written, tmp_path: Path) -> None:
    """One photo more, one less, one changed; the others stay as 749f621 saw them."""
    wanted = written.expected["galleries"]["photos"]
    shutil.copytree("photos", tmp_path / "photos")
    shutil.copy("photos/0.jpg", tmp_path / "photos" / "again.jpg")
    shutil.copy("photos/2.jpg", tmp_path / "photos" / "trip" / "1.jpg")
    (tmp_path / "photos" / "trip" / "3.jpg").unlink()
    store = gallery_copy("photos", tmp_path / "stores")
    report = pretrainps.Gallery.index(tmp_path / "photos", detector_of(wanted), store=store, progress=False)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 2)
    gallery = pretrainps.Gallery.open(store)
    for image in ("0.jpg", "2.jpg"):
        assert [[*each.box, each.score] for each in gallery.detections_of(image)] == wanted["people"][image]
    close([each.box for each in gallery.detections_of("again.jpg")], [each[:4] for each in wanted["people"]["0.jpg"]], atol=0.1)


def test_a_damaged_old_gallery_is_still_refused(written: Written, tmp_path: Path) -> None:
    for number, change in enumerate((b'"complete": false', b'"dim": 257', b'"kind": "nae"')):
        store = Path(shutil.copytree("galleries/photos", tmp_path / str(number)))
        manifest = (store / "manifest.json").read_bytes()
        key = change.partition(b":")[0]
        (line,) = [each for each in manifest.splitlines() if each.strip().startswith(key) and b"folder" not in each]
        (store / "manifest.json").write_bytes(manifest.replace(line, change + b","))
        with pytest.raises(IntegrityError, match="rebuild"):
            pretrainps.Gallery.open(store)


@pytest.mark.parametrize("name", ["search", "context", "annotated", "detection", "reid"])
def test_an_evaluation_repeats_its_numbers(written: Written, tmp_path: Path, run: Callable[..., str], name: str) -> None:
    """With the features that were kept then, whether they are used or made anew."""
    pytest.importorskip("scipy")
    wanted, folder = written.expected["evaluation"][name], tmp_path / "features"
    shutil.copytree("features", folder)
    report = json.loads(run("evaluate", *wanted["arguments"], "--features", folder, "--quiet", "--json"))
    same_numbers(report, wanted["report"])


@pytest.mark.parametrize("name", ["shufflenetv1-hybrid", "hf:someone/embedder"])
def test_a_cache_gives_its_models_without_a_network(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub, run: Callable[..., str], name: str
) -> None:
    home = Path(shutil.copytree("cache", tmp_path / "cache"))
    monkeypatch.setenv("PRETRAINPS_HOME", str(home))
    for verify in (False, True):
        model = pretrainps.load(name, offline=True, progress=False, verify=verify)
        assert digests(model.state_dict()) == written.expected["cache"][name]
    listed = {each["name"]: each for each in json.loads(run("cache", "--json"))["models"]}
    assert listed[name]["sha256"] == model.spec.sha256 and not hub.requests


def test_a_pin_holds(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub, run: Callable[..., str]
) -> None:
    """Its file was removed from the cache; another one behind the same name is refused, the same one is taken."""
    home = Path(shutil.copytree("cache", tmp_path / "cache"))
    monkeypatch.setenv("PRETRAINPS_HOME", str(home))
    other = {each.name: each.read_bytes() for each in Path("models/classifier").iterdir()}
    hub.add("someone/backbone", other)
    with pytest.raises(IntegrityError, match="pin of its first download"):
        pretrainps.load("hf:someone/backbone", progress=False)
    same = {each.name: each.read_bytes() for each in Path("models/backbone").iterdir()}
    hub.add("someone/backbone", same)
    model = pretrainps.load("hf:someone/backbone", progress=False)
    assert digests(model.state_dict()) == written.expected["models"]["backbone"]["tensors"]


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{"step": line["step"], **line["losses"]} for line in lines if line["kind"] == "train"]


def newest(run: Path | str) -> Path:
    (folder,) = Path(run, "checkpoints").glob("step_*")
    return folder


def moved_otherwise(ours: dict[str, Tensor], theirs: dict[str, Tensor], begun: dict[str, Tensor]) -> float:
    """Return how far the weights of two ends lie apart, as a share of the way to one of them; what was measured must agree."""
    assert ours.keys() == theirs.keys() == begun.keys()
    measured = [key for key in theirs if "running_" in key or "num_batches" in key or key.startswith("oim_loss.")]
    for key in measured:
        torch.testing.assert_close(ours[key], theirs[key], **TRAINED, msg=lambda text, key=key: f"{key}: {text}")
    learned = theirs.keys() - set(measured)
    between = sum((ours[key] - theirs[key]).double().square().sum().item() for key in learned)
    way = sum((begun[key] - theirs[key]).double().square().sum().item() for key in learned)
    return float(between / way) ** 0.5


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_an_interrupted_run_goes_on_to_the_end_it_would_have_had(
    written: Written, tmp_path: Path, run: Callable[..., str], name: str
) -> None:
    """Optimizer, generators, place in the epoch, running mean and log are as they were left."""
    pytest.importorskip("scipy")
    wanted = written.expected["runs"][name]
    folder = Path(shutil.copytree(f"runs/{name}-interrupted", tmp_path / "run"))
    logged, start = losses(folder), newest(folder)
    begun = {file.name: load_file(file) for file in start.glob("*.safetensors")}
    assert len(begun) == (2 if name == "finetune" else 1) and 0 < len(logged) < wanted["step"]
    run(*wanted["arguments"], "-o", folder, "--resume")
    found = losses(folder)
    assert found[: len(logged)] == logged, "nothing was done twice"
    for one, other in zip(found, wanted["losses"], strict=True):
        assert one.keys() == other.keys()
        close([*one.values()], [*other.values()], **TRAINED)
    for file, weights in begun.items():
        ours, theirs = (load_file(newest(each) / file) for each in (folder, f"runs/{name}-finished"))
        assert moved_otherwise(ours, theirs, weights) < WAY[name], file
    position = json.loads((newest(folder) / "state.json").read_text())["position"]
    assert position["step"] == wanted["step"]
    same_numbers(position["metrics"], wanted["metrics"])


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_finished_run_is_known_as_finished(written: Written, tmp_path: Path, run: Callable[..., str], name: str) -> None:
    pytest.importorskip("scipy")
    folder = Path(shutil.copytree(f"runs/{name}-finished", tmp_path / "run"))
    part = "backbone" if name == "pretrain" else "model"
    before = digests(pretrainps.load(folder / part).state_dict())
    run(*written.expected["runs"][name]["arguments"], "-o", folder, "--resume")
    assert losses(folder) == written.expected["runs"][name]["losses"], "there was nothing left to do"
    assert digests(pretrainps.load(folder / part).state_dict()) == before
    run("plot", folder, "-o", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_other_settings_are_still_told_from_those_a_run_was_begun_with(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    arguments = written.expected["runs"]["finetune"]["arguments"]
    for change in ("optim.lr=0.5", "detector.min_size=161", "loop.seed=4"):
        folder = Path(shutil.copytree("runs/finetune-interrupted", tmp_path / change))
        assert main([*arguments, "--set", change, "-o", str(folder), "--resume"]) == 1
        assert change.partition("=")[0] in capsys.readouterr().err
        assert losses(folder) == losses(Path("runs/finetune-interrupted"))


def test_a_detector_starts_from_a_pre_training(written: Written, tmp_path: Path, run: Callable[..., str]) -> None:
    """With the backbone and the heads that lie in its folder."""
    pytest.importorskip("scipy")
    small = [*written.expected["runs"]["finetune"]["arguments"]]
    small[small.index("seqnet_synthetic")] = "nae_synthetic"
    small[small.index("--backbone") + 1] = "runs/pretrain-finished"
    still = ["--set", "loop.max_steps=1", "--set", "optim.lr=1e-12", "--set", "loop.ema_decay=none", "--no-evaluation"]
    run(*small, *still, "-o", tmp_path / "run")
    found = pretrainps.load(tmp_path / "run" / "model").state_dict()
    heads = load_file("runs/pretrain-finished/backbone/heads.safetensors")
    taken = [key for key in heads if key.startswith(("rpn.", "embedding_head.")) and ".1." not in key]
    assert {key.partition(".")[0] for key in taken} == {"rpn", "embedding_head"}
    for key in taken:
        torch.testing.assert_close(found[key], heads[key], rtol=1e-5, atol=1e-6)
    backbone = pretrainps.load("file:runs/pretrain-finished/backbone").state_dict()
    torch.testing.assert_close(found["backbone.conv1.weight"], backbone["conv1.weight"], rtol=1e-5, atol=1e-6)
