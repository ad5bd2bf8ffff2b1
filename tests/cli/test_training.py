"""`pretrain`, `finetune`, `evaluate`, `plot`: from data sets on disk to a measured detector, by commands alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pretrainps
from pretrainps.backbones import Backbone
from pretrainps.cli import main
from pretrainps.detectors import SeqNet
from pretrainps.synthetic.writing import WorldSize, synthesize

QUICK = [
    *(
        "--set",
        "loop.max_steps=2",
        "--set",
        "loop.log_every=1",
        "--set",
        "scenes.batch_size=2",
        "--set",
        "workers=0",
        "--quiet",
    ),
]
SIZES = ("min_size=96", "max_size=144", "rpn_candidates_train=200", "rpn_proposals=20", "region_samples=16")
SCORES = ["--set", "detector.score_threshold=0.1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for layout, name in (("coco_persons", "street"), ("crowdhuman", "crowd"), ("market1501", "market"), ("prw", "campus")):
        synthesize(layout, root / name, size=WorldSize(people=4, test_people=3, appearances=3))
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.xdist_group("training end to end")
def test_from_sub_task_data_to_a_measured_detector(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hybrid, seqnet = tmp_path / "hybrid", tmp_path / "seqnet"
    small = [part for size in SIZES for part in ("--set", f"hybrid.detector.{size}")]
    sets = ["--detection", f"coco_persons={world / 'street'}", "--detection", f"mine={world / 'crowd'}"]
    pretrain = ["pretrain", "--config", "recipes.hybrid_synthetic", *sets, "--reid", f"market1501={world / 'market'}", *small]
    pretrain += [
        "--set",
        "crops_only_share=0.5",
        "--set",
        "crops.people=2",
        "--set",
        "crops.shots=2",
        "--set",
        "crops.height=64",
        "--set",
        "crops.width=32",
    ]
    status, out, err = run(capsys, *pretrain, "-o", hybrid, *QUICK)
    assert status == 0, err
    assert str(hybrid / "backbone") in out
    assert isinstance(pretrainps.load(f"file:{hybrid / 'backbone'}"), Backbone)
    status, _, err = run(capsys, *pretrain, "--backbone", hybrid, "-o", tmp_path / "further", *QUICK)
    assert status == 0, err
    assert json.loads((tmp_path / "further" / "config.json").read_text())["task"]["backbone"]["sha256"]
    task = json.loads((hybrid / "config.json").read_text())["task"]
    assert set(task["detection"]) == {"coco_persons", "mine"} and task["reid"]["market1501"]["identities"] == 4

    small = [part for size in SIZES for part in ("--set", f"detector.{size}")]
    finetune = ["finetune", "--config", "seqnet_synthetic", "--backbone", hybrid, "--data", world / "campus", *small, *SCORES]
    status, out, err = run(capsys, *finetune, "-o", seqnet, *QUICK)
    assert status == 0, err
    assert "mAP 0." in out and "tensors matched" in err
    model = pretrainps.load(f"file:{seqnet / 'model'}")
    assert isinstance(model, SeqNet) and model.config.num_identities == 4 and model.config.min_size == 96
    status, out, err = run(capsys, "evaluate", f"file:{seqnet / 'model'}", "--data", world / "campus", "--quiet", "--json")
    lines = [json.loads(line) for line in (seqnet / "log.jsonl").read_text().splitlines()]
    measured = next(line["metrics"] for line in reversed(lines) if line["kind"] == "evaluation")
    again = json.loads(out)
    assert again["search"]["mAP"] == pytest.approx(measured["mAP"], abs=1e-6)
    assert again["detection"]["recall"] == pytest.approx(measured["detection_recall"], abs=1e-6)
    status, out, _ = run(capsys, "plot", seqnet)
    assert status == 0 and (seqnet / "curves.png").stat().st_size > 1000

    status, _, err = run(capsys, *finetune, "-o", seqnet, *QUICK)
    assert status == 1 and "--resume" in err
    status, out, err = run(capsys, *finetune, "-o", seqnet, *QUICK, "--resume")
    assert status == 0, err


def test_wrong_words_are_told_at_once(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain = ["pretrain", "--config", "recipes.hybrid_synthetic", "-o", tmp_path / "run"]
    finetune = ["finetune", "--config", "recipes.nae_synthetic", "-o", tmp_path / "run"]
    for arguments, message in (
        ([*pretrain, "--detection", "street"], "expected NAME=ROOT"),
        ([*pretrain, "--detection", f"a={world / 'street'}", "--detection", f"a={world / 'crowd'}"], "given twice"),
        ([*pretrain, "--detection", "a=no/where"], "is no folder"),
        ([*pretrain, "--reid", f"a={world / 'street'}"], "is for detection"),
        ([*pretrain, "--reid", f"a={world / 'market'}", "--set", "loop.epoch=3"], "Did you mean 'loop.epochs'"),
        ([*pretrain, "--reid", f"a={world / 'market'}", "--set", "loop.epochs=three"], "whole number"),
        ([*finetune, "--data", world / "market"], "is for reid"),
        ([*finetune, "--data", world / "campus", "--set", "scenes.batch_size=500"], "do not fill a batch"),
        ([*finetune, "--data", world / "campus", "--backbone", "resnet51"], "resnet50"),
        (["finetune", "--config", "x", "-o", tmp_path / "run", "--data", world / "campus"], "There are nae_cuhk"),
        (["plot", tmp_path / "nothing"], "nothing"),
    ):
        status, _, err = run(capsys, *arguments)
        assert status == 1 and err.startswith("error: ") and message in err, err
    assert not (tmp_path / "run").exists()
