"""Download over http(s) into a partial file, with resume and retries, and a check that the body is complete.

Next to a partial file lies a note (`.json`) with the validator (ETag or Last-Modified) of its body. A later try, in this
process or another, requests the rest with `Range` and `If-Range`. The server answers with the rest only if the body has not
changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import LocationValueError

from pretrainps._version import __version__
from pretrainps.download.connection import explain, login_wanted, without_login
from pretrainps.download.source import RETRY_STATUS, Backoff, SourceError, looks_like_html, progress_bar

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and between two packets."""
MOST_TRIES = 50
"""Most requests in total, even if each makes progress: a server that closes the connection so often is given up."""
_BLOCK = 1 << 16


def new_session() -> requests.Session:
    """Return a session that names this package, and requests bodies without content encoding."""
    session = requests.Session()
    session.headers.update({"User-Agent": f"pretrainps/{__version__}", "Accept-Encoding": "identity"})
    return session


class _TryAgain(Exception):
    """A failure that a new try may overcome."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def download(url: str, part: Path, *, progress: bool, label: str, session: requests.Session | None = None) -> None:
    """Download `url` into `part`, and resume an earlier partial download.

    Raises:
        SourceError: the server refuses, fails in all tries, or answers with a web page.
        OSError: the disk fails.
    """
    session = session or new_session()
    backoff, furthest = Backoff(), _size(part)
    for _ in range(MOST_TRIES):
        try:
            _try_once(session, url, part, progress, label)
            return
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, LocationValueError) as error:
            raise SourceError(f"not a usable address: {without_login(str(error))}{_socks(error)}") from error
        except (requests.RequestException, OSError) as error:
            if not isinstance(error, requests.RequestException) and error.errno is not None:
                raise  # an error of the disk, not of the network
            cause = explain(error, url)
            if cause.final:
                raise SourceError(cause.reason) from error
            failure = _TryAgain(cause.reason)
        except _TryAgain as error:
            failure = error
        if _size(part) > furthest:
            backoff, furthest = Backoff(), _size(part)  # only tries without progress count
        if not backoff.wait(failure.retry_after):
            break
    raise SourceError(f"{failure}, tried several times")


def _try_once(session: requests.Session, url: str, part: Path, progress: bool, label: str) -> None:
    """Make one request; return when `part` is complete."""
    note = part.with_name(part.name + ".json")
    done, validator = _resumable(part, note)
    headers = {"Range": f"bytes={done}-", "If-Range": validator} if done and validator else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _require_body(response, part)
        resumed = response.status_code == 206
        if resumed and not (_validator(response) == validator and _starts_at(response, done)):
            note.unlink(missing_ok=True)  # the answer is a part of another body
            raise _TryAgain("the file changed while it was being fetched")
        done = done if resumed else 0
        plain = response.headers.get("Content-Encoding", "identity") == "identity"
        length = response.headers.get("Content-Length", "")
        # the length of an encoded body is not the file's
        total = done + int(length) if plain and length.isdigit() else None
        if not resumed:
            note.unlink(missing_ok=True)  # remove the note before the body is replaced: a note must never describe another body
        with part.open("ab" if resumed else "wb") as file, progress_bar(label, total, done, progress) as bar:
            if not resumed and plain:
                note.write_text(json.dumps({"validator": _validator(response)}), encoding="utf-8")
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
    if response.history and response.history[0].url.startswith("https:") and not response.url.startswith("https:"):
        raise SourceError("it leads from https to an unprotected address")
    if status in RETRY_STATUS:
        raise _TryAgain(f"server answers {status}", response.headers.get("Retry-After"))
    if status == 416:
        part.unlink(missing_ok=True)
        raise _TryAgain("the partial file is no beginning of what is there now")
    if status == 407:
        raise SourceError(login_wanted(response.url))
    if status in (401, 403):
        raise SourceError(f"access refused ({status})", gated=True)
    if status not in (200, 206):
        raise SourceError("not found (404)" if status == 404 else f"server answers {status}")
    if "text/html" in response.headers.get("Content-Type", ""):
        raise SourceError("it answered with a web page instead of the file")


def _resumable(part: Path, note: Path) -> tuple[int, str | None]:
    """Return the number of bytes of the partial file, and the validator of its body."""
    try:
        values: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        validator = values["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    return _size(part), validator if isinstance(validator, str) else None


def _validator(response: requests.Response) -> str | None:
    """Return the validator of this body. A weak ETag is not used: it may be the same for two different bodies."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _starts_at(response: requests.Response, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _socks(error: Exception) -> str:
    return " (pip install 'requests[socks]')" if "SOCKS" in str(error) else ""
