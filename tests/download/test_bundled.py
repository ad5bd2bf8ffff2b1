"""Weights that come with a package: in half precision, read in place, and from no other source."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

import pretrainps
from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.data.layouts import layout_named
from pretrainps.detectors import PersonSearchDetector
from pretrainps.download import Cache
from pretrainps.files import sha256_of
from pretrainps.hub.cards import render_card
from pretrainps.registry import ModelSpec, parse_spec, registry
from pretrainps.registry.specs import BundledSource, PublishedResult
from pretrainps.weights.inspect import inspect
from tests.support.detectors import SMALL
from tests.support.fakehub import FakeHub

ROOT = Path(__file__).parent.parent.parent
NAME = "seqnet-tiny-synthetic"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ship_weights", ROOT / "scripts" / "ship_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for what their annotations mean
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained() -> PersonSearchDetector[object]:
    """An untrained detector with filled tables."""
    torch.manual_seed(0)
    model = pretrainps.build_detector("seqnet", backbone=build_backbone("resnet_tiny"), config=SMALL).eval()
    model.oim_loss.lookup_table.normal_()
    return model


@pytest.fixture(scope="module")
def shipped(
    trained: PersonSearchDetector[object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, ModelSpec]]:
    """The shipped file in a separate package, and the printed entry for it."""
    folder = tmp_path_factory.mktemp("shipped")
    pretrainps.save_pretrained(trained, folder / "run" / "model")
    config = {"task": {"data": {"train": {"images": 38, "identities": 12}}}}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    package = folder / "my_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('data only')")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        arguments = ["--seqnet", str(folder / "run"), "--weights", str(package / "registry" / "bundled"), "--test-people", "1"]
        assert script().main([*arguments, "--domains", "search_station", "search_campus"]) == 0
    entry = tomllib.loads(printed.getvalue())["models"][NAME]
    assert entry["sources"] == [{"kind": "bundled", "file": f"registry/bundled/{NAME}.safetensors"}]
    entry["sources"][0]["package"] = "my_weights"
    sys.path.insert(0, str(folder))
    yield package / "registry" / "bundled" / f"{NAME}.safetensors", parse_spec(NAME, entry, "printed")
    sys.path.remove(str(folder))


@pytest.fixture
def damaged(shipped: tuple[Path, ModelSpec]) -> Iterator[Path]:
    """The file, for damage by a test; it is restored afterwards."""
    path, _ = shipped
    body = path.read_bytes()
    yield path
    path.write_bytes(body)


def test_half_on_disk_and_whole_in_memory(
    shipped: tuple[Path, ModelSpec], trained: PersonSearchDetector[object], hub: FakeHub, home: Path
) -> None:
    path, spec = shipped
    stored, original = load_file(path), trained.state_dict()
    model = pretrainps.load(spec, offline=True)
    state = model.state_dict()
    for key, value in stored.items():
        assert value.dtype == (torch.float16 if original[key].is_floating_point() else original[key].dtype)
        assert state[key].dtype == original[key].dtype and torch.equal(state[key], value.to(original[key].dtype))
        assert torch.equal(value, original[key].to(value.dtype))
    report = model.load_report
    assert report.ok and report.share == 1 and report.parameters == spec.parameters
    assert set(report.expected_missing) == {"oim_loss.lookup_table", "oim_loss.queue", "oim_loss.cursor"}
    assert set(report.matched) == set(stored) == set(original) - set(report.expected_missing)
    assert len(report.matched) == spec.file.tensors
    assert set(report.converted) == {key for key, value in stored.items() if value.dtype == torch.float16}
    assert not state["oim_loss.lookup_table"].any(), "a training on from here begins with empty tables"
    assert hub.requests == [] and not home.exists() and Cache().names() == [], "no network, and no copy in the cache"


def test_it_detects_embeds_and_saves_like_any_other(shipped: tuple[Path, ModelSpec], tmp_path: Path) -> None:
    _, spec = shipped
    model = pretrainps.load(spec)
    scene = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[8.0, 8, 40, 88]])
    again = pretrainps.load(pretrainps.save_pretrained(model, tmp_path / "mine"))
    assert isinstance(model, PersonSearchDetector) and isinstance(again, PersonSearchDetector)
    assert torch.equal(model.embed([scene], [boxes])[0], again.embed([scene], [boxes])[0])
    assert again.load_report.expected_missing == () and again.spec.results == ()


def test_what_is_printed_is_what_lies_there(shipped: tuple[Path, ModelSpec]) -> None:
    path, spec = shipped
    assert spec.sha256 == sha256_of(path) and spec.published_size == path.stat().st_size / 1e6
    assert spec.detector is not None and spec.detector.kind == "seqnet" and spec.arch == "resnet_tiny"
    assert {**spec.detector.config} == SMALL
    assert spec.provenance.note.endswith("Then trained as a whole on 38 scenes with 12 people.")
    places = [(each.dataset.partition(" of")[0], each.metric) for each in spec.results]
    assert places == [(place, metric) for place in ("search_station", "search_campus") for metric in ("mAP", "top-1")]
    assert all(f"--domain {place} " in each.source for (place, _), each in zip(places, spec.results, strict=True))
    assert "Saved by" not in spec.provenance.note and spec.input.status == "documented" and spec.licence.id == "apache-2.0"
    assert inspect(path).saved_by_us is None, "the file alone lacks what a saved model has"


@pytest.mark.parametrize(
    ("domain", "first", "said"),
    [
        ("search_station", 0, "search_station of synthetic world 2, people 0 to 1"),
        ("search_station", 3, "search_station of synthetic world 2, people 3 to 4"),
        ("search_campus", 40, "search_campus of synthetic world 2, people 40 to 41"),
    ],
)
def test_the_command_of_a_result_draws_what_was_measured_on(domain: str, first: int, said: str, tmp_path: Path) -> None:
    test = script().DrawnTest(domain=domain, first=first, people=2, seed=2)
    assert test.name == said
    measured = test.draw(tmp_path / "measured")
    program, *arguments = test.command.split()
    assert (
        program == "pretrainps" and main([*(str(tmp_path / "world") if a == "world" else a for a in arguments), "--quiet"]) == 0
    )
    drawn = layout_named("prw").read_search(tmp_path / "world")
    assert [(q.id, q.sample.name, q.box.tolist()) for q in drawn.queries] == [
        (q.id, q.sample.name, q.box.tolist()) for q in measured.queries
    ]
    assert [s.pixels().tobytes() for s in drawn.gallery.samples] == [s.pixels().tobytes() for s in measured.gallery.samples]


@pytest.mark.parametrize("offline", [None, True])
def test_download_leaves_it_where_it_lies(shipped: tuple[Path, ModelSpec], home: Path, offline: bool | None) -> None:
    path, spec = shipped
    assert pretrainps.download(spec, offline=offline) == path and not home.exists()


def test_missing_from_the_installation(shipped: tuple[Path, ModelSpec], damaged: Path, home: Path) -> None:
    damaged.unlink()
    with pytest.raises(errors.WeightsUnavailableError) as caught:
        pretrainps.load(shipped[1], offline=True)
    message = str(caught.value)
    assert str(damaged) in message and "package my_weights: install that again" in message
    assert "by hand" not in message and str(home) not in message, "a copy in the cache would not be looked for"


@pytest.mark.parametrize("spoil", ["a bit", "the end", "more"])
def test_tampered_with(shipped: tuple[Path, ModelSpec], damaged: Path, spoil: str) -> None:
    body = bytearray(damaged.read_bytes())
    body[-1] ^= 1
    damaged.write_bytes({"a bit": bytes(body), "the end": bytes(body[:-1]), "more": bytes(body) + b"\0"}[spoil])
    with pytest.raises(errors.IntegrityError) as caught:
        pretrainps.load(shipped[1])
    message = str(caught.value)
    assert str(damaged) in message and str(shipped[1].sha256) in message
    assert "package my_weights: install that again" in message and "cache remove" not in message


def test_info_says_where_it_lies(
    shipped: tuple[Path, ModelSpec], damaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spec = shipped
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("pretrainps.registry.lookup.registry", lambda: {NAME: spec})
    assert main(["info", NAME]) == 0
    out = capsys.readouterr().out
    assert "bundled with my_weights: registry/bundled/" in out and "in the cache" not in out
    assert "".join(str(path).split()) in "".join(out.split())
    path.unlink()
    assert main(["info", NAME]) == 0 and "where it is missing" in " ".join(capsys.readouterr().out.split())


def test_its_card_says_that_it_was_measured_here(shipped: tuple[Path, ModelSpec]) -> None:
    _, spec = shipped
    results = (PublishedResult(dataset="world", metric="mAP", value=50.0, model="SeqNet", source="pretrainps evaluate it"),)
    own = render_card(replace(spec, results=results, sources=(BundledSource(file="weights/w.safetensors"),)))
    assert "## Results" in own and "has not reproduced" not in own and "drawn people only" in own
    theirs = render_card(replace(spec, results=results))
    assert (
        "## Published results" in theirs and "has not reproduced" in theirs and "drawn people" not in theirs.split("## Use")[1]
    )


def test_what_the_registry_says_was_measured_is_in_the_table() -> None:
    """`benchmarks/shipped.py test` measures the shipped detectors on several sets of people; no set is left out."""
    with (ROOT / "results" / "shipped-test.csv").open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert {row["model"] for row in rows} == {"seqnet-tiny-synthetic", "nae-tiny-synthetic", "histograms"}
    for name in ("seqnet-tiny-synthetic", "nae-tiny-synthetic"):
        said = [(each.dataset.partition(", ")[2], each.metric, each.value) for each in registry()[name].results]
        expected = []
        for row in rows:
            if row["model"] == name:
                first, people = int(row["first"]), int(row["people"])
                where = f"people {first} to {first + people - 1}, {row['scenes']} scenes"
                expected += [
                    (where, shown, round(100 * float(row[key]), 1)) for shown, key in (("mAP", "mAP"), ("top-1", "top1"))
                ]
        assert said == expected and len(said) == 12


def test_the_packages_own_weights_are_those_of_its_registry() -> None:
    weights = ROOT / "pretrainps" / "registry" / "bundled"
    sources = {spec.sources[0]: spec.sha256 for spec in registry().values()}
    bundled = {
        source.filename: sha256
        for source, sha256 in sources.items()
        if isinstance(source, BundledSource) and source.package == "pretrainps"
    }
    assert {path.name: sha256_of(path) for path in weights.glob("*")} == bundled
