"""The registry: checks of its own files, names, suggestions and plug-ins."""

from __future__ import annotations

import fnmatch
import json
import math
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pretrainps
from pretrainps import errors
from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.registry import find_spec, list_models, lookup, parse_spec, registry, shipped_model, spec_to_mapping
from pretrainps.registry.parse import read_registry
from pretrainps.registry.specs import BundledSource, HttpSource, HubSource

MINIMAL = {
    "title": "t",
    "arch": "resnet18",
    "summary": "s",
    "input": {"colour": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1], "status": "assumed", "evidence": "e"},
    "licence": {"id": "mit", "stated_in": "x"},
    "provenance": {"authors": "a", "paper": "p", "url": "u"},
    "sources": [{"kind": "hub", "repo": "o/r", "file": "f.pth"}],
}
SPECS = list(registry().values())
BACKBONES = [spec for spec in SPECS if spec.task == "backbone"]
DETECTORS = [spec for spec in SPECS if spec.task == "detector"]
GOLDEN = Path(__file__).parent.parent / "golden"


def test_no_two_entries_share_a_source_or_a_hash() -> None:
    sources = [str(source) for spec in SPECS for source in spec.sources]
    hashes = [h for spec in SPECS for h in (spec.sha256, spec.sha256_prefix) if h]
    assert len(sources) == len(set(sources)) and len(hashes) == len(set(hashes))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_entry_states_licence_provenance_and_input(spec: pretrainps.ModelSpec) -> None:
    for text in (spec.licence.id, spec.licence.stated_in, spec.provenance.authors, spec.provenance.paper, spec.input.evidence):
        assert len(text) > 2
    assert spec.provenance.url.startswith("https://")
    assert all(result.source for result in spec.results)
    for source in spec.sources:
        assert not isinstance(source, HttpSource) or source.url.startswith("https://")


@pytest.mark.parametrize("spec", BACKBONES, ids=lambda spec: spec.name)
def test_every_backbone_can_be_built_and_its_layout_is_known(spec: pretrainps.ModelSpec) -> None:
    assert spec.arch in ARCHITECTURES
    backbone = build_backbone(spec.arch, spec.arch_options, empty=True)
    assert backbone.family == ARCHITECTURES[spec.arch].family
    layout_of(backbone.family, spec.file.layout)
    if spec.parameters is not None:
        assert sum(p.numel() for p in backbone.parameters()) == spec.parameters
    if spec.file.tensors is not None:
        assert len(backbone.state_dict()) == spec.file.tensors


@pytest.mark.parametrize("spec", [each for each in DETECTORS if each.arch == "resnet50"], ids=lambda spec: spec.name)
def test_detectors_count_what_their_authors_models_hold(spec: pretrainps.ModelSpec) -> None:
    assert spec.detector is not None and spec.arch in ARCHITECTURES and spec.head is None
    shapes = json.loads((GOLDEN / f"{spec.detector.kind}_keys.json").read_text())  # of the authors' CUHK-SYSU models
    unwanted = {key for pattern in spec.file.ignored for key in fnmatch.filter(shapes, pattern)}
    taken = {key: shape for key, shape in shapes.items() if key not in unwanted}
    assert bool(unwanted) == bool(spec.file.ignored) and len(taken) == spec.file.tensors
    buffers = ("running_mean", "running_var", "num_batches_tracked", ".lut", ".cq")
    assert sum(math.prod(shape) for key, shape in taken.items() if not key.endswith(buffers)) == spec.parameters
    rows = {"cuhk": (5532, 5000), "prw": (482, 500)}[spec.name.rpartition("-")[2]]
    assert (spec.detector.config["num_identities"], spec.detector.config["queue_size"]) == rows
    if spec.name.endswith("cuhk"):
        assert rows == (shapes["roi_heads.reid_loss.lut"][0], shapes["roi_heads.reid_loss.cq"][0])
    else:
        assert spec.detector.config["identity_numbering"] == "original"


def test_the_three_hybrid_backbones_are_the_authors_files() -> None:
    found = {name: find_spec(name).sources for name in list_models("*-hybrid")}
    assert found == {
        f"{arch}-hybrid": (HubSource(repo="Alice10/psvision", file=file),)
        for arch, file in {
            "resnet18": "resnet18-ps15.pth",
            "resnet50": "resnet50-ps12.pth",
            "shufflenetv1": "shufflenetv1-ps19.pth",
        }.items()
    }
    for name in found:
        spec = find_spec(name)
        assert spec.input.status == "assumed" and spec.sha256 is None


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_a_file_may_lack_is_never_a_weight(spec: pretrainps.ModelSpec) -> None:
    no_weights = ("num_batches_tracked", "oim_loss.cursor", "oim_loss.*")  # counts, and the identities of a training
    assert all(pattern.endswith(no_weights) for pattern in spec.file.expected_missing)


def test_listing_is_natural_and_filtered() -> None:
    assert list_models("resnet*hybrid") == ["resnet18-hybrid", "resnet50-hybrid"]
    assert list_models(task="detector") == [
        "nae-resnet50-cuhk",
        "nae-resnet50-prw",
        "nae-tiny-synthetic",
        "seqnet-resnet50-cuhk",
        "seqnet-resnet50-prw",
        "seqnet-tiny-synthetic",
    ]
    assert list_models("nothing*") == []
    with pytest.raises(errors.ArgumentError):
        list_models(task="detectors")  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_mapping_round_trip(spec: pretrainps.ModelSpec) -> None:
    assert parse_spec(spec.name, json.loads(json.dumps(spec_to_mapping(spec))), "test") == spec


def test_mapping_of_an_archives_member() -> None:
    source = {"kind": "https", "url": "https://example.org/a.tar.gz", "member": "folder/w.pth"}
    spec = parse_spec("m", changed("sources", [source]), "test")
    assert spec.sources == (HttpSource(url="https://example.org/a.tar.gz", member="folder/w.pth"),)
    assert spec_to_mapping(spec)["sources"] == [source]
    plain = parse_spec("m", changed("sources", [{"kind": "https", "url": "https://example.org/w.pth"}]), "test")
    assert "member" not in spec_to_mapping(plain)["sources"][0], "other files read as before"


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet50_hybrid", "resnet50-hybrid"), ("ResNet50-Hybird", "resnet50-hybrid"), ("shufflenet", "shufflenetv1-hybrid")],
)
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(errors.UnknownModelError, match=near) as caught:
        pretrainps.info(name)
    assert near in caught.value.suggestions


@pytest.mark.parametrize(("name", "hint"), [("some/model.pth", "file:some/model.pth"), ("owner/repo", "hf:owner/repo")])
def test_names_that_look_like_paths_get_directions(name: str, hint: str) -> None:
    with pytest.raises(errors.UnknownModelError, match=hint):
        pretrainps.info(name)


def test_revision() -> None:
    spec = find_spec("resnet50-hybrid@abc123")
    assert [s.revision for s in spec.sources if isinstance(s, HubSource)] == ["abc123"]
    assert spec.name == "resnet50-hybrid@abc123", "another revision is another entry of the cache"
    for bad in ("resnet50-hybrid@", "resnet50-imagenet@v1"):
        with pytest.raises(errors.UnknownModelError):
            find_spec(bad)


def changed(path: str, value: object) -> dict[str, object]:
    entry = json.loads(json.dumps(MINIMAL))
    *parents, last = path.split(".")
    target = entry
    for parent in parents:
        target = target[int(parent)] if parent.isdigit() else target[parent]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return entry


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("licence", None, "licence missing"),
        ("input.evidence", None, "evidence missing"),
        ("sha265", "0" * 64, "unknown field.*sha265"),
        ("input.collour", "rgb", "unknown field.*collour"),
        ("sha256", "ABC", "64 lower-case hex"),
        ("input.mean", [0, 0], "expected 3 values"),
        ("input.std", [1, 0, 1], "std positive"),
        ("input.mean", [float("nan"), 0, 0], "must be finite"),
        ("input.colour", "gbr", "'rgb' or 'bgr'"),
        ("parameters", "many", "expected int"),
        ("file", {"wrapper": "state_dict"}, "expected an array"),
        ("parameters", True, "expected int"),
        ("sources", [], "no source"),
        ("sources.0.kind", "ftp", "unknown kind 'ftp'"),
        ("sources.0.file", "../x.pth", "leaves its folder"),
        ("head", {"kind": "classifier"}, "num_classes"),
        ("sources", [{"kind": "https", "url": "https://e.org/a.tar", "member": "../x.pth"}], "leaves its folder"),
        ("sources", [{"kind": "https", "url": "https://e.org/a.tar", "member": 3}], "expected str"),
        ("task", "sorting", "task must be"),
        ("task", "detector", "a detector has"),
        ("detector", {"kind": "nae"}, "a detector has"),
        ("detector", {"config": {}}, "kind missing"),
    ],
)
def test_schema_errors_name_entry_and_field(path: str, value: object, words: str) -> None:
    with pytest.raises(errors.RegistryError, match=words) as caught:
        parse_spec("m", changed(path, value), "my.toml")
    assert "my.toml: m" in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*MINIMAL, "x", "kind", "file"]), inner, max_size=5)
        ),
    )
)
def test_any_mapping_ends_in_our_error(entry: object) -> None:
    with pytest.raises(errors.RegistryError):
        parse_spec("m", entry, "fuzz")


@given(
    field=st.sampled_from(sorted(MINIMAL)),
    value=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "repo", "file", "url", "colour"]), inner, max_size=3)
        ),
    ),
)
def test_any_value_of_a_field_ends_in_a_spec_or_our_error(field: str, value: object) -> None:
    try:
        spec = parse_spec("m", {**MINIMAL, field: value}, "fuzz")
    except errors.RegistryError as error:
        assert "m" in str(error)
    else:
        assert parse_spec("m", spec_to_mapping(spec), "again") == spec


@pytest.mark.parametrize("text", ["[models", "x = 1", "models = 3", "[models]\nm = 3", "\x00"])
def test_broken_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(errors.RegistryError, match=r"r\.toml"):
        read_registry(tmp_path / "r.toml")


def install_plugin(monkeypatch: pytest.MonkeyPatch, folder: Path, toml: str, value: str = "my_models:registry.toml") -> None:
    package = folder / "my_models"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('a plug-in is data; its code must not run')")
    (package / "registry.toml").write_text(toml)
    monkeypatch.syspath_prepend(str(folder))
    point = EntryPoint("mine", value, lookup.PLUGIN_GROUP)
    monkeypatch.setattr(lookup, "entry_points", lambda group: [point] if group == lookup.PLUGIN_GROUP else [])


@pytest.fixture
def fresh_registry() -> object:
    registry.cache_clear()
    yield
    registry.cache_clear()


PLUGIN = """
[models.mine-special]
title = "Mine"
arch = "resnet18"
summary = "s"
input = {colour = "bgr", mean = [103.53, 116.28, 123.675], std = [1, 1, 1], scale = 255, status = "documented", evidence = "me"}
licence = {id = "mit", stated_in = "here"}
provenance = {authors = "me", paper = "none", url = "https://example.org"}
sources = [{kind = "bundled", package = "my_models", file = "w.safetensors"}]
"""


@pytest.mark.usefixtures("fresh_registry")
def test_plugin_adds_models_without_running_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_plugin(monkeypatch, tmp_path, PLUGIN)
    assert "mine-special" in list_models()
    assert find_spec("mine-special").input.colour == "bgr"


@pytest.mark.usefixtures("fresh_registry")
@pytest.mark.parametrize(
    ("toml", "value", "words"),
    [
        (PLUGIN.replace("mine-special", "resnet50-hybrid"), "my_models:registry.toml", "registered already"),
        ("[models.x]\narch = 3", "my_models:registry.toml", "missing|expected"),
        (PLUGIN, "my_models:../../etc/passwd", "leaves its folder"),
        (PLUGIN, "no_such_package:registry.toml", "no installed package"),
    ],
)
def test_broken_plugins_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toml: str, value: str, words: str) -> None:
    install_plugin(monkeypatch, tmp_path, toml, value)
    with pytest.raises(errors.RegistryError, match=words):
        registry()


def test_specs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        find_spec("resnet50-hybrid").arch = "x"  # type: ignore[misc]
    assert replace(find_spec("resnet50-hybrid"), arch="resnet18").arch == "resnet18"


@pytest.mark.parametrize("task", ["detector", "backbone"])
def test_a_model_of_each_task_comes_with_the_package(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec(shipped_model(task))
    assert spec.task == task and {type(source) for source in spec.sources} == {BundledSource}
    monkeypatch.setattr(
        lookup, "registry", lambda: {each.name: each for each in SPECS if BundledSource not in map(type, each.sources)}
    )
    with pytest.raises(errors.UnknownModelError, match=f"no {task} comes with this package"):
        shipped_model(task)
