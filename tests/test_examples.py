"""Each example runs as its docstring says."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.errors import ArgumentError
from pretrainps.synthetic.writing import WorldSize, synthesize
from tests.support.detectors import SMALL, lively_detector
from tests.support.fakehub import FakeHub
from tests.support.search_model import noisy_photos, search_model
from tests.support.weights import FILES, REPO, authors_file

EXAMPLES = Path(__file__).parent.parent / "examples"
BENCHMARKS = EXAMPLES.parent / "benchmarks"
WORLD = WorldSize(people=2, test_people=2, appearances=2)
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a script in a folder of its own and return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str, folder: Path = EXAMPLES) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(folder / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def hybrid(hub: FakeHub) -> FakeHub:
    """The Hub with the two small backbones."""
    hub.add(REPO, {FILES[name]: authors_file(name) for name in ("shufflenetv1-hybrid", "resnet18-hybrid")})
    return hub


@pytest.fixture
def detector(tmp_path: Path) -> str:
    """A saved detector that finds people in noise."""
    return f"file:{pretrainps.save_pretrained(search_model(), tmp_path / 'detector')}"


def test_extract_features(hybrid: FakeHub, tmp_path: Path, run: Run) -> None:
    Image.new("RGB", (320, 256)).save(tmp_path / "scene.jpg")
    out = run("extract_features.py", str(tmp_path / "scene.jpg"), "--model", "shufflenetv1-hybrid")
    assert "(100 %)" in out and "c4: stride 16, (1, 480, 16, 20)" in out and "(1, 960, 7, 4)" in out


def test_build_nae(hybrid: FakeHub, run: Run) -> None:
    out = run("build_nae.py", "--backbone", "shufflenetv1-hybrid", "--small")
    losses = dict(re.findall(r"^(loss_\w+): (\S+)$", out, flags=re.MULTILINE))
    assert set(losses) == {f"loss_{part}" for part in ("rpn_cls", "rpn_reg", "box_cls", "box_reg", "box_reid")}
    assert all(0 <= float(value) < 100 for value in losses.values()) and float(losses["loss_box_reid"]) > 0
    drawn = [int(count) for count in re.findall(r"(\d+) drawn", out)]
    assert len(drawn) == 2 and f"({sum(drawn)}, 256)" in out


def test_finetune_own_data(hybrid: FakeHub, tmp_path: Path, run: Run) -> None:
    synthesize("coco_search", tmp_path / "mine", size=WORLD)
    little = ("--small", "--steps", "1", "--batch-size", "2", "--workers", "0")
    out = run("finetune_own_data.py", "mine", "-o", "run", "--backbone", "shufflenetv1-hybrid", *little)
    assert "scenes with 2 people" in out and "2 queries in" in out and re.search(r"1 steps: mAP \S+, top-1 \d", out)
    spec = pretrainps.info("file:run/model")
    assert spec.detector is not None and spec.detector.kind == "seqnet"
    assert spec.detector.config["num_identities"] == 2 and spec.detector.config["min_size"] == 160
    assert pretrainps.load("file:run/model").load_report.ok


def test_evaluate_prw(detector: str, tmp_path: Path, run: Run) -> None:
    synthesize("prw", tmp_path / "prw", size=WORLD)
    out = run("evaluate_prw.py", "prw", "--model", detector)
    assert out.startswith("2 queries in ")
    assert out.count("mAP 0.") == 2 and "top-1" in out and "context matching with k1 = 30" in out and "recall" in out


def test_search_photos(detector: str, tmp_path: Path, run: Run) -> None:
    noisy_photos(tmp_path / "photos", 2)
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    asked = ("photos", "--query", "photos/photo 1.png", "--model", detector)
    with pytest.raises(ArgumentError, match="Choose one by number"):
        run("search_photos.py", *asked)
    with Image.open("found/people.png") as numbered:
        assert numbered.width >= 960
    out = run("search_photos.py", *asked, "--person", "1")
    assert "2 as before" in out and "broken.jpg" in out and "photo 0.png" in out
    assert re.search(r"photo 1\.png#\d+ \(the query itself\)", out)
    assert "photo 1.png" in Path("found/report.html").read_text()


def test_torch_hub(hybrid: FakeHub, run: Run) -> None:
    out = run("torch_hub.py", "--model", "shufflenetv1_hybrid")
    assert "ShuffleNetV1" in out and "(100 %)" in out and "-> (2, 960)" in out


def test_export_onnx(tmp_path: Path, run: Run) -> None:
    model = pretrainps.build_detector("oim", backbone=build_backbone("resnet_tiny"), config=SMALL | {"score_threshold": 0.03})
    model.load_state_dict(lively_detector("oim", "resnet_tiny").state_dict())
    pretrainps.save_pretrained(model, tmp_path / "oim")
    (photo,) = noisy_photos(tmp_path / "photos", 1)
    out = run("export_onnx.py", str(photo), "--model", "file:oim")
    found, wanted = re.findall(r"(\d+) people by onnxruntime, (\d+) by the model", out)[0]
    assert found == wanted != "0" and out.count("a person at") == int(found)
    furthest = [float(value) for value in re.findall(r"\d\.\de[-+]\d\d", out)]
    assert len(furthest) == 3 and max(furthest) < 1e-2


@pytest.mark.parametrize(("layout", "stages"), [("torchvision", 1), ("nae", 1), ("seqnet", 2)])
def test_other_code_base(hybrid: FakeHub, run: Run, layout: str, stages: int) -> None:
    out = run("other_code_base.py", "--model", "resnet18-hybrid", "--layout", layout)
    assert "All keys matched" in out
    differences = [float(value) for value in re.findall(r"largest difference (\S+)", out)]
    assert len(differences) == stages and max(differences) < 1e-4


def test_histogram_baseline(run: Run) -> None:
    """The world is neither trivial nor hopeless."""
    out = run("histogram_baseline.py", "--people", "40", "--domain", "reid_hall", folder=BENCHMARKS)
    (line,) = (line for line in out.splitlines() if "mAP" in line)
    assert 0.1 < float(line.split("mAP")[1].split()[0].rstrip(",")) < 0.5


def test_every_example_is_tested() -> None:
    mine = Path(__file__).read_text()
    assert all(f'"{path.name}"' in mine for path in EXAMPLES.glob("*.py"))
