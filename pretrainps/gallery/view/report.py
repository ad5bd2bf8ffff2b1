"""One HTML file with the answers of searches. It needs nothing else, and works on a phone and without a network.

Pictures are in it as small JPEGs without metadata. Its content security policy lets a browser load nothing else and run only
the script that is written here, whatever the names of image files are. Programs find the results as JSON in the element
`#pretrainps-results`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from pretrainps._version import __version__
from pretrainps.errors import ArgumentError, ImageError
from pretrainps.files import write_text
from pretrainps.gallery.results import Detection, Hit, SearchResult
from pretrainps.gallery.view.picture import Pictures
from pretrainps.images.drawing import ANSWER, ASKED, crop_with_margin, fitted, within

_THUMBNAIL = (320, 480)
_SCENE = 1000
"""Longest side of an enlarged scene."""
_QUALITY = 76
_MARKS = {"itself": "query itself", "right": "✓ right", "wrong": "✗ wrong"}
_TERMS = (
    "A similarity says how alike two people look to a model, above all in their clothes. It is no proof of who a person is: "
    "look before you believe it.",
    "Search only pictures that you may use, for people who have agreed to it or where the law allows it. Handle this page as "
    "carefully as the photos in it.",
)


class NamedPictures(Pictures, Protocol):
    """Reads images, and names the model that they were indexed with: a `Gallery`, or anything like it."""

    @property
    def model_name(self) -> str:
        """The model's name."""
        ...


@dataclass(frozen=True, slots=True)
class _Shown:
    """A person as the page shows them."""

    thumbnail: str
    """A small picture of them, as a data URI."""
    scene: int
    """Which of the page's scenes they are in."""
    place: str
    """Left edge, top edge, width and height of their box, in hundredths of the scene."""


def write_report(
    gallery: NamedPictures,
    results: Sequence[SearchResult],
    path: Path,
    *,
    title: str = "Person search",
    truth: Sequence[Sequence[bool]] | None = None,
    query_images: Mapping[str, Image.Image] | None = None,
) -> Path:
    """Write the answers of one or more searches as a page; return where it is.

    In the place of an image that can no longer be read stands a note.

    Args:
        gallery: Reads the answers' images.
        results: The answers of each search.
        path: The page's file, `.html`. It is never seen half-written.
        title: The page's title.
        truth: For each result and each of its answers whether it is the person, if that is known.
        query_images: Queries' images by name, RGB and upright, for those that are not in the gallery.

    Raises:
        ArgumentError: There is no result, or `truth` has not one value for each answer.
        CacheError: The page cannot be written.
    """
    if not results:
        raise ArgumentError("there are no results to report. Search first.")
    if truth is not None and [len(each) for each in truth] != [len(result.hits) for result in results]:
        raise ArgumentError("truth must say for each answer of each result whether it is right.")
    album = _Album(gallery, query_images or {})
    for result in results:
        album.want(result.query, asked=True)
        for hit in result.hits:
            album.want(hit.detection, asked=hit.detection.is_seen_as(result.query))
    album.read()
    body = "\n".join(
        _section(result, number, len(results), album, None if truth is None else truth[number - 1])
        for number, result in enumerate(results, start=1)
    )
    write_text(path, _page(title, _summary(gallery, results), body, album.scenes, _data(gallery, results, truth)))
    return path


class _Album:
    """Reads every image once, one at a time, and keeps what the page shows of it."""

    def __init__(self, gallery: Pictures, others: Mapping[str, Image.Image]) -> None:
        self._gallery, self._others = gallery, others
        self._wanted: dict[str, dict[tuple[Detection, bool], None]] = {}
        self._shown: dict[tuple[Detection, bool], _Shown] = {}
        self.scenes: list[str] = []
        """`<img>` elements."""

    def want(self, person: Detection, *, asked: bool) -> None:
        """Remember a person to show, and whether they are the one searched for."""
        self._wanted.setdefault(person.image, {})[person, asked] = None

    def read(self) -> None:
        """Cut out all persons and scale the scenes down."""
        for name, persons in self._wanted.items():
            try:
                image = self._others[name] if name in self._others else self._gallery.picture(name)
            except ImageError:
                continue
            scene = fitted(image, most=_SCENE)
            place = len(self.scenes)
            self.scenes.append(
                f'<img data-scene="{place}" width="{scene.width}" height="{scene.height}" alt="" src="{_jpeg(scene)}">'
            )
            for person, asked in persons:
                cut = crop_with_margin(image, person.box, _THUMBNAIL, ASKED if asked else ANSWER)
                self._shown[person, asked] = _Shown(_jpeg(cut), place, _place(person, image))

    def show(self, person: Detection, *, asked: bool, alt: str, what: str) -> str:
        """Return the element of a person: a button that enlarges them, or a note."""
        seen = self._shown.get((person, asked))
        if seen is None:
            return '<div class="sight gone">The image can no longer be read.</div>'
        width, height = _THUMBNAIL
        return (
            f'<button type="button" class="sight" data-scene="{seen.scene}" data-box="{seen.place}" data-what="{_text(what)}" '
            f'data-where="{_text(person.id or person.image)}">'
            f'<img src="{seen.thumbnail}" width="{width}" height="{height}" alt="{_text(alt)}"></button>'
        )


def _section(result: SearchResult, number: int, of: int, album: _Album, truth: Sequence[bool] | None) -> str:
    heading = f"Search {number} of {of}" if of > 1 else "Searched for"
    query = result.query
    element = album.show(query, asked=True, alt=f"The person searched for, in {query.image}", what="Searched for")
    answers = "\n".join(
        _answer(hit, result, album, None if truth is None else truth[place]) for place, hit in enumerate(result.hits)
    )
    right = "" if truth is None else f", {sum(truth)} of {len(truth)} right"
    said = f"Most alike, best first{right}" if result.hits else "No answers."
    return f"""<section>
<div class="query">
<h2>{heading}</h2>
<figure>
{element}
<figcaption><p class="line name"><bdi>{_text(query.id or query.image)}</bdi></p></figcaption>
</figure>
</div>
<div>
<h3>{said}</h3>
<ol class="answers">
{answers}
</ol>
</div>
</section>"""


def _answer(hit: Hit, result: SearchResult, album: _Album, correct: bool | None) -> str:
    itself = hit.detection.is_seen_as(result.query)
    kind = "itself" if itself else "" if correct is None else "right" if correct else "wrong"
    word = {"itself": "the query itself", "right": "right", "wrong": "wrong"}.get(kind, "")
    mark = f'<span class="mark {kind}">{_MARKS[kind]}</span>' if kind else ""
    name, similarity = _text(hit.detection.id or hit.detection.image), f"{hit.similarity:.3f}"
    words = f", {word}" if word else ""
    alt = f"Answer {hit.rank}, similarity {similarity}{words}: a person in {hit.detection.image}"
    element = album.show(hit.detection, asked=itself, alt=alt, what=f"{hit.rank} · {similarity}{words}")
    filled = 100 * min(1.0, max(0.0, hit.similarity))
    return f"""<li><figure>
{element}
<figcaption>
<p class="line"><span class="rank">{hit.rank}</span><span class="similarity">{similarity}</span>{mark}</p>
<svg class="bar {kind}" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="{filled:.1f}" \
height="1"/></svg>
<p class="name" title="{name}"><bdi>{name}</bdi></p>
</figcaption>
</figure></li>"""


def _summary(gallery: NamedPictures, results: Sequence[SearchResult]) -> str:
    methods = ", ".join(dict.fromkeys(result.method for result in results))
    searched, images = max(result.searched for result in results), max(result.images for result in results)
    searches = "1 search" if len(results) == 1 else f"{len(results)} searches"
    return f"{searches} among {searched:,} people in {images:,} images\u00a0· {_public(gallery.model_name)}\u00a0· {methods}"


def _data(gallery: NamedPictures, results: Sequence[SearchResult], truth: Sequence[Sequence[bool]] | None) -> str:
    """Return the results for programs, written so that no name can end the element that holds them."""
    rows: list[dict[str, Any]] = []
    for number, result in enumerate(results):
        row = result.to_json()
        for place, hit in enumerate(result.hits):
            row["hits"][place]["is_query"] = hit.detection.is_seen_as(result.query)
            if truth is not None:
                row["hits"][place]["correct"] = bool(truth[number][place])
        rows.append(row)
    value = {"pretrainps": __version__, "model": _public(gallery.model_name), "results": rows}
    return json.dumps(value).replace("<", "\\u003c")


def _page(title: str, summary: str, body: str, scenes: Sequence[str], data: str) -> str:
    style, script = _resource("report.css"), _resource("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    terms = "\n".join(f"<p>{line}</p>" for line in _TERMS)
    whole = "\n".join(scenes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="pretrainps {__version__}">
<title>{_text(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
<p class="summary">{_text(summary)}</p>
</header>
<main>
{body}
</main>
<footer>
{terms}
</footer>
<dialog id="viewer" aria-label="The whole scene">
<button type="button" class="close" aria-label="Close">&times;</button>
<div class="stage"><img alt=""><span class="box"></span></div>
<div class="shown">
<button type="button" class="back" aria-label="Previous">&lsaquo;</button>
<div aria-live="polite"><p class="what"></p><p class="where name"></p></div>
<button type="button" class="on" aria-label="Next">&rsaquo;</button>
</div>
</dialog>
<template id="scenes">
{whole}
</template>
<script type="application/json" id="pretrainps-results">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _public(model: str) -> str:
    """Return a model's name, without the folder of a file on this machine."""
    return f"file:{Path(model.removeprefix('file:')).name}" if model.startswith("file:") else model


def _place(person: Detection, image: Image.Image) -> str:
    x1, y1, x2, y2 = within(person.box, image.size)
    across, down = 100 / image.width, 100 / image.height
    return " ".join(f"{value:.2f}" for value in (x1 * across, y1 * down, (x2 - x1) * across, (y2 - y1) * down))


def _jpeg(image: Image.Image) -> str:
    """Return only the pixels, without any metadata, as a data URI."""
    plain = image.copy()
    plain.info.clear()  # Pillow would copy a comment
    stream = io.BytesIO()
    plain.save(stream, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _text(value: str) -> str:
    """Return a text for HTML. Bytes of file names that are not text become question marks."""
    return escape(value.encode("utf-8", "replace").decode("utf-8"))


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _resource(name: str) -> str:
    return files("pretrainps.gallery.view").joinpath(name).read_text("utf-8")
