"""The demo: offline, judged by what was drawn, and nothing outside of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.data.records import SearchSet
from pretrainps.demo import DemoSize, draw_city, run_demo
from pretrainps.detectors.region.seqnet import SeqNet, SeqNetConfig
from pretrainps.errors import ArgumentError
from pretrainps.images.pixels import to_tensor
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import SMALL, lively_detector
from tests.support.fakehub import FakeHub

TINY = DemoSize(people=3, appearances=3, shown=2, answers=4)


def key_of(image: Tensor) -> bytes:
    return (image * 255).round().byte().numpy().tobytes()


class Knowing(SeqNet):
    """A detector that was told who is where: it finds everyone, and embeds each by who he is.

    Args:
        city: What it was told.
        forgets: Somebody whom it takes for the next one.
    """

    def __init__(self, city: SearchSet, *, forgets: int | None = None) -> None:
        config = SeqNetConfig.from_mapping({**SMALL, "embedding_dim": 16})
        super().__init__(build_backbone("resnet_tiny"), config, ASSUMED_INPUT)
        self.told = {key_of(to_tensor(sample.pixels())): sample for sample in city.gallery.samples}
        self.forgets = forgets

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        results = []
        for image in images:
            sample = self.told[key_of(image)]
            boxes, count = torch.from_numpy(sample.boxes), len(sample.boxes)
            embeddings = torch.stack([self.vector(int(identity)) for identity in sample.ids])
            ones = torch.ones(count)
            results.append({"boxes": boxes, "labels": ones.long(), "scores": ones, "embeddings": embeddings})
        return results

    def embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for image, wanted in zip(images, boxes, strict=True):
            sample = self.told[key_of(image)]
            rows = [int(np.abs(sample.boxes - box.numpy()).sum(axis=1).argmin()) for box in wanted]
            # who asks is always known by himself
            found.append(torch.stack([torch.eye(16)[int(sample.ids[row])] for row in rows]))
        return found

    def vector(self, identity: int) -> Tensor:
        if identity < 0:
            return torch.eye(16)[15]
        return torch.eye(16)[(identity + 1) % 3 if identity == self.forgets else identity]


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> SearchSet:
    return draw_city(tmp_path_factory.mktemp("city") / "photos", TINY)


def test_who_knows_everybody_finds_everybody(city: SearchSet, tmp_path: Path, hub: FakeHub, home: Path) -> None:
    lines: list[str] = []
    result = run_demo(Knowing(city).eval(), output=tmp_path / "out", size=TINY, say=lines.append, progress=False)
    assert (result.search.mAP, result.search.top1, result.detection.recall) == (1, 1, 1)
    assert result.search.num_queries == 3 and result.search.skipped == 0
    for query, found, right in zip(city.queries, result.results, result.truth, strict=False):
        assert found.query.image == query.sample.name and len(found.hits) == len(right) == 4
        assert all(hit.detection.image != query.sample.name for hit in found.hits), "his own photo is no answer"
        # each is on three photos, so two are left; whoever follows is somebody else
        assert right == (True, True, False, False)
    assert len(result.results) == 2
    said = "\n".join(lines)
    assert "mAP 100.0%, top-1 100.0%" in said and "all gallery images but the query's own" in said
    assert all(f"{step:<24}" in said for step in result.seconds) and "indexing the photos" in result.seconds
    page = result.report.read_text()
    assert page.count("data-scene=") >= 2 and "http://" not in page.replace("http://www.w3.org", "")
    with Image.open(result.picture) as picture:
        assert picture.format == "PNG" and picture.width > 800 and picture.height > 600
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"photos", "gallery", "report.html", "search.png"}
    assert hub.requests == [] and not home.exists(), "no network, and the cache untouched"


def test_who_mistakes_somebody_is_told_so(city: SearchSet, tmp_path: Path) -> None:
    for model in (Knowing(city), Knowing(city, forgets=0)):  # the second in the place of the first
        result = run_demo(model.eval(), output=tmp_path / "out", size=TINY, say=lambda line: None, progress=False)
    assert not any(result.truth[0]), "person 0 looks like person 1 everywhere"
    assert not result.search.per_query_hits[0][0] and result.search.per_query_ap[0] < 0.5
    assert result.search.mAP < 1 and result.detection.recall == 1


def test_a_detector_by_name_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pretrainps.build_detector("seqnet", backbone=build_backbone("resnet_tiny"), config=SMALL)
    model.load_state_dict(lively_detector("seqnet", "resnet_tiny").state_dict())
    pretrainps.save_pretrained(model, tmp_path / "model")
    arguments = ["--model", f"file:{tmp_path / 'model'}", "-o", str(tmp_path / "out"), "--people", "2", "--quiet"]
    assert main(["demo", *arguments]) == 0
    out = capsys.readouterr().out
    assert "mAP" in out and "report.html" in out and (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_the_same_city_each_time_and_written_once(city: SearchSet) -> None:
    (first, *_) = city.gallery.samples
    folder = Path(first.image).parent.parent  # type: ignore[arg-type]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*.jpg"))}
    spoiled = next(iter(before))
    spoiled.write_bytes(b"not the photo")
    again = draw_city(folder, TINY)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*.jpg"))}
    assert {path: body for path, (_, body) in after.items()} == {path: body for path, (_, body) in before.items()}
    assert [path for path in before if before[path][0] != after[path][0]] == [spoiled]
    assert [query.id for query in again.queries] == [query.id for query in city.queries]
    assert {sample.name for sample in again.gallery.samples} == {path.relative_to(folder).as_posix() for path in before}


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda out: (out.mkdir(), (out / "report.html").write_text("mine")), "holds other things"),
        (lambda out: out.write_text("a file"), "holds other things"),
        (lambda out: ((out / "photos").mkdir(parents=True), (out / "photos" / "me.jpg").write_text("me")), "no photo of this"),
    ],
)
def test_nothing_of_anybody_elses_is_touched(city: SearchSet, tmp_path: Path, prepare: Any, words: str) -> None:
    out = tmp_path / "out"
    prepare(out)
    before = {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()}
    with pytest.raises(ArgumentError, match=words):
        run_demo(Knowing(city).eval(), output=out, size=TINY, say=lambda line: None, progress=False)
    assert {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()} == before


def test_what_detects_nobody_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="list --task detector"):
        run_demo("resnet50-imagenet", output=tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ["people", "appearances", "shown", "answers"])
def test_sizes_that_cannot_be(field: str) -> None:
    with pytest.raises(ArgumentError, match=field):
        replace(TINY, **{field: 0})
