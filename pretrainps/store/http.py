"""Download over http(s) into a partial file: resumed, retried, and complete or refused.

A partial file has a note beside it (`.json`) with the validator (ETag or Last-Modified) of the body it belongs to. A
later try, in this process or another, asks for the rest with `Range` and `If-Range`; the server answers with the rest
only if the body is still the same one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests

from pretrainps._version import __version__
from pretrainps.store.source import RETRY_STATUS, Backoff, SourceError, looks_like_html, progress_bar

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two packets."""
_BLOCK = 1 << 16


def new_session() -> requests.Session:
    """Return a session that names this package and asks for bodies as they are stored."""
    session = requests.Session()
    session.headers.update({"User-Agent": f"pretrainps/{__version__}", "Accept-Encoding": "identity"})
    return session


class _TryAgain(Exception):
    """This try failed in a way that the next may not."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def download(url: str, part: Path, *, progress: bool, label: str, session: requests.Session | None = None) -> None:
    """Download `url` into `part`, going on where an earlier try stopped.

    Raises:
        SourceError: the server refuses, keeps failing, or answers with a web page.
        OSError: the disk does.
    """
    session = session or new_session()
    backoff = Backoff()
    while True:
        before = _size(part)
        try:
            _try_once(session, url, part, progress, label)
            return
        except requests.exceptions.InvalidURL as error:
            raise SourceError(f"not a usable URL ({error})") from error
        except requests.RequestException as error:
            failure = _TryAgain(f"connection failed ({_shortly(error)})")
        except _TryAgain as error:
            failure = error
        if _size(part) > before:
            backoff = Backoff()  # it moves: only tries without progress count
        if not backoff.wait(failure.retry_after):
            raise SourceError(f"{failure}, tried several times")


def _try_once(session: requests.Session, url: str, part: Path, progress: bool, label: str) -> None:
    """Make one request; return when `part` is complete."""
    note = part.with_name(part.name + ".json")
    done, validator = _resumable(part, note)
    headers = {"Range": f"bytes={done}-", "If-Range": validator} if done and validator else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _require_body(response, part)
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not resumed:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None and length.isdigit() else None
        _write_note(note, response)
        with part.open("ab" if resumed else "wb") as file, progress_bar(label, total, done, progress) as bar:
            for block in response.iter_content(_BLOCK):
                if done == 0 and looks_like_html(block):
                    raise SourceError("it answered with a web page instead of the file")
                file.write(block)
                done += len(block)
                bar.update(len(block))
    if total is not None and done != total:
        raise _TryAgain(f"the connection ended after {done} of {total} bytes")
    note.unlink(missing_ok=True)


def _require_body(response: requests.Response, part: Path) -> None:
    """Raise unless the answer carries the file."""
    status = response.status_code
    if status in RETRY_STATUS:
        raise _TryAgain(f"server answers {status}", response.headers.get("Retry-After"))
    if status == 416:
        part.unlink(missing_ok=True)
        raise _TryAgain("the partial file is no beginning of what is there now")
    if status in (401, 403):
        raise SourceError(f"access refused ({status})", gated=True)
    if status not in (200, 206):
        raise SourceError("not found (404)" if status == 404 else f"server answers {status}")
    if "text/html" in response.headers.get("Content-Type", ""):
        raise SourceError("it answered with a web page instead of the file")


def _resumable(part: Path, note: Path) -> tuple[int, str | None]:
    """Return how many bytes are there and the validator of the body they belong to."""
    try:
        values: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        validator = values["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    return _size(part), validator if isinstance(validator, str) else None


def _write_note(note: Path, response: requests.Response) -> None:
    etag = response.headers.get("ETag")
    # a weak ETag may name two different bodies, so it is no ground to join two halves on
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    note.write_text(json.dumps({"validator": validator}), encoding="utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shortly(error: Exception) -> str:
    """Return the innermost reason of a nested requests/urllib3 error, without object addresses."""
    reason = getattr(error.args[0], "reason", error) if error.args else error
    text = str(reason).rpartition("object at 0x")[2] if "object at 0x" in str(reason) else str(reason)
    return text.partition(">: ")[2].rstrip("')") or text
