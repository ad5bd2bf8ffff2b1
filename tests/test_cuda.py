"""On a GPU, where there is one: the same answers as on the CPU, and trainings that run, stop and go on.

On a GPU sums come in another order, so no training is repeated to the bit. TF32 is off here, so that answers differ little.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.detectors.region import RegionConfig
from pretrainps.synthetic import detection_split, reid_split
from pretrainps.training import LoopSettings, OptimSettings, train
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.engine.log import read_log
from pretrainps.training.pretraining.alignment import AlignmentSettings
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.task import Pretraining, PretrainRecipe
from tests.support.detectors import KINDS, lively_detector, scenes, small_detector
from tests.training.hybrids import TINY
from tests.training.tasks import OPTIM, DetectorTask

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions round as on the CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("kind", KINDS)
def test_detectors_answer_as_on_the_cpu(kind: str) -> None:
    model, (images, _) = lively_detector(kind), scenes()
    expected = model(images)
    for moved in (model.to("cuda"), model.optimize_for_inference()):
        found = moved([image.cuda() for image in images])
        for there, here in zip(found, expected, strict=True):
            assert len(here["scores"]) > 1
            for name in ("boxes", "scores", "embeddings"):
                assert there[name].is_cuda
                torch.testing.assert_close(there[name].cpu(), here[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_the_cpu(kind: str) -> None:
    images, targets = scenes()
    every = {"rpn_samples": 10_000, "region_samples": 10_000, "region_positive_fraction": 1.0}  # nothing drawn at random
    found = []
    for device in ("cpu", "cuda"):
        model = small_detector(kind, batch_norm="frozen", **every).train().to(device)
        moved = [{name: each.to(device) for name, each in target.items()} for target in targets]
        losses = model([image.to(device) for image in images], moved)
        torch.stack(list(losses.values())).sum().backward()
        slopes = {name: each.grad.norm() for name, each in model.named_parameters() if each.grad is not None}
        found.append({name: each.item() for name, each in (losses | slopes).items()})
    assert found[1] == pytest.approx(found[0], rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("alignment", ["none", "adversarial", "mmd", "domain_norm"])
def test_hybrid_pretraining_learns(tmp_path: Path, precision: Any, alignment: Any) -> None:
    recipe = PretrainRecipe(
        backbone="random:resnet_tiny",
        hybrid=HybridSettings(detector=RegionConfig(**TINY), alignment=AlignmentSettings(kind=alignment)),
        scenes=SceneSettings(batch_size=2),
        crops=CropSettings(people=4, shots=2, height=64, width=32),
        loop=LoopSettings(max_steps=40, log_every=1, precision=precision, channels_last=True),
        workers=0,
    )
    detection = {name: detection_split(f"det_{name}", 4) for name in ("street", "yard")}
    reid = {name: reid_split(f"reid_{name}", range(4)) for name in ("market", "city")}
    torch.manual_seed(0)
    task = Pretraining(recipe, build_backbone("resnet_tiny"), detection, reid)
    train(task, OptimSettings(kind="adamw", lr=1e-3), recipe.loop, tmp_path / "run", progress=False)
    assert next(task.model.parameters()).is_cuda
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "train"]
    course = [line["losses"]["loss_rpn_cls"] + line["losses"]["loss_identity"] for line in lines]
    assert len(course) == 40 and sum(course[-8:]) < sum(course[:8])


def test_the_commands_train_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As docs/training.md has them: with processes that read, in bfloat16, identities alone first."""

    def typed(command: str) -> None:
        assert main(shlex.split(command.replace("@", f"{tmp_path}/"))) == 0, capsys.readouterr().err

    for layout, domain, name in (
        *(("coco_persons", "det_street", "street"), ("crowdhuman", "det_yard", "yard")),
        *(("market1501", "reid_market", "market"), ("identity_folders", "reid_city", "city")),
        ("prw", "search_campus", "campus"),
    ):
        typed(f"data synthesize --layout {layout} --domain {domain} --out @{name} --people 16 --test-people 4 --quiet")
    quick = "--set loop.max_steps=12 --set loop.log_every=1 --quiet"
    typed(
        "pretrain --config recipes.hybrid_synthetic --detection street=@street --detection yard=@yard --reid market=@market "
        f"--reid city=@city -o @hybrid {quick}"
    )
    finetune = f"finetune --config recipes.seqnet_synthetic --backbone @hybrid --data @campus -o @seqnet {quick}"
    typed(finetune)
    for run, step in (("hybrid", 12), ("seqnet", 12)):
        (environment,) = json.loads((tmp_path / run / "environment.json").read_text())
        assert environment["device"].startswith("cuda")
        lines = [line for line in read_log(tmp_path / run / "log.jsonl") if line["kind"] == "train"]
        assert len(lines) == step and all(line["gpu_gb"] > 0 for line in lines)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """To rounding, and for some steps: sums on a GPU come in any order, and training makes much of little.

    So the learning rate is small: of weights that differ by a millionth, the fifth loss differs by 3 % (on the CPU), at 0.01 by
    15 %. Of a momentum that was forgotten, by 66 %.
    """
    optim = replace(OPTIM, lr=1e-3)

    def course(name: str, *stops: int) -> list[float]:
        for number, last in enumerate(stops):
            loop = LoopSettings(epochs=4, log_every=1, max_steps=last, ema_decay=0.9)
            train(DetectorTask(), optim, loop, tmp_path / name, resume=number > 0, progress=False)
        lines = read_log(tmp_path / name / "log.jsonl")
        return [sum(line["losses"].values()) for line in lines if line["kind"] == "train"]

    assert course("stopped", 3, 5) == pytest.approx(course("whole", 5), rel=0.1)


def test_nccl(tmp_path: Path) -> None:
    """One process, but in a group of processes: DDP, and what is sent between them."""
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\nfrom torch import distributed\n"
        "from pretrainps.training import LoopSettings, train\nfrom tests.training.tasks import OPTIM, DetectorTask\n"
        f"train(DetectorTask(), OPTIM, LoopSettings(epochs=1), Path({str(tmp_path / 'run')!r}), progress=False)\n"
        "assert 'nccl' in distributed.get_backend()\n"
    )
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", str(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)}, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_shipped_detector_finds_the_same_people(tmp_path: Path) -> None:
    for number, sample in enumerate(detection_split("det_street", 3).samples):
        sample.pixels().save(tmp_path / f"{number}.png")
    found = []
    for device in ("cpu", "cuda"):
        model = pretrainps.load("seqnet-tiny-synthetic", device=device)
        pretrainps.Gallery.index(tmp_path, model, store=tmp_path / f"{device}.gallery")
        gallery = pretrainps.Gallery.open(tmp_path / f"{device}.gallery")
        found.append([gallery.detection(row).box for row in range(len(gallery))])
    assert len(found[0]) > 3
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]), rtol=0.01, atol=1.0)
