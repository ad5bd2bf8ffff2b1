"""Files of a gallery: what is written is read, what was changed by a byte is refused, and nothing of others is touched."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrainps import errors
from pretrainps.files import sha256_of
from pretrainps.gallery import Gallery
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.gallery.storage.format_1 import downgrade
from pretrainps.gallery.storage.header import Failure, GalleryHeader, SourceMark
from pretrainps.gallery.storage.manifest import NAME, FileMark, IndexFile, Manifest, parse_manifest
from pretrainps.gallery.storage.shard import DetectionShard, join_shards
from pretrainps.weights.write import write_safetensors
from tests.support.galleries import DIM, model_mark, random_shard, stored

MANIFEST = Manifest(
    header=GalleryHeader(
        model=model_mark(),
        source=SourceMark(kind="video", root="/films/Frühling \udcff.mp4", fps=2.5),
        failures=(Failure(image="x\n.jpg", reason="damaged"),),
        complete=True,
    ),
    files=(FileMark(file=f"detections-{7:016x}.safetensors", sha256="a" * 64, size=900, images=3, detections=5),),
    index=IndexFile(
        kind="faiss",
        version="c" * 64,
        facts={"detections": 5, "nlist": 4, "nprobe": 2, "recall": 0.975, "nearest": 10, "sample": 5},
        file=f"index-{7:016x}.faiss",
        sha256="b" * 64,
        size=9,
    ),
)
PATH = Path("manifest.json")


def assert_same(found: DetectionShard, wanted: DetectionShard) -> None:
    assert found.images == wanted.images
    for name in ("image_indices", "boxes", "scores", "embeddings"):
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_what_is_written_is_read(tmp_path: Path) -> None:
    parts = [random_shard([2, 0, 3]), random_shard([0], seed=1, first=3), random_shard([1], seed=2, first=4)]
    manifest = stored(tmp_path / "g", parts)
    for found, wanted in zip(GalleryFiles(tmp_path / "g").open_all(manifest), parts, strict=True):
        assert_same(found, wanted)
    assert (manifest.detections, manifest.images) == (6, 5)
    assert GalleryFiles(tmp_path / "g").manifest() == manifest
    assert {path.name for path in (tmp_path / "g").iterdir()} == manifest.names() | {NAME, "index.lock"}
    assert stored(tmp_path / "h", parts).files == manifest.files, "the same people give the same bytes"


def test_joining_and_dropping_images() -> None:
    first, second = random_shard([2, 0, 1]), random_shard([1, 3], seed=1, first=3)
    both = join_shards([first, second])
    assert [list(both.rows_of(number)) for number in range(5)] == [[0, 1], [], [2], [3], [4, 5, 6]]
    assert_same(both.changed(lambda record: record if int(record.name[0]) < 3 else None), first)
    rest = both.changed(lambda record: replace(record, mtime_ns=99) if record.name in ("1.jpg", "4.jpg") else None)
    assert [record.name for record in rest.images] == ["1.jpg", "4.jpg"] and rest.images[0].mtime_ns == 99
    assert torch.equal(rest.embeddings, second.embeddings[1:]) and rest.image_indices.tolist() == [1, 1, 1]
    assert len(both.changed(lambda record: None)) == 0


@given(place=st.integers(0, 10**6), kind=st.sampled_from(["flip", "cut", "add", "drop"]), bit=st.integers(0, 7))
def test_a_manifest_changed_anywhere_is_refused(place: int, kind: str, bit: int) -> None:
    raw = MANIFEST.to_text().encode()
    assert parse_manifest(raw, PATH) == MANIFEST
    place %= len(raw)
    changed = {
        "flip": raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :],
        "cut": raw[:place],
        "add": raw[:place] + b" " + raw[place:],
        "drop": raw[:place] + raw[place + 1 :],
    }[kind]
    with pytest.raises((errors.IntegrityError, errors.GalleryError)):
        parse_manifest(changed, PATH)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("detections-0.safetensors"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(json.loads(MANIFEST.to_text()))), inner=st.text(max_size=9), value=ANYTHING)
def test_a_manifest_that_says_anything_ends_in_our_errors(key: str, inner: str, value: object) -> None:
    whole = json.loads(MANIFEST.to_text())
    changed = [{**whole, key: value}, {k: v for k, v in whole.items() if k != key}]
    if isinstance(whole[key], dict):
        field = sorted(whole[key])[len(inner) % len(whole[key])]
        changed.append({**whole, key: {**whole[key], field: value}})
    for each in changed:
        with pytest.raises((errors.IntegrityError, errors.GalleryError)):
            parse_manifest(json.dumps(each).encode(), PATH)


@given(st.binary(max_size=60) | st.just(b"[" * 100_000) | st.just(b"9" * 5000))
def test_bytes_that_are_no_manifest(raw: bytes) -> None:
    with pytest.raises(errors.IntegrityError, match=r"damaged.*--rebuild"):
        parse_manifest(raw, PATH)


def test_a_newer_version_is_named() -> None:
    newer = MANIFEST.to_text().replace('"format": 2', '"format": 3').encode()
    with pytest.raises(errors.GalleryError, match="newer version"):
        parse_manifest(newer, PATH)


@pytest.mark.parametrize("file", ["../people-0000000000000007.safetensors", "/etc/passwd", "people-7.safetensors", ""])
def test_a_manifest_names_only_files_of_a_gallery(file: str) -> None:
    with pytest.raises(errors.ArgumentError, match="not how a file of a gallery is called"):
        FileMark(file=file, sha256="a" * 64, size=1, images=1, detections=1)


@pytest.mark.parametrize(("kind", "fps"), [("video", None), ("folder", 1.0), ("video", 0.0), ("video", float("nan"))])
def test_frames_a_second_belong_to_videos(kind: str, fps: float | None) -> None:
    with pytest.raises(errors.ArgumentError, match="frames a second"):
        SourceMark(kind=kind, root="/x", fps=fps)  # type: ignore[arg-type]


def test_people_changed_anywhere_are_refused(tmp_path: Path) -> None:
    (mark,) = stored(tmp_path / "g", [random_shard([2, 1])]).files
    path = tmp_path / "g" / mark.file
    raw = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(0, len(raw), (60,), generator=generator).tolist():
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        with pytest.raises(errors.IntegrityError, match=r"sha256.*--rebuild"):
            Gallery.open(tmp_path / "g")
        path.write_bytes(raw[:place])
        with pytest.raises(errors.IntegrityError, match="cut off"):
            Gallery.open(tmp_path / "g", verify=False)
    path.write_bytes(raw)
    assert len(Gallery.open(tmp_path / "g")) == 3
    path.unlink()
    with pytest.raises(errors.GalleryError, match=r"is gone.*pretrainps index"):
        Gallery.open(tmp_path / "g")


def test_people_who_contradict_themselves_are_refused(tmp_path: Path) -> None:
    """Whoever can write a manifest can write its checksums; still nothing but our errors comes of it."""
    good = random_shard([2, 1])
    bad = {
        "numbers fall": replace(good, image_indices=good.image_indices.flip(0)),
        "no such image": replace(good, image_indices=good.image_indices + 1),
        "below zero": replace(good, image_indices=good.image_indices - 1),
        "too few boxes": replace(good, boxes=good.boxes[1:]),
        "another kind": replace(good, scores=good.scores.double()),
        "another length": replace(good, embeddings=good.embeddings[:, 1:]),
        "no vector": replace(good, scores=good.scores[:, None]),
        "outside": replace(good, images=(replace(good.images[0], name="../secret.jpg"), good.images[1])),
        "absolute": replace(good, images=(replace(good.images[0], name="/secret.jpg"), good.images[1])),
        "no number": replace(good, images=(replace(good.images[0], size="1"), good.images[1])),  # type: ignore[arg-type]
    }
    store = GalleryFiles(tmp_path)
    for what, people in bad.items():
        with pytest.raises(errors.IntegrityError, match="contradicts"):
            store.open_shard(store.write_shard(people), DIM)
            pytest.fail(what)
    for tensors, metadata in (({}, {"images": []}), ({"numbers": torch.zeros(1)}, None), ({}, {"images": [[1, 2]]})):
        path = tmp_path / f"detections-{0:016x}.safetensors"
        write_safetensors(tensors, path, metadata)
        mark = FileMark(file=path.name, sha256=sha256_of(path), size=path.stat().st_size, images=1, detections=1)
        with pytest.raises(errors.IntegrityError, match="damaged"):
            store.open_shard(mark, DIM)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.GalleryError, match=r"holds other things \(love.txt"),
        GalleryFiles(tmp_path / "letters").lock(wait=False),
    ):
        pass
    with pytest.raises(errors.GalleryError, match="is a file"), GalleryFiles(tmp_path / "file").lock(wait=False):
        pass
    with pytest.raises(errors.GalleryError, match=r"holds no gallery.*pretrainps index"):
        Gallery.open(tmp_path / "letters")
    with pytest.raises(errors.GalleryError, match="does not exist"):
        Gallery.open(tmp_path / "nowhere")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["love.txt"]


def test_sweeping_removes_only_our_leftovers(tmp_path: Path) -> None:
    manifest = stored(tmp_path, [random_shard([1])])
    leftovers = [
        f"detections-{1:016x}.safetensors",
        f"index-{1:016x}.faiss",
        f"people-{1:016x}.safetensors",
        f"neighbours-{1:016x}.faiss",
        ".detections.new.abc.tmp",
        ".people.new.abc.tmp",
        ".manifest.json.x.tmp",
        "detections.new",
    ]
    for name in [*leftovers, "notes.txt", "people.txt", "report.tmp"]:
        (tmp_path / name).write_text("")
    GalleryFiles(tmp_path).sweep(manifest)
    assert {path.name for path in tmp_path.iterdir()} == manifest.names() | {
        NAME,
        "index.lock",
        "notes.txt",
        "people.txt",
        "report.tmp",
    }


def test_one_run_at_a_time(tmp_path: Path) -> None:
    store = GalleryFiles(tmp_path)
    with store.lock(wait=False), pytest.raises(errors.GalleryError, match=r"another run is writing.*--wait"):
        GalleryFiles(tmp_path).lock(wait=False).__enter__()
    with store.lock(wait=True):
        pass


def format_1(manifest: Manifest) -> bytes:
    """Return a manifest as commit 749f621 wrote it."""
    content = downgrade(manifest.content())
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**content, "checksum": checksum}, indent=1, sort_keys=True) + "\n").encode()


OLD_FILES = (replace(MANIFEST.files[0], file=f"people-{7:016x}.safetensors"),)
OLD_INDEX = replace(MANIFEST.index, file=f"neighbours-{7:016x}.faiss")  # type: ignore[type-var]


@pytest.mark.parametrize("index", [None, OLD_INDEX])
def test_a_manifest_of_format_1_is_converted(index: IndexFile | None) -> None:
    manifest = replace(MANIFEST, files=OLD_FILES, index=index)
    old = format_1(manifest)
    assert b'"people": 5' in old and b"detections" not in old and b"nprobe" not in old
    assert parse_manifest(old, PATH) == manifest
    assert parse_manifest(manifest.to_text().encode(), PATH) == manifest, "written again, it is of format 2"


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_manifest_of_format_1_changed_anywhere_is_refused(place: int, bit: int) -> None:
    raw = format_1(replace(MANIFEST, files=OLD_FILES, index=OLD_INDEX))
    place %= len(raw)
    for changed in (
        raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :],
        raw[:place],
        raw[:place] + raw[place + 1 :],
    ):
        with pytest.raises((errors.IntegrityError, errors.GalleryError)):
            parse_manifest(changed, PATH)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file": None}, "none of them"),
        ({"file": "../x.faiss"}, "not how a file"),
        ({"file": "index-7.faiss"}, "not how a file"),
        ({"facts": {"a": [1]}}, "a number, a text"),
        ({"facts": {"a": float("nan")}}, "a number, a text"),
        ({"facts": {"a": None}}, "a number, a text"),
    ],
)
def test_what_an_index_says_of_itself_is_checked(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(errors.ArgumentError, match=reason):
        replace(MANIFEST.index, **changes)  # type: ignore[type-var]
