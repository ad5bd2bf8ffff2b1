"""Detectors of other packages do all that detectors do, whatever they are made of."""

from __future__ import annotations

import importlib
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.data.records import Query, Sample, SearchSet, Split
from pretrainps.detectors import DETECTORS, registry
from pretrainps.detectors.registry import DetectorEntry, detector_entry, register_detector
from pretrainps.errors import ArgumentError, UnknownModelError, UnsupportedModelError
from pretrainps.export.graph.export import export_graph

SOURCE = Path(__file__).parent.parent / "support" / "point_detector.py"
NAMES = ("points", "fixed points")
BOXES = torch.tensor([[10.0, 20, 60, 110], [90, 10, 130, 100]])


def install(folder: Path, package: str, points: dict[str, str]) -> None:
    """Write what pip writes of a package with entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pretrainps.detectors]", *lines, ""]))


@pytest.fixture
def afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for packages, and detectors that are looked for anew."""
    list(DETECTORS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_broken", {})
    monkeypatch.setattr(registry, "_found", {"built-in"})
    yield tmp_path / "site"
    for name in ("points_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


@pytest.fixture
def installed(afresh: Path) -> Path:
    """A package with both detectors: a module that registers one, and an entry that is the other."""
    afresh.mkdir()
    shutil.copy(SOURCE, afresh / "points_plugin.py")
    install(afresh, "points", {"points": "points_plugin", "fixed": "points_plugin:FIXED"})
    return afresh


def built(name: str, **config: Any) -> Any:
    torch.manual_seed(0)
    settings = {"min_size": 96, "max_size": 160, "score_threshold": 0.1, "max_detections": 8, **config}
    return pretrainps.build_detector(name, backbone=build_backbone("resnet_tiny"), num_identities=3, config=settings)


def photo(seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC))


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_of_another_package_does_everything(installed: Path, tmp_path: Path, name: str) -> None:
    model = built(name)
    assert "rpn" not in dict(model.named_children()) and not hasattr(model.config, "rpn_samples"), "nothing of another family"
    images = [as_image(photo(seed)) for seed in range(3)]
    ids = [torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([-1, 0])]
    losses = model(images, [{"boxes": BOXES, "ids": each} for each in ids])
    assert set(losses) == {"loss_point_cls", "loss_point_box", "loss_point_id"}
    sum(losses.values()).backward()
    learned = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert [key for key, parameter in learned.items() if parameter.grad is None] == [], "every part learns"
    torch.optim.SGD(model.parameters(), lr=1e-3).step()

    model.eval()
    found = model(images)
    assert all(0 < len(each["scores"]) <= 8 and each["embeddings"].shape[1] == model.embedding_dim == 12 for each in found)
    fast = model.optimize_for_inference()(images)
    torch.testing.assert_close(fast, found)
    with pytest.raises(UnsupportedModelError, match="float32"):
        model.optimize_for_inference(dtype=torch.bfloat16)
    given = found[0]["boxes"][:2]
    (vectors,) = model.embed(images[:1], [given])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    (around,) = model.query_as_gallery(images[:1], [given[0]])
    torch.testing.assert_close(around["boxes"][0], given[0])
    torch.testing.assert_close(around["embeddings"][0], vectors[0])
    assert around["scores"][0] == 1

    folder = pretrainps.save_pretrained(model, tmp_path / "saved")
    again: Any = pretrainps.load(f"file:{folder}", progress=False)
    assert type(again) is type(model) and again.config == model.config and again.load_report.ok
    torch.testing.assert_close(again(images), found)

    result = export_graph(again, tmp_path / "model.pt2", format="pt2")
    assert result.differences["embeddings"] < 1e-3
    if model.embeds_boxes:
        export_graph(again, tmp_path / "embed.pt2", format="pt2", what="embed")
    else:
        with pytest.raises(UnsupportedModelError, match="what='detect'"):
            export_graph(again, tmp_path / "embed.pt2", format="pt2", what="embed")

    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        Image.fromarray(photo(seed)).save(photos / f"{seed}.png")
    pretrainps.Gallery.index(photos, again, store=tmp_path / "gallery", progress=False)
    gallery = pretrainps.Gallery.open(tmp_path / "gallery")
    first = gallery.search(again, photos / "0.png", tuple(given[0].tolist()), top=3).hits[0]
    assert first.detection.image == "0.png" and first.similarity > 0

    samples = [
        Sample(name=f"{seed}.png", image=photo(seed), boxes=BOXES.numpy(), ids=each.numpy().astype(np.int64))
        for seed, each in enumerate(ids)
    ]
    split = Split(dataset="own", name="test", task="search", samples=samples, identities=("a", "b", "c"))
    queries = [Query(sample=samples[0], box=BOXES[1].numpy(), id=1), Query(sample=samples[2], box=BOXES[1].numpy(), id=0)]
    measured = pretrainps.evaluate(again, SearchSet(gallery=split, queries=queries), "frames", progress=False)
    assert measured is not None


def test_a_box_that_nothing_overlaps_is_like_nobody(installed: Path) -> None:
    model = built("fixed points").eval()
    image = as_image(photo(0))
    (found,) = model([image])
    inside, outside = found["boxes"][0], torch.tensor([900.0, 900, 950, 990])
    (vectors,) = model.embed([image], [torch.stack([inside, outside])])
    assert vectors[0].norm() > 0.99 and not vectors[1].any()
    (around,) = model.query_as_gallery([image], [outside])
    assert not around["embeddings"][0].any() and len(around["scores"]) == 1 + len(found["scores"])
    assert [len(each) for each in model.embed([], [])] == []


def test_a_file_of_its_weights_alone_is_recognized_if_it_says_how(installed: Path, tmp_path: Path) -> None:
    model = built("points")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    found: Any = pretrainps.load(tmp_path / "weights.pth", progress=False)
    assert found.kind == "points" and found.config.num_identities == 3 and found.config.width == 12


def test_embeddings_of_another_length_are_refused_where_they_are_made(afresh: Path) -> None:
    afresh.mkdir()
    shutil.copy(SOURCE, afresh / "points_plugin.py")
    plugin = importlib.import_module("points_plugin")

    class Wrong(plugin.PointDetector):  # type: ignore[misc, name-defined]
        embedding_dim = 7

    register_detector(DetectorEntry(name="wrong", model=Wrong, config=plugin.FixedPointConfig))
    model = built("wrong").eval()
    for call in (lambda: model([as_image(photo(0))]), lambda: model.embed([as_image(photo(0))], [BOXES])):
        with pytest.raises(UnsupportedModelError, match="embedding_dim is 7"):
            call()


@pytest.mark.parametrize("name", ["nae", "seqnet", "points"])
def test_a_name_belongs_to_one_detector(afresh: Path, name: str) -> None:
    afresh.mkdir()
    shutil.copy(SOURCE, afresh / "points_plugin.py")
    plugin = importlib.import_module("points_plugin")
    entry = DetectorEntry(name=name, model=plugin.FixedPointDetector, config=plugin.FixedPointConfig)
    with pytest.raises(ArgumentError, match=f"{name!r} already"):
        register_detector(entry)
    register_detector(plugin.FIXED)
    register_detector(plugin.FIXED)  # the same once more is nothing new
    assert detector_entry("fixed points") is plugin.FIXED


@pytest.mark.parametrize(
    ("value", "source", "reason"),
    [
        ("broken_plugin", "import nothing_of_this_name", "No module named"),
        ("broken_plugin", "raise RuntimeError('too old')", "too old"),
        ("broken_plugin", "from pretrainps.detectors import NoSuchThing", "NoSuchThing"),
        ("broken_plugin:absent", "", "absent"),
        ("broken_plugin:number", "number = 3", "DetectorEntry"),
        ("not_there_at_all", "", "not_there_at_all"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_no_other(
    installed: Path, caplog: pytest.LogCaptureFixture, value: str, source: str, reason: str
) -> None:
    install(installed, "broken", {"bad": value})
    (installed / "broken_plugin.py").write_text(source)
    with caplog.at_level(logging.WARNING, logger="pretrainps"):
        assert {"seqnet", *NAMES} <= set(DETECTORS)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "'bad'" in warning and "package broken" in warning and reason in warning
    with pytest.raises(UnknownModelError, match="could not be loaded") as raised:
        detector_entry("bad")
    assert reason in str(raised.value)


def test_detectors_cannot_be_taken_away() -> None:
    with pytest.raises(TypeError):
        del DETECTORS["nae"]  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        _ = pretrainps.detectors.NoSuchDetector
    assert pretrainps.detectors.SeqNet is DETECTORS["seqnet"].model
    assert pretrainps.detectors.NAEPlusConfig is DETECTORS["nae+"].config
