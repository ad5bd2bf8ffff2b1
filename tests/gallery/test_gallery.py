"""The whole gallery with a small detector: filled, brought up to date, interrupted, searched."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pretrainps import errors
from pretrainps.cli.main import main
from pretrainps.detectors import PersonSearchDetector
from pretrainps.evaluation.cbgm import rerank
from pretrainps.evaluation.protocols import ContextMatching
from pretrainps.gallery import Detection, Gallery
from pretrainps.gallery.storage import writer
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.images.pixels import to_tensor
from pretrainps.images.read import read_image
from pretrainps.inference.detections import Detections
from tests.support.galleries import detector, everyone, indexed, noise, photos

OPTIMISED = PersonSearchDetector.optimize_for_inference


@pytest.fixture(autouse=True)
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count the images that a detector looks at, batch by batch; to optimize it would take longer than to look."""
    detector()  # which looks at some images while it is made
    batches: list[int] = []
    forward = PersonSearchDetector.forward

    def counted(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        batches.append(len(images))
        return forward(self, images, targets)

    monkeypatch.setattr(PersonSearchDetector, "forward", counted)
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", lambda self, dtype: self)
    yield batches


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of four photos, and where its gallery goes."""
    return photos(tmp_path / "photos"), tmp_path / "g"


def put(path: Path, raw: bytes) -> None:
    """Put a file in place of one that may be mapped: to cut that off would end the process."""
    path.unlink()
    path.write_bytes(raw)


def assert_same(found: Gallery, wanted: Gallery) -> None:
    mine, others = everyone(found), everyone(wanted)
    assert set(mine) == set(others) and len(found) == len(wanted)
    for name, people in mine.items():
        for (box, score), (other_box, other_score) in zip(people, others[name], strict=True):
            assert box == pytest.approx(other_box, abs=1e-3) and score == pytest.approx(other_score, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_gallery_holds_what_the_detector_finds(place: tuple[Path, Path], batch_size: int, looked: list[int]) -> None:
    folder, store = place
    model = detector()
    report = indexed(folder, store, batch_size=batch_size)
    assert (report.images, report.added, report.failures) == (4, 4, ()) and report.detections > 8
    assert sum(looked) == 4 and max(looked) == (1 if batch_size == 1 else 2), "two images have one size, and two another"
    gallery = Gallery.open(store)
    assert gallery.root == folder and set(gallery.image_names) == {"0.png", "2.png", "trip/1.png", "trip/3.png"}
    assert len(gallery) == report.detections and gallery.complete and gallery.matches(model) and gallery.method == "exact"
    row = 0
    for name in gallery.image_names:
        (found,) = model([to_tensor(folder / name)])
        people = gallery.detections_of(name)
        assert [person.score for person in people] == pytest.approx(found["scores"].tolist(), abs=1e-4)
        np.testing.assert_allclose([person.box for person in people], found["boxes"].numpy(), atol=1e-2)
        assert people == [gallery.detection(row + place) for place in range(len(people))]
        vectors = found["embeddings"].detach()
        scores, rows = gallery.search_embeddings(vectors, 1)
        assert scores[:, 0] == pytest.approx((vectors @ vectors.T).amax(1).numpy(), abs=1e-3) or rows.min() >= 0
        row += len(people)


def test_the_optimized_copy_fills_it_alike(place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = place
    indexed(folder, tmp_path / "plain")
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", OPTIMISED)
    indexed(folder, store)
    assert_same(Gallery.open(store), Gallery.open(tmp_path / "plain"))


def test_only_new_and_changed_images_are_looked_at(place: tuple[Path, Path], tmp_path: Path, looked: list[int]) -> None:
    folder, store = place
    first = indexed(folder, store)
    looked.clear()
    again = indexed(folder, store)
    assert looked == [] and (again.unchanged, again.added, again.removed) == (4, 0, 0) and again.detections == first.detections
    os.utime(folder / "0.png", ns=(1, 1))  # touched: the same bytes
    shutil.copy(noise(tmp_path / "other.png", 77, (40, 48)), folder / "trip" / "3.png")  # changed
    (folder / "2.png").unlink()
    noise(folder / "new.png", 5)
    report = indexed(folder, store)
    assert len(looked) == 2
    assert (report.added, report.changed, report.unchanged, report.removed, report.images) == (1, 1, 2, 1, 4)
    looked.clear()
    assert indexed(folder, store).unchanged == 4 and looked == []
    indexed(folder, tmp_path / "anew")
    assert_same(Gallery.open(store), Gallery.open(tmp_path / "anew"))
    assert len(list(store.glob("detections-*"))) == 1, "the replaced files are gone"


def test_what_lies_in_a_folder_of_photos(tmp_path: Path, looked: list[int]) -> None:
    folder = tmp_path / "photos"
    upright = read_image(noise(folder / "a.PNG", 1, (64, 40)))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    Image.new("RGB", (1, 1)).save(folder / "tiny.webp")
    Image.new("L", (9000, 4)).save(folder / "thin.jpg")
    Image.new("I;16", (50, 40), 40000).save(folder / "deep.tif")
    (folder / "broken.jpg").write_bytes((folder / "thin.jpg").read_bytes()[:150])
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    (folder / "notes.txt").write_text("no image")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    (folder / "loop").symlink_to(folder)
    (folder / ".thumbnails").mkdir()
    shutil.copy(folder / "a.PNG", folder / ".thumbnails" / "a.png")
    shutil.copy(folder / "a.PNG", folder / "._a.png")
    (folder / "gallery").mkdir()
    odd = "t\nü \udce9 #1 & <b>.png"
    shutil.copy(folder / "a.PNG", folder / odd)
    report = indexed(folder, folder / "gallery")
    (folder / "gallery" / "report.png").write_bytes((folder / "a.PNG").read_bytes())
    assert {failure.image for failure in report.failures} == {"thin.jpg", "broken.jpg", "empty.jpg", "link.png"}
    reasons = {failure.image: failure.reason for failure in report.failures}
    assert "so thin" in reasons["thin.jpg"] and "No such file" in reasons["link.png"]
    gallery = Gallery.open(folder / "gallery")
    assert set(gallery.image_names) == {"a.PNG", "turned.png", "tiny.webp", "deep.tif", odd}
    assert gallery.detections_of("turned.png") and [p.box for p in gallery.detections_of("turned.png")] == [
        p.box for p in gallery.detections_of("a.PNG")
    ]
    assert gallery.picture("turned.png").size == (64, 40)
    looked.clear()
    assert indexed(folder, folder / "gallery").unchanged == 5 and looked == []


def test_search_finds_and_leaves_out_and_says_where(place: tuple[Path, Path]) -> None:
    folder, store = place
    indexed(folder, store)
    gallery, model = Gallery.open(store), detector()
    sought = gallery.detections_of("trip/1.png")[1]
    result = gallery.search(model, folder / "trip" / "1.png", sought.box, top=5)
    assert result.query == Detection("trip/1.png", sought.box, 1.0) and (result.searched, result.images) == (len(gallery), 4)
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4, 5]
    assert any(hit.detection.is_seen_as(result.query) for hit in result.hits)
    vector = model.embed([to_tensor(folder / "trip" / "1.png")], [torch.tensor([sought.box])])[0]
    found = [hit.similarity for hit in result.hits]
    table = {}  # every person's vector again, from the detector
    for name in gallery.image_names:
        (seen,) = model([to_tensor(folder / name)])
        table.update({(name, place): float(v @ vector[0]) for place, v in enumerate(seen["embeddings"])})
    assert found == pytest.approx(sorted(table.values(), reverse=True)[:5], abs=1e-3)
    others = gallery.search(model, folder / "trip" / ".." / "trip" / "1.png", sought.box, top=5, exclude_query_image=True)
    assert "trip/1.png" not in {hit.detection.image for hit in others.hits} and len(others.hits) == 5
    elsewhere = gallery.search(model, read_image(folder / "0.png"), (1, 2, 30, 40), query_name="upload")
    assert elsewhere.query.image == "upload" and len(elsewhere.hits) == 10
    assert len(gallery.search(model, folder / "0.png", (1, 2, 30, 40), top=10**6).hits) == len(gallery)
    assert json.loads(json.dumps(result.to_json()))["hits"][0]["rank"] == 1


def test_reranking_is_context_matching_over_everyone(place: tuple[Path, Path]) -> None:
    folder, store = place
    indexed(folder, store)
    gallery, model = Gallery.open(store), detector()
    sought = gallery.detections_of("0.png")[0]
    settings = ContextMatching(k1=4, k2=3)
    result = gallery.search(model, folder / "0.png", sought.box, top=len(gallery), rerank=True, context=settings)
    few = gallery.search(model, folder / "0.png", sought.box, top=3, rerank=True, context=settings)
    parts = GalleryFiles(store).open_all(GalleryFiles(store).manifest())
    table = Detections.from_images(
        [
            {name: getattr(part, name)[list(part.rows_of(n))] for name in ("boxes", "scores", "embeddings")}
            for part in parts
            for n in range(len(part.images))
        ]
    )
    image = [to_tensor(folder / "0.png")]
    beside = model.query_as_gallery(image, [torch.tensor([sought.box])])[0]["embeddings"].detach().numpy()
    wanted = rerank(table.embeddings @ beside[0], np.arange(len(table)), table, beside, settings)
    assert [hit.similarity for hit in result.hits] == pytest.approx(-np.sort(-wanted), abs=1e-5)
    assert [hit.detection for hit in few.hits] == [hit.detection for hit in result.hits[:3]]
    assert "context matching with k1 = 4, k2 = 3" in few.method
    plain = gallery.search(model, folder / "0.png", sought.box, top=len(gallery))
    assert [hit.similarity for hit in plain.hits] != [hit.similarity for hit in result.hits], "matching changes something"


@pytest.mark.parametrize("box", [(5, 5, 5, 20), (60, 0, 70, 9), (-9, -9, 0, 0), (1, 2, 3), (0, 0, float("nan"), 9)])
def test_boxes_that_cannot_be(place: tuple[Path, Path], box: Any) -> None:
    indexed(*place)
    with pytest.raises(errors.ArgumentError, match="x1, y1, x2, y2"):
        Gallery.open(place[1]).search(detector(), place[0] / "0.png", box)


def test_a_gallery_is_bound_to_its_model(place: tuple[Path, Path], looked: list[int]) -> None:
    folder, store = place
    indexed(folder, store)
    gallery, other = Gallery.open(store), detector(seed=1)
    assert not gallery.matches(other)
    with pytest.raises(errors.GalleryError, match=r"same name, oim, but other weights.*index the images again"):
        gallery.search(other, folder / "0.png", (1, 2, 30, 40))
    with pytest.raises(errors.GalleryError, match=r"cannot search this gallery.*--rebuild"):
        indexed(folder, store, model=other)
    with pytest.raises(errors.GalleryError, match="made in float32, not bfloat16"):
        indexed(folder, store, precision="bfloat16")
    looked.clear()
    assert indexed(folder, store, model=other, rebuild=True).added == 4 and len(looked) == 4
    assert Gallery.open(store).matches(other)
    with pytest.raises(errors.ArgumentError, match="detects people and embeds them; Linear does not"):
        indexed(folder, store, model=torch.nn.Linear(1, 1))
    changed = deepcopy(detector())
    assert (before := Gallery.open(store)).matches(changed) is False
    changed.load_state_dict(other.state_dict())
    assert before.matches(changed), "a change of tensors is seen"
    with pytest.raises(errors.ArgumentError, match=r"model\.eval\(\)"):
        indexed(folder, store, model=changed.train())
    changed.eval().optimized = True
    with pytest.raises(errors.ArgumentError, match="as it was loaded"):
        indexed(folder, store, model=changed)


def test_a_gallery_is_bound_to_its_folder(place: tuple[Path, Path], tmp_path: Path, looked: list[int]) -> None:
    folder, store = place
    indexed(folder, store)
    with pytest.raises(errors.GalleryError, match=r"is of .*photos, and not of .*others.*another folder"):
        indexed(photos(tmp_path / "others", 2), store)
    looked.clear()
    moved = folder.rename(tmp_path / "moved")
    gallery = Gallery.open(store)
    with pytest.raises(errors.ImageError, match=r"lay in .*photos, which does not exist.*root="):
        gallery.picture("0.png")
    assert Gallery.open(store, root=moved).picture("0.png").size == (40, 48)
    assert indexed(moved, store).unchanged == 4 and looked == []
    (tmp_path / "empty").mkdir()
    shutil.rmtree(moved)
    with pytest.raises(errors.ArgumentError, match="no images"):  # an unmounted disk is no reason to forget everybody
        indexed(tmp_path / "empty", store)
    assert len(Gallery.open(store)) == len(gallery)
    with pytest.raises(errors.ArgumentError, match="does not exist"):
        indexed(tmp_path / "nowhere", store)
    with pytest.raises(errors.ArgumentError, match="is one image"):
        indexed(noise(tmp_path / "one.png", 0), store)
    with pytest.raises(errors.ArgumentError, match="are for videos"):
        indexed(photos(tmp_path / "photos"), tmp_path / "h", fps=2.0)


def test_pictures_are_those_that_were_looked_at(place: tuple[Path, Path]) -> None:
    folder, store = place
    indexed(folder, store)
    gallery = Gallery.open(store)
    os.utime(folder / "0.png", ns=(1, 1))
    assert np.array_equal(gallery.picture("0.png"), read_image(folder / "0.png"))
    noise(folder / "0.png", 99)
    with pytest.raises(errors.ImageError, match="changed since it was indexed"):
        gallery.picture("0.png")
    (folder / "0.png").unlink()
    with pytest.raises(errors.ImageError, match="does not exist"):
        gallery.picture("0.png")
    for ask in (gallery.picture, gallery.detections_of):
        with pytest.raises(errors.ArgumentError, match=r"no image '9\.png'"):
            ask("9.png")
    for row in (-1, len(gallery)):
        with pytest.raises(errors.ArgumentError, match=f"no row {row}"):
            gallery.detection(row)


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen moment."""


def test_interrupted_at_any_moment_it_stays_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked: list[int]) -> None:
    """Each write, rename and removal is once the last thing that happens; then the run is gone on with."""
    folder = photos(tmp_path / "two", 2)
    monkeypatch.setattr(writer, "_SECONDS", 0.0)  # each image is written at once
    monkeypatch.setattr(writer, "_SMALL_FILES", 2)
    forward, answers = PersonSearchDetector.forward, {}

    def remembering(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        key = bytes(images[0].numpy())
        if key not in answers:
            answers[key] = forward(self, images, targets)
        looked.append(len(images))
        return answers[key]

    monkeypatch.setattr(PersonSearchDetector, "forward", remembering)
    indexed(folder, tmp_path / "whole")
    countdown = 0

    def stopping(kept: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                raise Stop
            return kept(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", stopping(os.fsync))
    monkeypatch.setattr(Path, "replace", stopping(Path.replace))
    moments = 0
    while True:
        moments += 1
        store = tmp_path / f"g{moments}"
        looked.clear()
        countdown = moments
        try:
            indexed(folder, store)
            break
        except Stop:
            countdown = 0
        if (store / "manifest.json").exists():
            assert all(Gallery.open(store).detections_of(name) for name in Gallery.open(store).image_names)
        report = indexed(folder, store)
        assert report.added + report.unchanged == 2 and len(looked) <= 3, "one image is looked at twice at most"
        assert_same(Gallery.open(store), Gallery.open(tmp_path / "whole"))
        assert {path.name for path in store.iterdir()} == GalleryFiles(store).manifest().names() | {
            "manifest.json",
            "index.lock",
        }
    assert moments > 12


def test_ctrl_c_keeps_what_was_found(place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, looked: list[int]) -> None:
    folder, store = place
    forward = PersonSearchDetector.forward

    def stopping(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        if len(looked) == 2:
            raise KeyboardInterrupt
        return forward(self, images, targets)

    monkeypatch.setattr(PersonSearchDetector, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        indexed(folder, store)
    gallery = Gallery.open(store)
    assert len(gallery.image_names) == 2 and not gallery.complete
    monkeypatch.setattr(PersonSearchDetector, "forward", forward)
    report = indexed(folder, store)
    assert (report.added, report.unchanged) == (2, 2) and Gallery.open(store).complete


def test_runs_at_once_do_no_harm(place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = place
    monkeypatch.setattr(writer, "_SECONDS", 0.0)
    monkeypatch.setattr(writer, "_SMALL_FILES", 2)
    reports: list[Any] = []
    runs = [threading.Thread(target=lambda: reports.append(indexed(folder, store, wait=True))) for _ in range(3)]
    for run in runs:
        run.start()
    seen = set()
    while any(run.is_alive() for run in runs):
        try:
            seen.add(len(Gallery.open(store).image_names))  # readers see a whole gallery at every moment
        except errors.GalleryError as error:
            assert "does not exist" in str(error) or "holds no gallery" in str(error)
    assert sorted(report.added for report in reports) == [0, 0, 4] and seen <= {0, 1, 2, 3, 4}
    indexed(folder, tmp_path / "alone")
    assert_same(Gallery.open(store), Gallery.open(tmp_path / "alone"))
    with GalleryFiles(store).lock(wait=False), pytest.raises(errors.GalleryError, match="another run is writing"):
        indexed(folder, store)


def test_damaged_files_are_made_anew(place: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    folder, store = place
    before = indexed(folder, store)
    (file,) = store.glob("detections-*")
    raw = file.read_bytes()
    put(file, raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(errors.IntegrityError, match="--rebuild"):
        Gallery.open(store)
    with caplog.at_level(logging.WARNING, logger="pretrainps"):
        report = indexed(folder, store)
    assert "looked at again" in caplog.text and (report.added, report.detections) == (4, before.detections)
    assert len(Gallery.open(store)) == before.detections
    (store / "manifest.json").write_text("{}")
    for ask in (lambda: Gallery.open(store), lambda: indexed(folder, store)):
        with pytest.raises(errors.IntegrityError, match=r"damaged.*--rebuild"):
            ask()
    assert indexed(folder, store, rebuild=True).detections == before.detections


def test_numbers_that_are_not_finite_are_reported(place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = place
    forward = PersonSearchDetector.forward

    def overflowing(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        results = forward(self, images, targets)
        for image, result in zip(images, results, strict=True):
            if image.shape[1] == 48:
                result["embeddings"] = result["embeddings"] * torch.inf
        return results

    monkeypatch.setattr(PersonSearchDetector, "forward", overflowing)
    report = indexed(folder, store)
    assert {(each.image, each.reason) for each in report.failures} == {
        (name, "the model answers with numbers that are not finite.") for name in ("0.png", "trip/3.png")
    }
    assert report.images == 2


def test_large_galleries_are_searched_by_an_index(
    place: tuple[Path, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, store = place
    from pretrainps.gallery.search import faiss_index

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="pretrainps"):
        patch.setattr(faiss_index, "import_module", lambda name: __import__("no_such_package"))
        indexed(folder, store, approximate_above=2)
        assert "pip install 'pretrainps[index]'" in caplog.text and Gallery.open(store).method == "exact"
    pytest.importorskip("faiss", reason="pretrainps[index] is not installed")
    indexed(folder, store, approximate_above=2)
    gallery = Gallery.open(store)
    assert gallery.method.startswith("faiss IVF, 1 of 1 lists searched: recall 100.0% of the 10 nearest, measured against")
    sought = gallery.detections_of("0.png")[0]
    result = gallery.search(detector(), folder / "0.png", sought.box, top=4)
    assert result.method == gallery.method
    file = next(store.glob("index-*.faiss"))
    raw = file.read_bytes()
    put(file, raw[:-3] + b"abc")
    with pytest.raises(errors.IntegrityError, match="sha256"):
        Gallery.open(store).search(detector(), folder / "0.png", sought.box)
    put(file, raw)
    with monkeypatch.context() as patch:
        patch.setattr(faiss_index, "import_module", lambda name: __import__("no_such_package"))
        with pytest.raises(errors.MissingPackageError, match=r"pretrainps\[index\]"):
            Gallery.open(store).search(detector(), folder / "0.png", sought.box)
    (folder / "2.png").unlink()
    assert Gallery.open(store).method.startswith("faiss")
    indexed(folder, store)
    gallery = Gallery.open(store)
    assert gallery.method == "exact" and not list(store.glob("index-*.faiss"))
    exact = gallery.search(detector(), folder / "0.png", sought.box, top=4)
    kept = [hit.similarity for hit in result.hits if hit.detection.image != "2.png"]
    assert [hit.similarity for hit in exact.hits][: len(kept)] == pytest.approx(kept, abs=1e-5)


def test_the_command(place: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = place
    monkeypatch.setattr("pretrainps.hub.load.load", lambda name, **options: detector())
    (folder / "broken.jpg").write_bytes(b"")
    command = ["index", str(folder), "--model", "seqnet-tiny-synthetic", "-o", str(store), "--quiet"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{len(Gallery.open(store))} people in 4 images: 4 new") and "1 could not be read" in out
    assert "not read: " in err and "broken.jpg" in err and f"pretrainps search {store}" in err
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unchanged"] == 4 and report["failures"][0]["image"] == "broken.jpg"
    assert main(["index", str(folder / "none"), "--model", "x", "-o", str(store)]) == 1
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setattr("pretrainps.hub.load.load", lambda name, **options: torch.nn.Linear(1, 1))
    assert main(command) == 1 and "is no detector of people" in capsys.readouterr().err
