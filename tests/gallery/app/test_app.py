"""The app: what a visitor's photos become, and the page itself in a browser, from the upload to the answers."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import pretrainps
from pretrainps import errors
from pretrainps.cli.app import add_commands
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import Detection
from pretrainps.gallery.app import page as app
from pretrainps.gallery.app.session import Session
from pretrainps.gallery.query_selection import detect, person_at
from pretrainps.images.read import read_image
from tests.support.browser import Browser, chromium
from tests.support.search_model import noisy_photos, search_model


@pytest.fixture(scope="module")
def model() -> PersonSearchDetector[Any]:
    return search_model()


@pytest.fixture
def visit(model: PersonSearchDetector[Any]) -> Iterator[Session]:
    visitor = Session(model)
    yield visitor
    visitor.leave()


def test_photos_are_looked_at_and_what_is_none_is_refused_politely(visit: Session, tmp_path: Path) -> None:
    good = noisy_photos(tmp_path / "mine", 2)
    bad = tmp_path / "mine" / "torn.jpg"
    bad.write_bytes(b"\xff\xd8\xff")
    text = tmp_path / "mine" / "notes.heic"
    text.write_text("no photo")
    added = visit.add([good[0], bad, text, good[1]], progress=False)
    assert visit.names == ["photo 0.png", "photo 1.png"] and added.photos == 2 and added.detections > 2
    reasons = dict(added.refused)
    assert reasons.keys() == {"torn.jpg", "notes.heic"}
    assert reasons["torn.jpg"].startswith("no image") and ".jpg" in reasons["notes.heic"]
    assert not any(str(Path(visit._photos)) in reason for reason in reasons.values())
    again = visit.add(noisy_photos(tmp_path / "more", 1), progress=False)
    assert again.photos == 1 and not again.refused, "what was refused is not tried again"
    assert visit.names == ["photo 0 (2).png", "photo 0.png", "photo 1.png"], "a second of the same name gets another"


def test_nothing_but_unreadable_files(visit: Session, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert visit.add([tmp_path / "a.txt"], progress=False).photos == 0 and visit.names == []
    (tmp_path / "a.png").write_bytes(b"")
    added = visit.add([tmp_path / "a.png"], progress=False)
    assert (added.photos, added.detections) == (0, 0) and len(added.refused) == 1
    assert visit.names == [] and visit.thumbnails() == []
    with pytest.raises(errors.ArgumentError):
        visit.photo("a.png")


def test_answers_come_from_the_other_photos(visit: Session, tmp_path: Path) -> None:
    visit.add(noisy_photos(tmp_path / "mine", 3), progress=False)
    person = visit.detections("photo 1.png")[0]
    result = visit.search(person, top=4)
    assert {hit.detection.image for hit in result.hits} <= {"photo 0.png", "photo 2.png"} and len(result.hits) == 4
    own = visit.search(person, top=50, exclude_query_image=False)
    assert any(hit.detection.is_seen_as(person) for hit in own.hits)
    assert [caption for _, caption in visit.answers(result)] == [f"{h.rank} · {h.similarity:.3f}" for h in result.hits]
    assert visit.scene(result.hits[0].detection).size == (140, 100)
    assert visit.report(result).read_text("utf-8").count('class="sight"') == 5


def test_a_visitor_leaves_nothing_behind(model: PersonSearchDetector[Any], tmp_path: Path) -> None:
    visit = Session(model)
    visit.add(noisy_photos(tmp_path, 1), progress=False)
    folder = visit._photos.parent
    visit.leave()
    assert not folder.exists()


def test_without_gradio_the_extra_is_named(model: PersonSearchDetector[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(errors.MissingPackageError, match=r"pretrainps\[app\]"):
        app.build_app(model)


@pytest.mark.parametrize("port", [0, 65536])
def test_ports_that_cannot_be(port: int) -> None:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    args = parser.parse_args(["app", "--model", "seqnet-resnet50-prw", "--port", str(port)])
    assert args.host == "127.0.0.1", "nobody else is let in unasked"
    with pytest.raises(errors.ArgumentError, match="1 to 65535"):
        args.run(args)


SERVER = """
import sys
import pretrainps
from pretrainps.gallery.app.page import run_app
run_app(pretrainps.load(f"file:{sys.argv[1]}"), ready=lambda address: print(address, flush=True))
"""


@contextmanager
def served(model: PersonSearchDetector[Any], folder: Path) -> Iterator[str]:
    """Serve the app in a process of its own: a server's threads and warnings are no part of this one."""
    pretrainps.save_pretrained(model, folder / "model")
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder / "model")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), Path(log.name).read_text()
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def test_in_a_browser_photos_are_uploaded_and_a_person_is_clicked_on(model: PersonSearchDetector[Any], tmp_path: Path) -> None:
    if find_spec("gradio") is None:  # only the server imports it
        pytest.skip("gradio is not installed (pip install 'pretrainps[app]')")
    photos = noisy_photos(tmp_path / "mine", 3, size=(420, 300))
    people = [detect(model, read_image(photo)) for photo in photos]
    torn = tmp_path / "mine" / "torn <b>.jpg"
    torn.write_bytes(b"\xff\xd8\xff")
    (tmp_path / "server").mkdir()
    with chromium() as browser, served(model, tmp_path / "server") as address:
        browser.look(1280, 1000)
        browser.driver.get(address)
        browser.until(lambda: browser.all("#upload input[type=file]"))
        assert not browser.all("#photos img") and not browser.all("#who img"), "one thing after the other"
        browser.one("#upload input[type=file]").send_keys("\n".join(map(str, [photos[0], torn, *photos[1:]])))
        browser.until(lambda: len(browser.all("#photos .thumbnail-item")) == 3)
        account = browser.one("#account").text
        assert "New photos: 3" in account and "torn" in account and "no image" in account
        browser.all("#photos .thumbnail-item")[1].click()
        browser.until(lambda: browser.one("#who img").get_property("naturalWidth") == 960)
        assert browser.one("#who img").get_attribute("alt") == "photo 1.png, with all people numbered"
        _click_on_somebody(browser, read_image(photos[1]).size, people[1])
        others = min(10, len(people[0]) + len(people[2]))
        browser.until(lambda: len(browser.all("#answers .thumbnail-item img")) == others)
        captions = [each.text for each in browser.all("#answers .thumbnail-item")]
        assert [caption.split(" · ")[0] for caption in captions] == [str(rank) for rank in range(1, others + 1)]
        similarities = [float(caption.split(" · ")[1]) for caption in captions]
        assert similarities == sorted(similarities, reverse=True)
        browser.all("#answers .thumbnail-item")[0].click()
        browser.until(lambda: "Answer 1, in photo" in browser.one("#scene img").get_attribute("alt"))
        assert "photo 1.png" not in browser.one("#where").text, "answers come from other photos"
        saved = tmp_path / "downloads" / "people.html"
        browser.driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved.parent)})
        browser.one("#report").click()
        browser.until(saved.exists)
        assert saved.read_text("utf-8").count('<button type="button" class="sight"') == 1 + others
        assert {url for url in browser.requests() if not url.startswith(address)} == set(), "nothing comes from elsewhere"
        assert browser.complaints() == []
    left = {path.name for path in (tmp_path / "server").iterdir()}
    assert left == {"model", "log"}, "no photo outlives the server"


def _click_on_somebody(browser: Browser, size: tuple[int, int], people: list[Detection]) -> None:
    """Click on one of the people on a photo of a size, not the first."""
    from selenium.webdriver.common.action_chains import ActionChains

    points = [(x, y) for x in range(5, size[0], 10) for y in range(5, size[1], 10)]
    number, (x, y) = next((found, point) for point in points if (found := person_at(people, *point)) not in (None, 1))
    shown = browser.one("#who img")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", shown)
    scale = shown.rect["width"] / size[0]
    place = (x * scale - shown.rect["width"] / 2, y * scale - shown.rect["height"] / 2)
    ActionChains(browser.driver).move_to_element_with_offset(shown, *map(round, place)).click().perform()
    browser.until(lambda: browser.one("#number input:checked").get_attribute("value") == str(number))
