"""The folder of a training, its checkpoints and their files load by name, during and after the run, also of old versions."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import pretrainps
from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import NAE, PersonSearchDetector
from pretrainps.errors import IntegrityError, LayoutError, StateDictMismatchError, WeightsUnavailableError
from pretrainps.training.engine.checkpoints import checkpoint_notes
from pretrainps.training.pretraining.save import save_backbone
from pretrainps.weights import read_metadata
from tests.support.detectors import TINY
from tests.training.hybrids import batch, hybrid
from tests.training.tasks import DetectorTask, LineTask, fit

SHORT: dict[str, Any] = {"epochs": 1, "max_steps": 2, "ema_decay": 0.9}


class Detection(DetectorTask):
    """A detector that `build_detector` made, with a measure that rises or falls."""

    metric: str | None = "made up"

    def __init__(self, values: tuple[float, ...] = (0.5,)) -> None:
        super().__init__()
        backbone = build_backbone("shufflenetv1")
        self.model = pretrainps.build_detector("nae", backbone=backbone, config=TINY)
        self.values = list(values)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"made up": self.values.pop(0)}


class Pretraining(LineTask):
    """A pre-training on batches of noise."""

    metric = None

    def __init__(self, align: str = "none") -> None:
        super().__init__(model=hybrid(align))
        self.batch = batch()

    def stream(self, rank: int, world_size: int) -> Any:
        return _Repeated(self.batch)

    def names(self, batch: Any) -> list[str]:
        return ["noise"]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


class _Repeated:
    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def start_at(self, epoch: int, done: int = 0) -> None:
        self.done = done

    def __iter__(self) -> Any:
        return iter([self.batch] * (2 - self.done))


def train(folder: Path, task: Any, recipe: dict[str, Any] | None = None, **loop: Any) -> Path:
    """Train, with the recipe that the commands record."""
    from pretrainps.training import LoopSettings
    from pretrainps.training import train as run
    from tests.training.tasks import OPTIM

    settings = LoopSettings(**{"log_every": 1, "device": "cpu", **SHORT, **loop})
    run(task, OPTIM, settings, folder, config={"recipe": recipe or {}}, progress=False)
    return folder


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step_*"))[-1]


def equal(model: nn.Module, file: Path) -> bool:
    state, wanted = model.state_dict(), load_file(file)
    return set(state) == set(wanted) and all(torch.equal(state[key], wanted[key]) for key in wanted)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's run at its end, without the folder that the command writes then."""
    task = Detection()
    recipe = {"kind": "nae", "detector": asdict(task.model.config), "backbone": "random:shufflenetv1"}
    return train(tmp_path_factory.mktemp("runs") / "detector", task, recipe)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "hybrid", Pretraining(), {"hybrid": {}, "backbone": "random:shufflenetv1"})


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def without_notes(run: Path) -> None:
    """Make the checkpoints those of a version that wrote nothing into their headers."""
    for file in run.rglob("*.safetensors"):
        save_file(load_file(file), file)
    for folder in (run / "checkpoints").glob("step_*"):
        from pretrainps.files import sha256_of

        manifest = json.loads((folder / "manifest.json").read_text())
        for name in manifest:
            manifest[name] = [(folder / name).stat().st_size, sha256_of(folder / name)]
        (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("version", ["now", "before"])
def test_every_name_of_a_run_loads(run: Path, version: str) -> None:
    if version == "before":
        without_notes(run)
    checkpoint, best = newest(run), run / "checkpoints" / "best.safetensors"
    for path, file, words in (
        (run, best, "best weights so far"),
        (run / "config.json", best, "best weights so far"),
        (run / "checkpoints", best, "best weights so far"),
        (best, best, "of step 2"),
        (checkpoint, checkpoint / "averaged.safetensors", "running mean"),
        (checkpoint / "averaged.safetensors", checkpoint / "averaged.safetensors", "running mean"),
        (checkpoint / "model.safetensors", checkpoint / "model.safetensors", "the weights of a run's checkpoint at step 2"),
    ):
        if version == "before":
            words = words.replace("of step 2", "of a run")
        model = pretrainps.load(f"file:{path}")
        assert isinstance(model, NAE) and model.config.num_identities == 4 and model.config.min_size == 64
        assert equal(model, file) and model.load_report.ok
        assert model.load_report.name == f"file:{file}" and words in model.spec.summary
        seen = pretrainps.inspect(path)
        assert seen.path == file and seen.problem is None and words in str(seen.run)
        assert seen.saved_by_us is not None and f"file:{file}" in str(seen)
        assert seen.to_json()["run"] == seen.run


def test_what_came_out_is_taken_at_the_end(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pretrainps.load(f"file:{newest(run)}")
    pretrainps.save_pretrained(model, run / "model")
    found = pretrainps.load(f"file:{run}")
    assert found.load_report.name == f"file:{run / 'model'}" and equal(found, newest(run) / "averaged.safetensors")
    assert pretrainps.inspect(run).path == run / "model" / "model.safetensors"
    monkeypatch.chdir(tmp_path)
    assert pretrainps.load("file:run").load_report.name == "file:run/model"
    assert pretrainps.load("file:run/model/config.json").load_report.name == "file:run/model"
    # what was resumed for longer is on its way again, and the folder is of its earlier end
    settings = json.loads((run / "config.json").read_text())
    settings["loop"] |= {"max_steps": 100, "epochs": 9}
    (run / "config.json").write_text(json.dumps(settings))
    assert "best weights so far" in pretrainps.load("file:run").spec.summary
    shutil.rmtree(run / "checkpoints")
    assert pretrainps.load("file:run").load_report.name == "file:run/model"


def test_without_a_measure_the_newest_whole_checkpoint_is_taken(tmp_path: Path) -> None:
    task = Detection()
    task.metric = None
    run = train(tmp_path / "run", task, checkpoint_steps=1, ema_decay=None)
    first, last = sorted((run / "checkpoints").glob("step_*"))
    assert equal(pretrainps.load(f"file:{run}"), last / "model.safetensors")
    with (last / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"!!!")
    assert equal(pretrainps.load(f"file:{run}"), first / "model.safetensors")
    with pytest.raises(IntegrityError, match=rf"does not have its recorded sha256.*{first.name} is whole: load that"):
        pretrainps.load(f"file:{last}")
    assert pretrainps.load(f"file:{first}").load_report.ok, "the remedy"
    (first / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsUnavailableError, match="its checkpoints are damaged"):
        pretrainps.load(f"file:{run}")


@pytest.mark.parametrize("name", ["training.pt", "state.json", "manifest.json"])
def test_the_other_files_of_a_checkpoint_say_what_to_load(run: Path, name: str) -> None:
    path = newest(run) / name
    for ask in (lambda: pretrainps.load(f"file:{path}"), lambda: pretrainps.inspect(path)):
        with pytest.raises(WeightsUnavailableError, match="holds no weights: load the checkpoint's folder") as caught:
            ask()
    assert pretrainps.load(str(caught.value).rpartition(", ")[2].rstrip(".")).load_report.ok


def test_a_run_without_weights_says_where_they_will_be(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(run, LineTask(), max_steps=1)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(WeightsUnavailableError, match=r"has no checkpoint yet.*run/model.*--resume"):
        pretrainps.load(f"file:{run}")
    assert fit(run, LineTask(), resume=True, max_steps=1).step == 1, "the remedy"


def test_a_run_under_way_is_a_start(run: Path, pretrained: Path) -> None:
    from pretrainps.training.start import starting_model

    for name, kind in ((str(run), NAE), (f"file:{newest(run)}", NAE), (str(pretrained), Backbone)):
        assert isinstance(starting_model(name, offline=True, progress=False), kind)


@pytest.mark.parametrize("name", ["best.safetensors", "averaged.safetensors", "model.safetensors"])
def test_a_file_that_was_taken_out_loads_by_itself(run: Path, name: str, tmp_path: Path) -> None:
    file = run / "checkpoints" / name if name.startswith("best") else newest(run) / name
    shutil.copy(file, tmp_path / "taken.safetensors")
    model = pretrainps.load(f"file:{tmp_path / 'taken.safetensors'}")
    assert isinstance(model, NAE) and equal(model, file)
    assert pretrainps.inspect(tmp_path / "taken.safetensors").saved_by_us is not None


@pytest.mark.parametrize("version", ["now", "before"])
def test_of_a_pretraining_the_backbone_is_loaded(pretrained: Path, version: str, tmp_path: Path) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    run = tmp_path / "run"
    if version == "before":
        without_notes(run)
    task = Pretraining()
    task.model.load_state_dict(load_file(newest(run) / "averaged.safetensors"))
    wanted = task.model.plain_backbone().state_dict()
    for path in (run, newest(run), newest(run) / "averaged.safetensors", run / "config.json"):
        model = pretrainps.load(f"file:{path}")
        assert isinstance(model, Backbone) and model.arch == "shufflenetv1"
        assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
        assert any(key.startswith("detection.") for key in model.load_report.ignored)
        assert "the backbone is loaded" in model.spec.summary and "backbone of a pre-training" in str(pretrainps.inspect(path))
    if version == "now":
        shutil.copy(newest(run) / "averaged.safetensors", tmp_path / "taken.safetensors")
        assert isinstance(pretrainps.load(f"file:{tmp_path / 'taken.safetensors'}"), Backbone)
    # at its end it is the folder with the heads, for fine-tuning
    save_backbone(task.model, run / "backbone")
    assert pretrainps.load(f"file:{run}").load_report.name == f"file:{run / 'backbone'}"
    assert isinstance(pretrainps.build_detector("oim", backbone=f"file:{run}", num_identities=2), PersonSearchDetector)


def test_batch_norms_of_each_data_sets_own_wait_for_the_end(tmp_path: Path) -> None:
    task = Pretraining("domain_norm")
    run = train(tmp_path / "run", task, {"hybrid": {}, "backbone": "random:shufflenetv1"})
    for path in (run, newest(run), newest(run) / "model.safetensors"):
        with pytest.raises(LayoutError, match=r"domain_norm.*Let it come to its end"):
            pretrainps.load(f"file:{path}")
        assert "domain_norm" in str(pretrainps.inspect(path).problem)
    without_notes(run)
    with pytest.raises(LayoutError, match="domain_norm"):
        pretrainps.load(f"file:{run}")
    save_backbone(task.model, run / "backbone")
    assert pretrainps.load(f"file:{run}").load_report.ok, "the remedy"


@pytest.mark.parametrize("start", ["random:resnet18", "shufflenetv1-hybrid", "a/folder/that/is/gone", "timm:nosuch"])
def test_settings_of_an_earlier_version_must_fit_the_file(run: Path, start: str) -> None:
    """The initial weights determine the architecture, if that fits; otherwise the shapes do."""
    without_notes(run)
    settings = json.loads((run / "config.json").read_text())
    settings["recipe"]["backbone"] = start
    (run / "config.json").write_text(json.dumps(settings))
    model = pretrainps.load(f"file:{run}")
    assert isinstance(model, NAE) and model.spec.arch == "shufflenetv1"
    assert model.convention.status == ("assumed" if start != "shufflenetv1-hybrid" else pretrainps.info(start).input.status)
    settings["recipe"]["detector"]["embedding_dim"] = 7
    (run / "config.json").write_text(json.dumps(settings))
    assert pretrainps.inspect(run).saved_by_us is None, "nothing is said that the file is not"


def test_a_compiled_model_leaves_checkpoints_under_its_own_keys(tmp_path: Path) -> None:
    task = Detection()
    task.model = torch.compile(task.model, backend="eager", dynamic=True)
    task.metric = None
    # what compiles is not the matter: the loop calls the model that is inside
    task.model.forward = task.model._orig_mod.forward
    run = train(tmp_path / "run", task)
    for name in ("model.safetensors", "averaged.safetensors"):
        assert pretrainps.load(f"file:{newest(run) / name}").load_report.ok
        assert not any("_orig_mod" in key for key in load_file(newest(run) / name))


def test_a_changed_model_trains_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    model = pretrainps.build_detector("nae", backbone=build_backbone("shufflenetv1"), config=TINY)
    torch.nn.utils.parametrizations.weight_norm(model.rpn.head.cls_logits)
    assert checkpoint_notes(model) == {}
    assert "can be resumed, but not loaded by themselves" in caplog.text and "remove_parametrizations" in caplog.text
    with pytest.raises(StateDictMismatchError):
        pretrainps.save_pretrained(model, "nowhere")
    assert checkpoint_notes(nn.Linear(2, 2)) == {}


def test_the_header_names_no_place_on_this_machine(run: Path, tmp_path: Path) -> None:
    pretrainps.save_pretrained(pretrainps.load("tiny-hybrid-synthetic"), tmp_path / "start")
    detector = pretrainps.build_detector("nae", backbone=tmp_path / "start", config=TINY)
    written = json.dumps([checkpoint_notes(detector), read_metadata(run / "checkpoints" / "best.safetensors")])
    assert str(tmp_path) not in written
