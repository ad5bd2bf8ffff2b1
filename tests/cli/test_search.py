"""`pretrainps search`: its answers, its questions about the query, and its files."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import pretrainps
from pretrainps import errors
from pretrainps.backbones import build_backbone
from pretrainps.cli import main, search
from pretrainps.gallery import Gallery
from pretrainps.gallery.query_selection import detect
from pretrainps.images.read import read_image
from tests.support.search_model import noisy_photos, search_model

Run = Callable[..., int]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, the `gallery` of them, and the `model`."""
    folder = tmp_path_factory.mktemp("search")
    noisy_photos(folder / "photos", 4)
    pretrainps.save_pretrained(search_model(), folder / "model")
    model = pretrainps.load(f"file:{folder / 'model'}")
    Gallery.index(folder / "photos", model, store=folder / "gallery", progress=False)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    search.add_commands(parser.add_subparsers())

    def run(*options: str, photo: Path | str = "photos/photo 1.png", gallery: str = "gallery") -> int:
        args = parser.parse_args(["search", str(place / gallery), "--query", str(place / photo), "--quiet", *options])
        return args.run(args)  # type: ignore[no-any-return]

    return run


def answers(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_box_is_searched_for_and_found_where_it_was(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = Gallery.open(place / "gallery")
    asked = gallery.detections_of("photo 1.png")[0]
    x1, y1, x2, y2 = asked.box
    assert run("--box", f"{x1},{y1},{x2 - x1},{y2 - y1}", "--json", "--top", "3") == 0
    result = answers(capsys)
    assert result["query"]["image"] == "photo 1.png" and len(result["hits"]) == 3
    assert result["query"]["box"] == pytest.approx(asked.box, abs=1e-3)
    model = pretrainps.load(f"file:{place / 'model'}")
    reference = gallery.search(model, place / "photos/photo 1.png", asked.box, top=3)  # type: ignore[arg-type]
    assert [hit["image"] for hit in result["hits"]] == [hit.detection.image for hit in reference.hits]
    assert [hit["similarity"] for hit in result["hits"]] == pytest.approx([hit.similarity for hit in reference.hits], abs=1e-5)
    assert run("--box", f"{x1},{y1},{x2 - x1},{y2 - y1}", "--top", "40") == 0
    table = capsys.readouterr().out
    assert "the query itself" in table and table.splitlines()[0].split() == ["rank", "similarity", "person", "x,y,w,h"]
    assert run("--box", f"{x1},{y1},{x2 - x1},{y2 - y1}", "--leave-own-image-out", "--json", "--top", "40") == 0
    assert {hit["image"] for hit in answers(capsys)["hits"]} == {f"photo {number}.png" for number in (0, 2, 3)}


def test_several_people_are_numbered_and_asked_about(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = pretrainps.load(f"file:{place / 'model'}")
    people = detect(model, read_image(place / "photos/photo 1.png"))  # type: ignore[arg-type]
    assert len(people) > 1
    Image.new("RGB", (2, 2)).save("people.png")
    mine = Path("people.png").read_bytes()
    with pytest.raises(errors.ArgumentError, match=f"{len(people)} people .*Choose one by number"):
        run()
    out, err = capsys.readouterr()
    assert "people-2.png" in err and len(out.splitlines()) == 1 + len(people)
    assert Path("people.png").read_bytes() == mine, "a file that was there already is left alone"
    assert read_image(Path("people-2.png")).width == 960
    with pytest.raises(errors.ArgumentError, match="Choose one"):
        run("--json", "--numbered", "who.png")
    listed = answers(capsys)["people"]
    assert [each["number"] for each in listed] == list(range(1, len(people) + 1)) and Path("who.png").exists()
    assert np.allclose([each["box"] for each in listed], [person.box for person in people], atol=1e-3)
    assert run("--person", "2", "--json") == 0
    assert answers(capsys)["query"]["box"] == pytest.approx(people[1].box, abs=1e-3)
    with pytest.raises(errors.ArgumentError, match="no person 99"):
        run("--person", "99")


def test_pictures_and_pages_are_written(run: Run, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--person", "1", "--picture", "found.png", "--report", "found.html", "--rerank", "--top", "4") == 0
    err = capsys.readouterr().err
    assert "wrote found.png" in err and "wrote found.html" in err and "context matching" in err
    assert read_image(Path("found.png")).width > 1000
    page = Path("found.html").read_text("utf-8")
    assert page.count('<button type="button" class="sight"') == 5
    assert "file:model" in page and str(place) not in page, "the page does not tell where anything lies"


def test_photos_from_elsewhere_are_not_taken_for_others_of_their_name(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy_photos(tmp_path, 2)[1].rename(tmp_path / "photo 0.png")
    options = ("--box", "10,10,40,80", "--leave-own-image-out", "--json", "--top", "99")
    assert run(*options, photo=tmp_path / "photo 0.png") == 0
    result = answers(capsys)
    assert result["query"]["image"] == "photo 0.png (query)"
    assert "photo 0.png" in {hit["image"] for hit in result["hits"]}
    (tmp_path / "photo 0.png").rename(tmp_path / "other.png")
    assert run(*options, "--report", "r.html", photo=tmp_path / "other.png") == 0
    assert answers(capsys)["query"]["image"] == "other.png" and "other.png" in Path("r.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--top", "0"), "1 answer or more"),
        (("--picture", "out.gif"), "use .png or .jpg"),
        (("--picture", "nowhere/out.png"), "cannot be written"),
        (("--report", "out.txt"), "call it .html"),
        (("--box", "500,500,10,10"), "outside the image"),
    ],
)
def test_what_cannot_be_is_said(run: Run, options: tuple[str, ...], reason: str) -> None:
    with pytest.raises(errors.ArgumentError, match=reason):
        run(*options)
    assert not list(Path.cwd().glob("out*"))


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "1,2,0,4", "1,2,3,-4", "nan,0,1,1", "inf,0,1,1"])
def test_boxes_that_are_none_are_wrong_usage(run: Run, box: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(f"--box={box}")
    assert stopped.value.code == 2 and "--box" in capsys.readouterr().err


def test_missing_photos_and_galleries(run: Run) -> None:
    with pytest.raises(errors.ImageError, match="does not exist"):
        run(photo="photos/none.png")
    with pytest.raises(errors.GalleryError):
        run("--person", "1", gallery="photos")


def test_a_gallery_is_searched_with_its_own_model(run: Run, tmp_path: Path) -> None:
    other = search_model()
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    pretrainps.save_pretrained(other, tmp_path / "other")
    with pytest.raises(errors.GalleryError, match="this model cannot search this gallery"):
        run("--box", "10,10,40,80", "--model", f"file:{tmp_path / 'other'}")
    backbone = build_backbone("shufflenetv1")
    save_file(dict(backbone.state_dict()), tmp_path / "backbone.safetensors")
    with pytest.raises(errors.ArgumentError, match="is no detector of people"):
        run("--box", "10,10,40,80", "--model", f"file:{tmp_path / 'backbone.safetensors'}")


def test_a_gallery_of_other_settings_is_searched_with_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command that indexing names is the one that works."""
    monkeypatch.chdir(place)
    gallery, model = tmp_path / "sure", "file:model"
    settings = ["--set", "score_threshold=0.2", "--set", "max_detections=2"]
    assert main(["index", "photos", "--model", model, "-o", str(gallery), *settings]) == 0
    assert all(len(Gallery.open(gallery).detections_of(name)) <= 2 for name in Gallery.open(gallery).image_names)
    (hint,) = re.findall("find a person: pretrainps (.*)", capsys.readouterr().err)
    command = [each.replace("PHOTO", "photos/photo 1.png") for each in shlex.split(hint)]
    assert main([*command, "--box", "10,10,40,80", "--quiet"]) == 0
    plain = [each for each in command if "=" not in each and each != "--set"]
    assert main([*plain, "--box", "10,10,40,80", "--quiet"]) == 1
    assert "other weights or settings" in (said := capsys.readouterr().err) and "with the same settings" in said
