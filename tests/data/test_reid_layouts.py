"""Readers of re-ID sets: one numbering for query and gallery, errors name file and line, what is written is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps.data.layout import Layout
from pretrainps.data.layouts import cuhk03_np, dukemtmc, identity_folders, market1501, msmt17
from pretrainps.data.records import UNLABELLED, Sample, Split
from pretrainps.data.writers import identity_folders as identity_folders_writer
from pretrainps.data.writers import market1501 as market1501_writer
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures import cuhk03_np as cuhk03_np_miniature
from tests.support.miniatures import market1501 as market1501_miniature
from tests.support.miniatures import msmt17 as msmt17_miniature
from tests.support.miniatures.pictures import write_blank
from tests.support.records import assert_same_split


def crop(name: str, identity: int, camera: int | None, colour: tuple[int, int, int] = (0, 0, 0)) -> Sample:
    pixels = np.full((16, 8, 3), colour, dtype=np.uint8)
    return Sample(name=name, image=pixels, boxes=Sample.whole(), ids=np.array([identity], dtype=np.int64), camera=camera)


def reid(name: str, samples: list[Sample], identities: tuple[str, ...]) -> Split:
    return Split(dataset="reid_market", name=name, task="reid", samples=samples, identities=identities)


def test_query_and_gallery_share_their_numbers_also_read_one_by_one(tmp_path: Path) -> None:
    """A person of the gallery alone (1500) and one of the queries alone (0009) must not shift the others."""
    market1501_miniature.write_miniature(tmp_path)
    query, gallery = (market1501.LAYOUT.read(tmp_path, split) for split in ("query", "gallery"))
    assert query.identities == gallery.identities
    named = {sample.name: query.identities[sample.ids[0]] for sample in query.samples}
    assert all(name.startswith(person) for name, person in named.items())
    named = {sample.name: gallery.identities[sample.ids[0]] for sample in gallery.samples if sample.ids[0] != UNLABELLED}
    assert all(name.startswith(person) for name, person in named.items()) and len(named) == 4


def test_the_folder_of_an_archive_or_the_one_around_it(tmp_path: Path) -> None:
    around = {
        "Market-1501-v15.09.15": (market1501.LAYOUT, market1501_miniature.write_miniature),
        "cuhk03-np": (cuhk03_np.LAYOUT, cuhk03_np_miniature.write_miniature),
        "MSMT17_V1": (msmt17.LAYOUT, msmt17_miniature.write_miniature),
    }
    for name, (layout, miniature) in around.items():
        expected = miniature(tmp_path / name)
        assert layout.recognize(tmp_path)
        assert_same_split(layout.read(tmp_path, "gallery"), expected["gallery"])


def test_an_image_that_is_called_otherwise_is_an_error(tmp_path: Path) -> None:
    market1501_miniature.write_miniature(tmp_path)
    stray = tmp_path / "bounding_box_test" / "cover.jpg"
    write_blank([stray])
    with pytest.raises(DatasetError, match="names of images here must have person and camera") as caught:
        market1501.LAYOUT.read(tmp_path, "query")
    assert str(caught.value).startswith(str(stray))


def test_dukemtmc_is_refused_unless_somebody_insists(tmp_path: Path) -> None:
    for folder, names in (
        ("bounding_box_train", ["0001_c2_f0046182.jpg"]),
        ("query", ["0005_c2_f0046985.jpg", "0033_c1_f0057706.jpg"]),
        ("bounding_box_test", ["0002_c1_f0044158.jpg", "0005_c7_f0085576.jpg"]),
    ):
        write_blank(tmp_path / folder / name for name in names)
    with pytest.raises(DatasetError, match=r"withdrew it on 25 April 2019.*force=True") as caught:
        dukemtmc.LAYOUT.read(tmp_path, "gallery")
    assert str(caught.value).startswith("DukeMTMC-reID is not read")
    gallery = dukemtmc.LAYOUT.read(tmp_path, "gallery", force=True)
    assert gallery.identities == ("0002", "0005", "0033")
    assert [(sample.name, sample.ids.tolist(), sample.camera) for sample in gallery.samples] == [
        ("0002_c1_f0044158.jpg", [0], 1),
        ("0005_c7_f0085576.jpg", [1], 7),
    ]
    assert_same_split(dukemtmc.LAYOUT.read_split(tmp_path, "gallery"), gallery)


@pytest.mark.parametrize("layout", [market1501.LAYOUT, msmt17.LAYOUT, cuhk03_np.LAYOUT, identity_folders.LAYOUT])
def test_nothing_else_is_refused(layout: Layout) -> None:
    assert layout.withdrawn is None


@pytest.mark.parametrize(
    "line",
    ["0000/0000_000_01_0303morning_0008_0.jpg", "0000/0000_000.jpg 0", "0000/0000_000_x1_0303morning.jpg 0", "a_b_1_c.jpg -1"],
)
def test_a_wrong_line_of_msmt17_is_named(line: str, tmp_path: Path) -> None:
    msmt17_miniature.write_miniature(tmp_path)
    path = tmp_path / "list_query.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(DatasetError, match="expected an image, with its camera") as caught:
        msmt17.LAYOUT.read(tmp_path, "gallery")
    assert str(caught.value).startswith(f"{path}, line 3: ")


def test_training_people_of_msmt17_are_not_those_of_the_same_number_in_the_test(tmp_path: Path) -> None:
    msmt17_miniature.write_miniature(tmp_path, "V2")
    train, query = (msmt17.LAYOUT.read(tmp_path, split) for split in ("trainval", "query"))
    assert not set(train.identities) & set(query.identities)


def test_folders_of_people_without_parts_are_for_training(tmp_path: Path) -> None:
    names = ["anna/1_c3.jpg", "bob/deeper_1.png", "bob/2_c1.jpg"]
    write_blank(tmp_path / name for name in names)
    assert identity_folders.LAYOUT.recognize(tmp_path)
    split = identity_folders.LAYOUT.read(tmp_path, "train")
    assert split.identities == ("anna", "bob")
    assert [(sample.name, sample.ids.tolist(), sample.camera) for sample in split.samples] == [
        ("anna/1_c3.jpg", [0], 3),
        ("bob/2_c1.jpg", [1], 1),
        ("bob/deeper_1.png", [1], None),
    ]
    for part in ("query", "gallery"):
        with pytest.raises(DatasetError, match=f"a test needs {tmp_path / 'query'} and {tmp_path / 'gallery'}"):
            identity_folders.LAYOUT.read(tmp_path, part)


colours = st.tuples(*[st.sampled_from([0, 60, 120, 180, 240])] * 3)


@st.composite
def crops(draw: st.DrawFn, *, unlabelled: bool, cameras: st.SearchStrategy[int | None]) -> list[Sample]:
    """Each of the three people at least once."""
    who = [0, 1, 2, *draw(st.lists(st.integers(-1 if unlabelled else 0, 2), max_size=4))]
    return [crop(f"{index}", person, draw(cameras), draw(colours)) for index, person in enumerate(draw(st.permutations(who)))]


def shown(split: Split) -> Counter[tuple[str | None, int | None, tuple[int, ...]]]:
    """The person, the camera, and the colour of each image, which JPEG changes a little."""

    def row(sample: Sample) -> tuple[str | None, int | None, tuple[int, ...]]:
        colour = np.asarray(sample.pixels()).reshape(-1, 3).mean(axis=0)
        person = None if sample.ids[0] == UNLABELLED else split.identities[sample.ids[0]]
        return person, sample.camera, tuple(int(channel / 60 + 0.5) for channel in colour)

    return Counter(row(sample) for sample in split.samples)


@settings(max_examples=12)
@given(
    samples=crops(unlabelled=True, cameras=st.integers(1, 12)), people=st.sampled_from([("0003", "0021", "0100"), tuple("abc")])
)
def test_market_reads_what_it_writes(samples: list[Sample], people: tuple[str, ...]) -> None:
    split = reid("gallery", samples, people)
    query = reid("query", [sample for sample in samples if sample.ids[0] >= 0], people)
    with TemporaryDirectory() as folder:
        market1501_writer.write(Path(folder), [query, split])
        read = market1501.LAYOUT.read(folder, "gallery")
        if people == tuple("abc"):
            people = ("0001", "0002", "0003")
        assert read.identities == people
        assert shown(read) == shown(replace(split, identities=people))


def test_market_keeps_names_that_are_its_own(tmp_path: Path) -> None:
    samples = [
        crop("0002_c12s1_000000_00.jpg", 0, 12),
        crop("0002_c1s1_000001_00.jpg", 0, 1),
        crop("0007_c3s1_000004_01.jpg", 1, 3),
    ]
    split = reid("train", samples, ("0002", "0007"))
    market1501_writer.write(tmp_path, [split])
    assert_same_split(market1501.LAYOUT.read(tmp_path, "train"), split, but=("dataset",))


@settings(max_examples=12)
@given(samples=crops(unlabelled=False, cameras=st.none() | st.integers(0, 12)), part=st.sampled_from(identity_folders.PARTS))
def test_folders_of_people_are_read_as_written(samples: list[Sample], part: str) -> None:
    split = reid(part, samples, ("anna", "bob", "zoe"))
    with TemporaryDirectory() as folder:
        identity_folders_writer.write(Path(folder), [replace(split, name=name) for name in identity_folders.PARTS])
        read = identity_folders.LAYOUT.read(folder, part)
        assert read.identities == split.identities
        assert shown(read) == shown(split)


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        (reid("train", [crop("a", 0, None)], ("x",)), "a: Market-1501 needs exactly one person in each image, and its camera."),
        (reid("test", [crop("a", -1, 1)], ()), "folders of people have the splits train, query, gallery, not 'test'"),
        (reid("train", [crop("a", -1, 1)], ()), "a: each image must show exactly one person with an identity."),
    ],
)
def test_what_a_layout_cannot_hold_is_not_written(split: Split, complaint: str, tmp_path: Path) -> None:
    write = market1501_writer.write if "Market" in complaint else identity_folders_writer.write
    with pytest.raises(ArgumentError) as caught:
        write(tmp_path, [split])
    assert str(caught.value).startswith(complaint)
