"""Crops in, unit vectors and tables out; bad files reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import pretrainps
from pretrainps import errors
from pretrainps.heads import CropModel
from pretrainps.images.read import find_images
from pretrainps.inference.embed import embed
from tests.support.fakehub import FakeHub
from tests.support.figures import draw_people
from tests.support.weights import FILES, REPO, authors_file

SMALL = "shufflenetv1-hybrid"


@pytest.fixture
def embedder(hub: FakeHub) -> CropModel:
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    model = pretrainps.load(SMALL, head="embedding", progress=False)
    assert isinstance(model, CropModel)
    return model


def test_batches_give_what_single_images_give(embedder: CropModel, tmp_path: Path) -> None:
    paths = draw_people(tmp_path / "people")
    whole = embed(embedder, paths, progress=False)
    torch.testing.assert_close(embed(embedder, paths, batch_size=1, progress=False).vectors, whole.vectors)
    torch.testing.assert_close(embed(embedder, paths, batch_size=4, progress=False).vectors, whole.vectors)
    torch.testing.assert_close(whole.similarity.diagonal(), torch.ones(6))
    transform = pretrainps.preprocess(embedder)
    with torch.no_grad():
        torch.testing.assert_close(whole.vectors[2], embedder(transform(paths[2])[None])[0])


def test_bad_files_are_reported_and_the_rest_embedded(embedder: CropModel, tmp_path: Path) -> None:
    good = draw_people(tmp_path / "people")
    (tmp_path / "people" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    result = embed(embedder, find_images([tmp_path / "people"]), batch_size=2, progress=False)
    assert list(result.paths) == good
    assert [path.name for path, _ in result.failures] == ["broken.jpg"]
    assert json.loads(json.dumps(result.to_json()))["failures"][0]["image"].endswith("broken.jpg")


def test_a_last_batch_of_bad_files_loses_nothing(embedder: CropModel, tmp_path: Path) -> None:
    paths = [*draw_people(tmp_path / "people"), tmp_path / "gone.jpg"]
    assert len(embed(embedder, paths, batch_size=4, progress=False).vectors) == 6


def test_nothing_readable(embedder: CropModel, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    with pytest.raises(errors.ImageError, match=r"none of the 1 images.*(?s:.*)broken\.jpg"):
        embed(embedder, [tmp_path / "broken.jpg"], progress=False)


def test_table_for_few_and_for_many(embedder: CropModel, tmp_path: Path) -> None:
    result = embed(embedder, draw_people(tmp_path / "people"), progress=False)
    assert result.table().count("1.000") >= 6 and "ada-1.png" in result.table()
    many = result.table(most=3)
    assert "nearest" in many and len(many.splitlines()) == 7
    for line, row in zip(many.splitlines()[1:], (result.similarity - 2 * torch.eye(6)).argmax(1), strict=True):
        assert line.endswith(result.paths[int(row)].name)


def test_only_embedders_embed(tmp_path: Path, embedder: CropModel) -> None:
    with pytest.raises(errors.ArgumentError, match="head='embedding'"):
        embed(embedder.backbone, draw_people(tmp_path / "p"))  # type: ignore[arg-type]


def test_finding_images(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.JPG", "deep/a.png", "deep/er/c.webp"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_images([tmp_path, tmp_path / "b.JPG"])
    assert [p.name for p in found] == ["b.JPG", "a.png", "c.webp"]
    with pytest.raises(errors.ArgumentError, match="does not exist"):
        find_images([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.ArgumentError, match="no images"):
        find_images([tmp_path / "empty"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_models_give_unit_vectors_in_float32(embedder: CropModel, tmp_path: Path, dtype: torch.dtype) -> None:
    paths = draw_people(tmp_path / "people")[:2]
    wanted = embed(embedder, paths, progress=False).vectors
    found = embed(embedder.to(dtype), paths, progress=False).vectors
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert float((found * wanted).sum(dim=1).min()) > 0.99


def test_a_model_in_training_is_refused(embedder: CropModel, tmp_path: Path) -> None:
    paths = draw_people(tmp_path / "people")[:1]
    with pytest.raises(errors.ArgumentError, match=r"model\.eval\(\)"):
        embed(embedder.train(), paths, progress=False)
    assert len(embed(embedder.eval(), paths, progress=False).vectors) == 1
