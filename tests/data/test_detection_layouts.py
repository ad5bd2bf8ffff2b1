"""Readers of detection sets: errors name file, line and field; what is written is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pretrainps.data import matlab
from pretrainps.data.layouts import citypersons, coco_persons, crowdhuman, eurocity_persons, widerperson
from pretrainps.data.records import UNLABELLED, Sample, Split, as_boxes
from pretrainps.data.writers import coco_persons as coco_persons_writer
from pretrainps.data.writers import crowdhuman as crowdhuman_writer
from pretrainps.errors import ArgumentError, DatasetError
from tests.support.miniatures import citypersons as citypersons_miniature
from tests.support.miniatures import coco_persons as coco_persons_miniature
from tests.support.miniatures import crowdhuman as crowdhuman_miniature
from tests.support.miniatures import eurocity_persons as eurocity_persons_miniature
from tests.support.miniatures import widerperson as widerperson_miniature
from tests.support.records import assert_same_split

PERSON: Mapping[str, Any] = {"tag": "person", "fbox": [1, 1, 9, 30], "vbox": [1, 1, 9, 20]}


def person(**changes: object) -> dict[str, Any]:
    return {"ID": "a", "gtboxes": [PERSON, PERSON | changes]}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"ID": "a", "gtboxes": [', ", line 3, column 25: no JSON"),
        ("[1, 2]", r", line 3: expected an object \{...\}, not \[1, 2\]."),
        (json.dumps({"gtboxes": []}), ", line 3: the field 'ID' is missing. It must be a text."),
        (json.dumps({"ID": 7, "gtboxes": []}), ", line 3: 'ID' must be a text, not 7."),
        (json.dumps({"ID": "a"}), ", line 3: the field 'gtboxes' is missing. It must be a list."),
        (json.dumps({"ID": "nobody", "gtboxes": []}), ", line 3: the ID 'nobody' has come before."),
        (json.dumps({"ID": "a", "gtboxes": [PERSON, 5]}), ", line 3, box 2: expected an object"),
        (json.dumps(person(tag=None)), ", line 3, box 2: 'tag' must be a text, not None."),
        (json.dumps(person(fbox=[1, 2, 3])), r", line 3, box 2: 'fbox' must be four finite numbers.*, not \[1, 2, 3\]."),
        (json.dumps(person(fbox=[1, 2, 3, True])), ", line 3, box 2: 'fbox' must be"),
        (json.dumps(person(fbox=[1, 2, 3, float("nan")])), ", line 3, box 2: 'fbox' must be"),
        (json.dumps(person(vbox=[1, 2, 3, float("inf")])), ", line 3, box 2: 'vbox' must be"),
        (json.dumps(person(vbox=[1, 2, 3, 10**400])), ", line 3, box 2: 'vbox' must be"),
        (json.dumps(person(extra=[])), ", line 3, box 2: 'extra' must be an object"),
        (json.dumps(person(extra={"ignore": "1"})), ", line 3, box 2: 'ignore' must be a whole number, not '1'."),
        ("[" * 100_000, ", line 3: not the JSON of an annotation"),
        ('{"ID": ' + "9" * 5000 + "}", ", line 3: not the JSON of an annotation"),
        (b"\xff\xfe\x00".decode("latin-1"), " is no text in UTF-8"),
    ],
)
def test_a_wrong_line_of_crowdhuman_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    crowdhuman_miniature.write_miniature(tmp_path)
    path = tmp_path / "annotation_val.odgt"
    path.write_bytes(path.read_bytes() + b"\n\n" + line.encode("latin-1"))
    with pytest.raises(DatasetError, match=complaint) as caught:
        crowdhuman.LAYOUT.read(tmp_path, "val")
    assert str(caught.value).startswith(str(path))


def test_somebody_wholly_hidden_has_a_visible_box_without_area(tmp_path: Path) -> None:
    crowdhuman_miniature.write_miniature(tmp_path)
    (tmp_path / "annotation_val.odgt").write_text(json.dumps({"ID": "nobody", "gtboxes": [PERSON | {"vbox": [5, 6, -2, 0]}]}))
    (sample,) = crowdhuman.LAYOUT.read(tmp_path, "val").samples
    assert sample.visible is not None and sample.visible.tolist() == [[5, 6, 5, 6]]


def test_citypersons_names_the_cell_that_is_wrong(tmp_path: Path) -> None:
    citypersons_miniature.write_miniature(tmp_path)
    path = tmp_path / "annotations" / "anno_val.mat"
    fields = ("cityname", "im_name", "bbs")
    good = matlab.struct_array(fields, [("munster", "munster_000000_000007_leftImg8bit.png", np.zeros((0, 0), np.uint8))])
    for rows, complaint in (
        (np.array([[6, *range(9)]], np.uint8), "has a box of class 6. Classes are 0 to 5"),
        (np.zeros((2, 9), np.uint16), "rows of 10 numbers are wanted"),
    ):
        bad = matlab.struct_array(fields, [("munster", "x.png", rows)])
        matlab.save_matlab(path, "anno_val_aligned", matlab.cell_array([good, bad]))
        with pytest.raises(DatasetError, match=complaint) as caught:
            citypersons.LAYOUT.read(tmp_path, "val")
        assert str(caught.value).startswith(f"{path}, cell 2: ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"identity": "seqlist", "children": []}, "no object here has the identity 'frame'"),
        ({"identity": "a", "children": [{"identity": "b", "children": [{"children": [{"identity": "frame"}]}]}]}, "no object"),
        ({"identity": "frame", "imageheight": 40}, "the field 'imagewidth' is missing. It must be a whole number."),
        ({"identity": "frame", "children": [{"identity": "rider", "x0": 1}]}, "child 1: the field 'y0' is missing"),
        (
            {"identity": "frame", "children": [{"identity": "bicycle", "children": [{"identity": "rider", "x0": None}]}]},
            "child 1, child 1: 'x0' must be a finite number, not None.",
        ),
    ],
)
def test_a_wrong_file_of_eurocity_is_named(content: object, complaint: str, tmp_path: Path) -> None:
    eurocity_persons_miniature.write_miniature(tmp_path)
    path = tmp_path / "ECP" / "day" / "labels" / "val" / "roma" / "roma_00018.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=complaint) as caught:
        eurocity_persons.LAYOUT.read(tmp_path, "val")
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("moved", "missing"), [("img", "labels"), ("labels", "img")])
def test_images_and_labels_of_eurocity_belong_together(moved: str, missing: str, tmp_path: Path) -> None:
    """Otherwise no check would notice that an image without labels is missing."""
    eurocity_persons_miniature.write_miniature(tmp_path)
    (file,) = (tmp_path / "ECP" / "night" / moved / "train" / "amsterdam").iterdir()
    file.rename(file.with_stem("amsterdam_00019"))
    with pytest.raises(DatasetError, match=r"amsterdam_0001\d.\w+ is missing: 1 of the 1 files that") as caught:
        eurocity_persons.LAYOUT.read(tmp_path, "night-train")
    assert f"amsterdam_0001{'8' if missing == moved else ''}" in str(caught.value)
    assert eurocity_persons.LAYOUT.read(tmp_path, "day-train").samples


def test_the_folder_of_eurocity_may_be_given_itself(tmp_path: Path) -> None:
    expected = eurocity_persons_miniature.write_miniature(tmp_path)
    assert eurocity_persons.LAYOUT.recognize(tmp_path / "ECP")
    assert_same_split(eurocity_persons.LAYOUT.read(tmp_path / "ECP", "train"), expected["train"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3\n1 1 2 11 32\n2 1 2 11 32\n", ", line 1: says 3 boxes, but 2 follow"),
        ("0\n1 1 2 11 32\n", ", line 1: says 0 boxes, but 1 follow"),
        ("", ", line 1: the number of boxes is missing"),
        ("1 1 2 11 32\n", ", line 1: expected the number of boxes in whole numbers, not '1 1 2 11 32'"),
        ("1\n\n1 1 2 11\n", ", line 3: expected class x1 y1 x2 y2 in whole numbers, not '1 1 2 11'"),
        ("1\n1 1 2.5 11 32\n", ", line 2: expected class x1 y1 x2 y2 in whole numbers"),
        ("2\n3 1 2 11 32\n6 1 2 11 32\n", ", line 3: there is no class 6. Classes are 1 to 5."),
    ],
)
def test_a_wrong_line_of_widerperson_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    widerperson_miniature.write_miniature(tmp_path)
    path = tmp_path / "Annotations" / "000042.jpg.txt"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        widerperson.LAYOUT.read(tmp_path, "val")
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_an_image_of_widerperson_is_listed_once(tmp_path: Path) -> None:
    widerperson_miniature.write_miniature(tmp_path)
    (tmp_path / "val.txt").write_text("000042\n000041\n000042\n")
    with pytest.raises(DatasetError, match=r"val.txt: 000042 is listed more than once"):
        widerperson.LAYOUT.read(tmp_path, "val")


def test_coco_is_read_as_its_own_tools_read_it(tmp_path: Path) -> None:
    """The miniature's people, crowds and images, as the reimplementation of COCO's API gives them."""
    coco_persons_miniature.write_miniature(tmp_path)
    tools = COCO(str(tmp_path / "annotations" / "instances_train2017.json"))
    split = coco_persons.LAYOUT.read(tmp_path, "train")
    images = {image["file_name"]: image["id"] for image in tools.loadImgs(tools.getImgIds(catIds=[1]))}
    assert {sample.name for sample in split.samples} == set(images)
    for sample in split.samples:
        for crowd, boxes in ((False, sample.boxes), (True, sample.ignore)):
            annotations = tools.loadAnns(tools.getAnnIds(imgIds=[images[sample.name]], catIds=[1], iscrowd=crowd))
            theirs = [[x, y, x + w, y + h] for x, y, w, h in (annotation["bbox"] for annotation in annotations) if w * h > 0]
            assert boxes.tolist() == theirs


coordinates = st.integers(-80, 400).map(lambda quarters: quarters / 4)
lengths = st.integers(1, 400).map(lambda quarters: quarters / 4)
rows = st.lists(st.tuples(coordinates, coordinates, lengths, lengths).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])))


@st.composite
def detection_splits(draw: st.DrawFn) -> Split:
    """Smooth images, which JPEG preserves."""
    samples = []
    for index in range(draw(st.integers(1, 3))):
        boxes = as_boxes(draw(rows))
        visible = boxes.copy()
        visible[:, 3] -= np.float32(0.25) * draw(st.integers(0, 1))
        pixels = np.full((16, 24, 3), draw(st.tuples(*[st.integers(0, 255)] * 3)), dtype=np.uint8)
        samples.append(
            Sample(
                name=f"{draw(st.sampled_from(['scene', 'a/b', 'c1s1_']))}{index}{draw(st.sampled_from(['', '.jpg', '.png']))}",
                image=pixels,
                boxes=boxes,
                ids=np.full(len(boxes), UNLABELLED, dtype=np.int64),
                ignore=as_boxes(draw(rows)),
                visible=visible,
                camera=draw(st.none() | st.integers(0, 20)),
                size=(16, 24),
            )
        )
    return Split(dataset="det_street", name=draw(st.sampled_from(["train", "val"])), task="detection", samples=samples)


@settings(max_examples=12)
@given(split=detection_splits())
def test_crowdhuman_reads_what_it_writes(split: Split) -> None:
    with TemporaryDirectory() as folder:
        crowdhuman_writer.write(Path(folder), split)
        read = crowdhuman.LAYOUT.read(folder, split.name)
        assert_same_split(read, split, but=("dataset", "camera", "size"))


@settings(max_examples=12)
@given(split=detection_splits(), with_visible=st.booleans())
def test_coco_reads_what_it_writes(split: Split, with_visible: bool) -> None:
    if not (with_visible and any(len(sample.boxes) for sample in split.samples)):  # a file without people cannot say so
        split = replace(split, samples=[replace(sample, visible=None) for sample in split.samples])
    with TemporaryDirectory() as folder:
        coco_persons_writer.write(Path(folder), split)
        kept = [sample for sample in split.samples if len(sample.boxes) + len(sample.ignore)]
        if kept:
            read = coco_persons.LAYOUT.read(folder, split.name)
            assert_same_split(read, replace(split, samples=kept), but=("dataset", "notes"))
        else:
            with pytest.raises(DatasetError, match="holds no image"):
                coco_persons.LAYOUT.read(folder, split.name)


def test_a_file_of_the_same_format_is_copied_byte_by_byte(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    for suffix in (".jpg", ".jpeg", ".png"):
        path = tmp_path / f"noise{suffix}"
        Image.fromarray(noise).save(path, **({} if suffix == ".png" else {"quality": 50}))
        sample = Sample(name=suffix, image=path, boxes=as_boxes(()), ids=np.zeros(0, dtype=np.int64))
        crowdhuman_writer.write(tmp_path, Split(dataset="x", name="val", task="detection", samples=[sample]))
        copied = (tmp_path / "Images" / f"{suffix}.jpg").read_bytes() == path.read_bytes()
        assert copied == (suffix != ".png")


def test_coco_refuses_to_write_what_it_could_not_read(tmp_path: Path) -> None:
    def sample(name: str, **fields: Any) -> Sample:
        pixels = np.zeros((16, 24, 3), dtype=np.uint8)
        return Sample(name=name, image=pixels, boxes=as_boxes(()), ids=np.zeros(0, dtype=np.int64), **fields)

    for samples, complaint in (
        ([sample("a"), sample("a.jpg")], "have the same name, apart from .jpg"),
        ([sample("a"), sample("b", visible=as_boxes(()))], "some records have visible boxes and some have none"),
    ):
        with pytest.raises(ArgumentError, match=complaint):
            coco_persons_writer.write(tmp_path, Split(dataset="x", name="val", task="detection", samples=samples))
