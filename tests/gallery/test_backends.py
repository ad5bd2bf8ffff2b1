"""Stores and vector indexes of other packages: a gallery is indexed, searched, extended, shortened and opened again in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrainps import errors, gallery
from pretrainps.cli.main import main
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import DetectionFilter, Gallery
from pretrainps.gallery.storage.folder import FolderStore
from pretrainps.gallery.storage.registry import open_store
from tests.support.galleries import detector, everyone, indexed, noise, photos
from tests.support.gallery_plugin import SCHEME, TOY_INDEX, ToyStore


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", lambda self, dtype: self)
    gallery.register_detection_store(SCHEME, ToyStore)
    gallery.register_vector_index(TOY_INDEX)
    yield
    gallery.unregister_detection_store(SCHEME)
    gallery.unregister_vector_index(TOY_INDEX.name)


def answers(found: Gallery, **options: Any) -> list[tuple[str, float]]:
    return [(hit.detection.id or "", hit.similarity) for hit in found.search(**options).hits]


@pytest.mark.parametrize(("scheme", "index"), [("toydb://", None), ("toydb://", "toy"), ("file://", "toy"), ("", "toy")])
def test_a_gallery_lives_in_any_store_with_any_index(tmp_path: Path, scheme: str, index: str | None) -> None:
    """And it answers as the folder with exact search does, or as the index promises."""
    folder, store, model = photos(tmp_path / "photos", 3), f"{scheme}{tmp_path / 'g'}", detector()
    options = {"vector_index": index, "store": store}

    def compare() -> None:
        plain = indexed(folder, tmp_path / "plain")
        report = indexed(folder, **options)
        assert (report.images, report.detections, report.failures) == (plain.images, plain.detections, plain.failures)
        found, wanted = Gallery.open(store), Gallery.open(tmp_path / "plain")
        assert everyone(found) == everyone(wanted) and found.complete
        assert found.location == (str(tmp_path / "g") if scheme != "toydb://" else store)
        assert found.method == ("exact" if index is None else "toy, recall 50%")
        asked = wanted.detections_of("trip/1.png")[0]
        exact = answers(wanted, detection=asked.id, top=5, exclude_query_image=True)
        mine = answers(found, detection=asked.id, top=5, exclude_query_image=True)
        assert len(mine) == 5 and all(not each.startswith("trip/1.png") for each, _ in mine)
        rounding = 0.25 if index else 1e-6
        assert [each for _, each in mine] == pytest.approx([each for _, each in exact], abs=rounding)
        assert [each for each, _ in mine] == [each for each, _ in exact] or index
        precise = Gallery.open(store, vector_index="exact")
        assert answers(precise, detection=asked.id, top=5) == pytest.approx(answers(wanted, detection=asked.id, top=5))
        again = found.search(model, folder / "trip" / "1.png", asked.box, top=3)
        assert len(again.hits) == 3 and again.method == found.method

    compare()
    assert indexed(folder, **options).unchanged == 3
    noise(folder / "new.png", 8)
    compare()
    before = Gallery.open(store)
    (folder / "2.png").unlink()
    compare()
    assert "2.png" in before.image_names and before.detections_of("2.png"), "an opened version stays as it is"
    with pytest.raises(errors.ArgumentError, match="no image"):
        Gallery.open(store).detection("2.png#1")
    (folder / "broken.jpg").write_bytes(b"")
    assert [each.image for each in indexed(folder, **options).failures] == ["broken.jpg"]


def test_the_command_takes_urls_and_indexes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrainps.hub.load.load", lambda name, **options: detector())
    folder, store = photos(tmp_path / "photos", 2), f"toydb://{tmp_path / 'g'}"
    assert main(["index", str(folder), "--model", "x", "-o", store, "--quiet", "--vector-index", "toy"]) == 0
    assert main(["search", store, "--person", "0.png#1", "--top", "2", "--json", "--quiet"]) == 0
    assert '"method": "toy, recall 50%"' in capsys.readouterr().out


def test_a_model_with_vectors_of_another_length_is_refused_when_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = PersonSearchDetector.forward

    def shortened(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        return [{**each, "embeddings": each["embeddings"][:, :7]} for each in forward(self, images, targets)]

    detector()
    monkeypatch.setattr(PersonSearchDetector, "forward", shortened)
    for store in (tmp_path / "g", f"toydb://{tmp_path / 'h'}"):
        with pytest.raises(errors.ArgumentError, match=r"embeddings of 7 numbers for .*\.png, but its embedding_dim is 256"):
            indexed(photos(tmp_path / "photos", 1), store)  # type: ignore[arg-type]


def test_filters_hold_in_exact_search_however_many_rows_they_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrainps.gallery.search import exact_search

    indexed(photos(tmp_path / "photos", 4), tmp_path / "g")
    found = Gallery.open(tmp_path / "g")
    vectors = np.random.default_rng(0).standard_normal((3, found.dim)).astype(np.float32)
    scores, rows = found.search_embeddings(vectors, len(found))
    images = np.array([found.detection(row).image for row in range(len(found))])
    filters = [
        DetectionFilter(exclude_images=frozenset({"0.png", "gone.png"})),
        DetectionFilter(folder="trip/"),
        DetectionFilter(folder="trip/", exclude_images=frozenset({"trip/1.png"})),
        DetectionFilter(folder="nowhere/"),
        DetectionFilter(),
    ]
    for few in (0, 10_000):
        monkeypatch.setattr(exact_search, "_FEW", few)
        for only in filters:
            allowed = np.array([only.allows(image) for image in images])
            for top in (1, 4, 10_000):
                best, places = found.search_embeddings(vectors, top, only=only)
                for query in range(3):
                    wanted = [row for row in rows[query] if allowed[row]][:top]
                    assert places[query].tolist() == wanted
                    assert best[query] == pytest.approx(scores[query][np.isin(rows[query], wanted)], abs=1e-5)


@pytest.mark.parametrize("name", ["", "Toy", "9lives", "a/b", "with space", "x" * 33])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(errors.ArgumentError, match="cannot be the name of a detection store"):
        gallery.register_detection_store(name, ToyStore)


def test_names_that_are_taken_or_unknown(tmp_path: Path) -> None:
    with pytest.raises(errors.ArgumentError, match="already"):
        gallery.register_vector_index(TOY_INDEX)
    for scheme in (SCHEME, "file"):
        with pytest.raises(errors.ArgumentError, match="Choose another"):
            gallery.register_detection_store(scheme, ToyStore)
    for place in ("lance://x", "POSTGRES://u@host/db", "s3://bucket/gallery"):
        with pytest.raises(errors.ArgumentError, match=r"no detection store '.*Known: .*toydb.*register_detection_store"):
            Gallery.open(place)
    with pytest.raises(errors.ArgumentError, match=r"no vector index 'hnsw'. Known: exact, faiss.*toy.*register_vector_index"):
        indexed(photos(tmp_path / "photos", 1), tmp_path / "g", vector_index="hnsw")
    assert not (tmp_path / "g" / "manifest.json").exists(), "it is refused before anything is indexed"
    indexed(photos(tmp_path / "photos", 1), tmp_path / "g")
    with pytest.raises(errors.ArgumentError, match=r"has no vector index 'toy'.*--vector-index toy"):
        len(Gallery.open(tmp_path / "g", vector_index="toy").method)
    indexed(tmp_path / "photos", tmp_path / "g", vector_index="toy")  # what the message says
    assert Gallery.open(tmp_path / "g", vector_index="toy").method.startswith("toy")


def test_installed_packages_bring_back_ends_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    module = "tests.support.gallery_plugin"
    (info / "entry_points.txt").write_text(
        f"[pretrainps.detection_stores]\nplugged = {module}:ToyStore\nbroken = {module}:NoSuchStore\n"
        f"[pretrainps.vector_indexes]\nplugged = {module}:PLUGGED_INDEX\nother = {module}:PLUGGED_INDEX\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(open_store("plugged://somewhere"), ToyStore)
    with pytest.raises(errors.ArgumentError, match=r"'broken' of the plug-in .*NoSuchStore cannot be imported"):
        open_store("broken://somewhere")
    with pytest.raises(errors.ArgumentError, match="'other' brings the vector index 'plugged'"):
        indexed(photos(tmp_path / "photos", 1), tmp_path / "g", vector_index="other")
    report = indexed(tmp_path / "photos", tmp_path / "g", vector_index="plugged")
    assert report.images == 1 and Gallery.open(tmp_path / "g").method.startswith("toy")


def test_a_store_may_be_given_itself(tmp_path: Path) -> None:
    store = ToyStore(f"toydb://{tmp_path / 'mine'}")
    indexed(photos(tmp_path / "photos", 1), store)  # type: ignore[arg-type]
    assert len(Gallery.open(store)) == len(Gallery.open(FolderStore(_folder(tmp_path))))


def _folder(tmp_path: Path) -> Path:
    indexed(tmp_path / "photos", tmp_path / "plain")
    return tmp_path / "plain"
