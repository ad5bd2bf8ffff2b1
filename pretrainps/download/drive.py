"""Download from Google Drive, through its confirmation page, and with clear errors for its quota and login pages.

Drive answers each of these pages with status 200 and HTML, so only the body shows what the answer is.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import requests

from pretrainps.download import http
from pretrainps.download.connection import explain, login_wanted
from pretrainps.download.source import RETRY_STATUS, Backoff, SourceError

ENDPOINT = "https://drive.usercontent.google.com"

_REFUSALS = {
    "quota exceeded": "its download quota is used up; try again in a day",
    "too many users have viewed or downloaded": "its download quota is used up; try again in a day",
    "can't view or download this file at this time": "its download quota is used up; try again in a day",
    "you need access": "its owner has not shared it with everyone",
    "sign in": "it asks for a login: its owner has not shared it with everyone",
    "does not exist": "it is no longer there",
    "has been deleted": "it is no longer there",
}


class _ConfirmForm(HTMLParser):
    """Reads the form `download-form` of the page "Google Drive can't scan this file for viruses"."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form" and values.get("id") == "download-form":
            self.action, self._inside = values.get("action", ""), True
        elif tag == "input" and self._inside and values.get("type") == "hidden" and "name" in values:
            self.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False


def download(file_id: str, part: Path, *, progress: bool, label: str) -> None:
    """Download a shared file into `part`, through the confirmation page if there is one.

    Raises:
        SourceError: the quota is used up, the file is private or deleted, or all tries failed.
    """
    session = http.new_session()
    url = f"{ENDPOINT}/download?{urlencode({'id': file_id, 'export': 'download', 'confirm': 't'})}"
    page = _page_at(session, url)
    if page is not None:
        url = _confirmed(page, url)
    http.download(url, part, progress=progress, label=label, session=session)


def _page_at(session: requests.Session, url: str) -> str | None:
    """Return the web page at `url`, or `None` if `url` gives the file itself."""
    backoff = Backoff()
    while True:
        try:
            with session.get(url, stream=True, timeout=http.TIMEOUT) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After")
                is_page = "text/html" in response.headers.get("Content-Type", "")
                if is_page and status not in RETRY_STATUS:
                    return response.content[: 1 << 20].decode("utf-8", "replace")
                if status == 200:
                    return None
                known = {404: "it is no longer there (404)", 407: login_wanted(url)}
                reason = known.get(status, f"server answers {status}")
        except (requests.RequestException, OSError) as error:
            cause = explain(error, url)
            if cause.final:
                raise SourceError(cause.reason) from error
            status, retry_after, reason = 503, None, cause.reason
        if status not in RETRY_STATUS or not backoff.wait(retry_after):
            raise SourceError(reason)


def _confirmed(page: str, url: str) -> str:
    """Return the URL of the page's confirmation form."""
    form = _ConfirmForm()
    form.feed(page)
    if form.action is not None:
        target, ours = urlsplit(urljoin(url, form.action)), urlsplit(ENDPOINT)
        host = target.hostname or ""
        if host != ours.hostname and not host.endswith((".google.com", ".googleusercontent.com")):
            raise SourceError(f"its confirmation page leads to another host ({host})")
        if target.scheme != ours.scheme:
            raise SourceError(f"its confirmation page leads to an unprotected address ({target.scheme})")
        query = "&".join(part for part in (target.query, urlencode(form.fields)) if part)
        return urlunsplit(target._replace(query=query))
    text = page.lower().replace("\u2019", "'").replace("&#39;", "'")
    for phrase, reason in _REFUSALS.items():
        if phrase in text:
            raise SourceError(reason, gated="login" in reason or "shared" in reason)
    raise SourceError("it answered with a web page instead of the file")
