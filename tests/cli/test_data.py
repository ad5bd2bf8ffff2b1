"""`data synthesize`, `data check` and `evaluate` in a row, as for a user without a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.data.layouts import LAYOUTS, layout_named, leaks, recognize_layout
from pretrainps.errors import ArgumentError, DatasetError
from pretrainps.images.read import image_size
from pretrainps.synthetic.writing import WRITABLE
from tests.support.detectors import SMALL, lively_detector
from tests.support.miniatures import market1501, prw

SIZE = ("--people", "3", "--test-people", "4", "--appearances", "3", "--quiet")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random detector that finds some people."""
    model = pretrainps.build_detector("nae", backbone=build_backbone("shufflenetv1"), config=SMALL)
    model.load_state_dict(lively_detector("nae", "shufflenetv1").state_dict())
    return pretrainps.save_pretrained(model, tmp_path_factory.mktemp("model"))


@pytest.mark.xdist_group("data end to end")
@pytest.mark.parametrize("name", [each.layout.name for each in WRITABLE])
def test_from_nothing_to_numbers(name: str, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, sheet = tmp_path / "world", tmp_path / "sheet.png"
    status, out, _ = run(capsys, "data", "synthesize", "--layout", name, "--out", root, *SIZE)
    assert status == 0 and "pretrainps data check" in out
    layout = recognize_layout(root)
    assert layout.name == name
    status, out, err = run(capsys, "data", "check", root, "--decode", "--sheet", sheet, "--quiet")
    assert status == 0 and layout.title in out and "broken" not in out and str(sheet) in err
    assert image_size(sheet)[1] > 300
    status, out, _ = run(capsys, "data", "check", root, "--json", "--quiet")
    checked = json.loads(out)
    assert [each["split"] for each in checked["splits"]] == list(layout.main_splits) or name == "movienet_ps"
    assert all(each["problems"] == [] and each["found"]["images"] > 0 for each in checked["splits"])

    arguments = ["evaluate", f"file:{detector}", "--data", root, "--quiet", "--json"]
    if layout.task == "search":
        lists = checked["search"]["lists"]
        arguments += ["--sheet", sheet, *(["--gallery", str(lists[0])] if lists else [])]
        assert checked["search"]["queries"] == 4
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    results: dict[str, Any] = json.loads(out)
    assert results["layout"] == name
    if layout.task == "search":
        assert 0 <= results["search"]["mAP"] <= 1 and results["search"]["num_queries"] == 4
        people = sum(each["found"]["boxes"] for each in checked["splits"] if each["split"] == "test")
        assert results["detection"]["num_people"] == people
        perfect = json.loads(run(capsys, *arguments, "--annotated-boxes")[1])["search"]
        assert perfect["mAP"] > 0.1 and "annotated" in perfect["protocol"]
    elif layout.task == "reid":
        assert 0 < results["re-ID"]["mAP"] <= 1
    else:
        assert {"coco", "miss rate", "person search's"} <= results.keys()


@pytest.mark.xdist_group("data end to end")
def test_context_and_cameras(detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "prw"
    run(capsys, "data", "synthesize", "--layout", "prw", "--out", root, *SIZE)
    base = ["evaluate", f"file:{detector}", "--data", root, "--quiet"]
    status, out, _ = run(capsys, *base, "--cbgm")
    assert status == 0 and "k1 = 30" in out and "mAP" in out and "4 queries" in out
    status, out, _ = run(capsys, *base, "--protocol", "prw-cross-camera")
    assert status == 0 and "cross-camera only" in out
    status, out, err = run(capsys, *base, "--protocol", "prw-alignps", "--set", "score_threshold=0.5")
    assert status == 0 and "score above 0.5, for the detector kept no others (not the protocol's 0.15 and above)" in out
    remedy = "config={'score_threshold': 0.15}, on the command line --set score_threshold=0.15"
    assert f"keeps only those above 0.5. To have all: {remedy}\n" in err
    status, out, err = run(capsys, *base, "--protocol", "prw-alignps", "--set", "score_threshold=0.15", "--set", "min_size=80")
    assert status == 0 and "detections of score 0.15 and above" in out and "keeps only" not in err
    for options, message in (
        (["--set", "score_treshold=0.15"], "Did you mean 'score_threshold'"),
        (["--set", "num_identities=7"], "belongs to the weights"),
        (["--set", "score_threshold"], "expected name=value"),
        (["--protocol", "pwr"], "no protocol"),
        (["--gallery", "many"], "size or 'full'"),
        (["--gallery", "100"], "without such lists"),
        (["--sheet", "x.gif"], "ending"),
        (["--layout", "market1501"], "only half unpacked"),
    ):
        status, _, err = run(capsys, *base, *options)
        assert status == 1 and err.startswith("error: ") and message in err, err


def test_what_is_broken_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "prw"
    prw.write_miniature(root)
    status, out, _ = run(capsys, "data", "check", root, "--quiet")
    assert status == 1 and "is outside the" in out and "11816" not in out and "5704 were published" in out.replace(",", "")
    assert "images with one person twice" in out
    (root / "frames" / "c1s1_000151.jpg").write_bytes(b"GIF89a")
    status, out, _ = run(capsys, "data", "check", root, "--quiet", "--split", "train")
    assert status == 1 and "c1s1_000151.jpg cannot be read" in out
    (root / "frames" / "c1s1_000151.jpg").unlink()
    status, out, _ = run(capsys, "data", "check", root, "--quiet")
    assert status == 1 and "train: " in out and "half unpacked" in out and "test: 4 images" in out
    status, _, err = run(capsys, "data", "check", tmp_path, "--quiet")
    assert status == 1 and "looks like no data set" in err
    status, _, err = run(capsys, "data", "check", tmp_path, "--layout", "cuhk_sysu", "--quiet")
    assert status == 1 and "Images.mat" in err


def test_what_a_search_lacks_is_said_before_anything_is_computed(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And options that would be ignored are refused."""
    root, crops = tmp_path / "album", tmp_path / "market"
    run(capsys, "data", "synthesize", "--layout", "cuhk_sysu", "--out", root, *SIZE)
    market1501.write_miniature(crops)
    base = ["evaluate", f"file:{detector}", "--quiet", "--data"]
    status, out, err = run(capsys, *base, root)
    assert status == 0 and "no lists of the usual size" in err and "mAP" in out

    def computed(*_: object) -> None:
        raise AssertionError("hours would be spent")

    monkeypatch.setattr("pretrainps.inference.extraction.Extractor.detections", computed)
    monkeypatch.setattr("pretrainps.inference.extraction.Extractor.crops", computed)
    for arguments, message in (
        ([root, "--gallery", "4000"], "no gallery lists of size 4000"),
        ([root, "--protocol", "prw-cross-camera"], "every image's camera"),
        ([root, "--sheet", tmp_path / "nowhere" / "x.png"], "is no folder"),
        ([crops, "--split", "query"], "--split is for detection"),
        ([crops, "--annotated-boxes"], "--annotated-boxes is for search"),
    ):
        status, _, err = run(capsys, *base, *arguments)
        assert status == 1 and message in err, err


def test_search_files_that_are_missing_do_not_hide_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prw.write_miniature(tmp_path)
    (tmp_path / "query_info.txt").unlink()
    status, out, _ = run(capsys, "data", "check", tmp_path, "--quiet")
    assert status == 1 and "train: 4 images" in out and "search: " in out and "query_info.txt" in out
    status, out, _ = run(capsys, "data", "check", tmp_path, "--quiet", "--json")
    assert status == 1 and "query_info.txt" in json.loads(out)["unreadable"]["search"]


def test_an_image_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prw.write_miniature(tmp_path)
    prw.write_frames(tmp_path, "test", ["c3s1_000501", "c5s2_042630", "c4s1_000601", "c3s1_000501"])
    for read in (lambda: layout_named("prw").read(tmp_path, "test"), lambda: layout_named("prw").read_search(tmp_path)):
        with pytest.raises(DatasetError, match=r"more than once, such as 'c3s1_000501\.jpg' \(2 times\)"):
            read()


def test_into_the_folder_one_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "data", "synthesize", "--layout", "identity_folders", "--out", ".", *SIZE)[0] == 0
    assert sorted(path.name for path in Path().iterdir()) == ["gallery", "query", "train"]


def test_withdrawn_data_needs_to_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    market1501.write_miniature(tmp_path / "market")
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        folder = tmp_path / "duke" / part
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 16)).save(folder / "0001_c2_f0046182.jpg")
    status, _, err = run(capsys, "data", "check", tmp_path / "duke", "--quiet")
    assert status == 1 and "--force" in err and "Duke" in err
    assert run(capsys, "data", "check", tmp_path / "duke", "--quiet", "--force")[0] == 0


def test_layouts_by_name_and_their_leaks() -> None:
    assert {layout.name for layout in LAYOUTS} >= {"cuhk_sysu", "prw", "posetrack21", "movienet_ps", "crowdhuman", "msmt17"}
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS) == 15
    with pytest.raises(ArgumentError, match="Did you mean market1501"):
        layout_named("market")
    with pytest.raises(DatasetError, match="is no folder"):
        recognize_layout("no/such/place")
    mix = tuple(map(layout_named, ("prw", "crowdhuman", "market1501")))
    (warning,) = leaks(mix)
    assert "PRW" in warning and "Market-1501" in warning
    assert leaks(mix[:2]) == ()
    names = {layout.name for layout in LAYOUTS}
    assert all(name in names for layout in LAYOUTS for name in layout.shares_people_with)


@pytest.mark.xdist_group("data end to end")
@pytest.mark.parametrize("name", ["prw", "cuhk_sysu", "coco_search", "coco_persons", "market1501"])
def test_fresh_people_before_known_cameras(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The training set stays the same, equal numbers give equal tests, and other numbers share only the cameras."""
    roots = {}
    for label, first in (("test", 0), ("validation", 4), ("again", 4)):
        roots[label] = tmp_path / label
        status, out, _ = run(
            capsys, "data", "synthesize", "--layout", name, "--out", roots[label], *SIZE, "--first-test-person", str(first)
        )
        assert status == 0 and "pretrainps data check" in out
    layout = layout_named(name)
    tested = layout.main_splits[-1]
    found = {label: layout.read(root, tested) for label, root in roots.items()}
    pictures = {label: [sample.pixels().tobytes() for sample in split.samples] for label, split in found.items()}
    assert pictures["validation"] == pictures["again"] and found["validation"].identities == found["again"].identities
    assert not set(pictures["test"]) & set(pictures["validation"])
    assert not set(found["test"].identities) & set(found["validation"].identities)
    if layout.task == "search":
        searches = {label: layout.read_search(root) for label, root in roots.items()}
        assert len(searches["validation"].queries) == 4
        boxes = {
            label: {(sample.name, *box) for sample in search.gallery.samples for box in sample.boxes.tolist()}
            for label, search in searches.items()
        }
        assert boxes["validation"] == boxes["again"] and not boxes["validation"] & boxes["test"]
    trained = [layout.read(roots[label], "train") for label in ("test", "validation")]
    assert trained[0].identities == trained[1].identities and len(trained[0]) == len(trained[1]) > 0
    for one, other in zip(trained[0].samples, trained[1].samples, strict=True):
        assert one.pixels().tobytes() == other.pixels().tobytes() and np.array_equal(one.boxes, other.boxes)


def test_nothing_is_overwritten_and_nothing_half_made_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.txt").write_text("mine")
    status, _, err = run(capsys, "data", "synthesize", "--layout", "prw", "--out", used, *SIZE)
    assert status == 1 and "not empty" in err and [path.name for path in used.iterdir()] == ["thesis.txt"]
    for options, message in (
        (("--layout", "imagenet"), "cannot write"),
        (("--layout", "prw", "--domain", "reid_city"), "does not suit"),
        (("--layout", "prw", "--domain", "search_moon"), "search_moon"),
        (("--layout", "prw", "--people", "0"), "people=0"),
        (("--layout", "prw", "--first-test-person", "-1"), "first_test_person=-1"),
        (("--layout", "market1501", "--first-test-person", "-80"), "first_test_person=-80"),
        (("--layout", "cuhk_sysu", "--first-test-person", "999990"), "must be below 1000000"),
    ):
        status, _, err = run(capsys, "data", "synthesize", "--out", tmp_path / "new", "--quiet", *options)
        assert status == 1 and message in err, err

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrainps.data.writers.prw.write_queries", stopped)
    status, _, err = run(capsys, "data", "synthesize", "--layout", "prw", "--out", tmp_path / "new", *SIZE)
    assert status == 130 and sorted(path.name for path in tmp_path.iterdir()) == ["used"]
