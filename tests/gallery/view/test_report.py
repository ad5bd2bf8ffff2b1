"""A page that needs nothing else, tells nothing else, and cannot be taken over by the name of a file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pretrainps import errors
from pretrainps.gallery.results import Detection, SearchResult
from pretrainps.gallery.view.report import write_report
from tests.support.browser import Browser, chromium
from tests.support.results import Folder, answered, scene

HOSTILE = (
    '"><script>document.title = "taken over"</script>.jpg',
    "</script><script>document.title='taken over'</script>.jpg",
    "<!--<script>.jpg",
    "' onerror='x' &lt;b&gt; \\u003c.jpg",
    "\u202egpj.evil.jpg",
    "Straße/日本 ü.jpg",
)


class Page(HTMLParser):
    """A page as a browser's parser would see it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.elements, self.content = path.read_text("utf-8"), list[tuple[str, dict[str, str]]](), dict[str, str]()
        self._open = ""
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        self._open = f"{tag}#{found['id']}" if "id" in found else tag

    def handle_data(self, data: str) -> None:
        self.content[self._open] = self.content.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def all(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a kind, and of a class."""
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(k.rstrip("_")) == v for k, v in wanted.items())
        ]

    @property
    def data(self) -> dict[str, object]:
        """What programs read."""
        return json.loads(self.content["script#pretrainps-results"])  # type: ignore[no-any-return]


def page(folder: Folder, *results: SearchResult, at: Path, **options: object) -> Page:
    return Page(write_report(folder, results, at / "report.html", **options))  # type: ignore[arg-type]


def picture(uri: str) -> Image.Image:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_everything_is_inside(tmp_path: Path) -> None:
    folder, result = answered(["a.jpg", "deep/b.jpg", "c.jpg"])
    found = page(folder, result, at=tmp_path, title="Whom & where?")
    links = [value for _, each in found.elements for name, value in each.items() if name in ("src", "href", "action", "poster")]
    assert links and all(link.startswith("data:") for link in links)
    assert "http://" not in found.text and "https://" not in found.text and "url(" not in found.text
    assert found.content["title"] == "Whom & where?" and found.content["h1"] == "Whom & where?"
    assert "40 people in 3 images" in found.content["p"] and "seqnet-of-a-test" in found.content["p"]
    assert "no proof" in found.content["p"] and "agreed" in found.content["p"], "consent and lawful use"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_its_policy_lets_only_its_own_script_and_style_run(tmp_path: Path) -> None:
    found = page(*answered(["a.jpg"]), at=tmp_path)
    (policy,) = (each["content"] for each in found.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == ["'none'"] and rules["img-src"] == ["data:"]
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        digest = base64.b64encode(hashlib.sha256(found.content[element].encode()).digest()).decode()
        assert rules[directive] == [f"'sha256-{digest}'"]
    assert not any(name.startswith("on") or name == "style" for _, each in found.elements for name in each)


def test_everyone_is_shown_and_described(tmp_path: Path) -> None:
    folder, result = answered(["a.jpg", "b.jpg", "c.jpg"])
    found = page(folder, result, at=tmp_path, truth=[[True, True, False]])
    sights = found.all("button", class_="sight")
    assert [each["data-where"] for each in sights] == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]
    thumbnails = [each for each in found.all("img") if each.get("alt")]
    assert [each["alt"] for each in thumbnails] == [
        "The person searched for, in a.jpg",
        "Answer 1, similarity 1.000, the query itself: a person in a.jpg",
        "Answer 2, similarity 0.900, right: a person in b.jpg",
        "Answer 3, similarity 0.800, wrong: a person in c.jpg",
    ]
    assert all(picture(each["src"]).size == (int(each["width"]), int(each["height"])) for each in thumbnails)
    scenes = [each for each in found.all("img") if "data-scene" in each]
    assert [each["data-scene"] for each in scenes] == ["0", "1", "2"], "a scene is kept once, however many people are shown"
    assert [each["data-scene"] for each in sights] == ["0", "0", "1", "2"]
    assert picture(scenes[0]["src"]).size == (160, 120)
    assert sights[1]["data-box"] == "12.50 25.00 18.75 66.67", "in hundredths of the scene"


def test_programs_find_the_results(tmp_path: Path) -> None:
    folder, result = answered(list(HOSTILE))
    data = page(folder, result, at=tmp_path, truth=[[True] * len(HOSTILE)]).data
    assert data["model"] == "seqnet-of-a-test"
    (row,) = data["results"]  # type: ignore[misc]
    assert [hit["image"] for hit in row["hits"]] == list(HOSTILE)
    assert [hit["is_query"] for hit in row["hits"]] == [True] + [False] * 5 and row["hits"][1]["correct"] is True
    plain = json.loads(json.dumps(result.to_json()))
    for hit in row["hits"]:
        del hit["is_query"], hit["correct"]
    assert row == plain


@cache
def usual_elements() -> list[tuple[str, set[str]]]:
    """What a page of two answers with plain names is made of."""
    with tempfile.TemporaryDirectory() as folder:
        found = page(*answered(["plain.jpg", "another.jpg"]), at=Path(folder), title="x")
    return [(tag, set(each)) for tag, each in found.elements]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.text(st.characters(), min_size=1, max_size=40) | st.sampled_from(HOSTILE))
def test_no_name_changes_the_page(tmp_path: Path, name: str) -> None:
    folder, result = answered(["plain.jpg", name])
    found = page(folder, result, at=tmp_path, title=name)
    assert [(tag, set(each)) for tag, each in found.elements] == usual_elements()
    assert found.data["results"][0]["hits"][1]["image"] == name  # type: ignore[index]


def test_bytes_that_are_no_text_in_a_name(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    found = page(*answered([name]), at=tmp_path)
    assert found.all("button", class_="sight")[0]["data-where"] == "caf?.jpg"
    assert found.data["results"][0]["query"]["image"] == name  # type: ignore[index]


def test_nothing_but_pixels_of_a_photo_is_passed_on(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0)})
    scene((255, 0, 0)).save(tmp_path / "a.jpg", exif=exif, comment=b"my home address")
    taken = Image.open(tmp_path / "a.jpg")
    taken.load()
    assert taken.info["comment"] == b"my home address" and "exif" in taken.info
    folder, result = answered(["a.jpg"])
    found = page(replace(folder, images={"a.jpg": taken}), result, at=tmp_path)
    for each in found.all("img"):
        if "src" in each:
            shown = picture(each["src"])
            assert not {"exif", "comment", "xmp"} & set(shown.info) and not shown.getexif()


def test_queries_from_elsewhere_bring_their_picture(tmp_path: Path) -> None:
    folder, result = answered(["a.jpg", "b.jpg"], query="my query.jpg")
    found = page(folder, result, at=tmp_path, query_images={"my query.jpg": scene((0, 0, 200), size=(2000, 1500))})
    assert found.all("button", class_="sight")[0]["data-where"] == "my query.jpg"
    first = next(each for each in found.all("img") if each.get("data-scene") == "0")
    assert (first["width"], first["height"]) == ("1000", "750") == tuple(map(str, picture(first["src"]).size))


def test_images_that_are_gone_leave_a_place(tmp_path: Path) -> None:
    folder, result = answered(["a.jpg", "b.jpg"])
    del folder.images["b.jpg"]
    found = page(folder, result, at=tmp_path)
    assert len(found.all("div", class_="sight gone")) == 1 and len(found.all("button", class_="sight")) == 2
    nothing = page(Folder({}), replace(result, hits=()), at=tmp_path)
    assert "No answers." in nothing.content["h3"] and not nothing.all("button", class_="sight")


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    folder, result = answered(["a.jpg", "b.jpg"])
    with pytest.raises(errors.ArgumentError, match="no results"):
        write_report(folder, [], tmp_path / "r.html")
    for truth in ([], [[True]], [[True, True], []]):
        with pytest.raises(errors.ArgumentError, match="truth must say"):
            write_report(folder, [result], tmp_path / "r.html", truth=truth)
    with pytest.raises(errors.CacheError, match="cannot be written"):
        write_report(folder, [result], tmp_path)


def test_in_a_browser_scenes_are_enlarged_by_mouse_and_keys_and_nothing_is_fetched(tmp_path: Path) -> None:
    folder, result = answered([*HOSTILE, "tall.jpg"])
    folder.images["tall.jpg"] = scene((9, 9, 9), size=(60, 400))
    other = replace(result, query=Detection("tall.jpg", (0.0, 0.0, 30.0, 100.0), 1.0))
    path = write_report(folder, [result, other], tmp_path / "report.html", title=HOSTILE[0], truth=[[True] * 7] * 2)
    with chromium() as browser:
        browser.requests()
        for width, height in ((390, 844), (1280, 800)):
            browser.look(width, height, dark=width < 600)
            browser.driver.get(path.as_uri())
            _walk(browser)
            assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width
            papers = browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert (papers == "rgb(20, 21, 24)") == (width < 600), "light or dark, as the reader likes"
        assert set(browser.requests()) == {path.as_uri()}
        assert browser.complaints() == []
        assert browser.driver.title == HOSTILE[0]


def _walk(browser: Browser) -> None:
    """Enlarge the first search's second answer, go on and back, and close."""
    sights = browser.all("button.sight")
    assert len(sights) == 2 + 7 + 7
    sights[2].click()
    what, where, viewer = browser.one(".what"), browser.one(".where"), browser.one("#viewer")
    assert viewer.is_displayed() and what.text == "2 · 0.900, right" and where.text == HOSTILE[1]
    box, shown = browser.one(".stage .box"), browser.one(".stage img")
    browser.until(lambda: shown.get_property("complete") and shown.rect["width"] > 100)
    scale = shown.rect["width"] / 160
    assert shown.rect["height"] == pytest.approx(120 * scale, abs=1), "not distorted"
    assert box.rect["x"] - shown.rect["x"] == pytest.approx(20 * scale, abs=1)
    assert box.rect["height"] == pytest.approx(80 * scale, abs=1)
    browser.press("ARROW_RIGHT")
    assert what.text == "3 · 0.800, right"
    for _ in range(9):
        browser.press("ARROW_RIGHT")
    assert where.text == "tall.jpg" and not browser.one(".on").is_enabled(), "the last of this search"
    assert shown.rect["y"] >= 0 and shown.rect["y"] + shown.rect["height"] <= browser.one(".shown").rect["y"] + 1
    browser.one(".back").click()
    browser.press("ARROW_LEFT")
    assert what.text.startswith("5")
    browser.press("ESCAPE")
    assert not viewer.is_displayed()
    assert browser.driver.switch_to.active_element.get_attribute("data-what").startswith("5")
    sights[0].click()
    assert what.text == "Searched for" and not browser.one(".back").is_enabled()
    browser.one(".close").click()
    assert not viewer.is_displayed()
