"""Common parts of all sources: the error, the waits between tries, offline mode and progress bars."""

from __future__ import annotations

import os
import sys
from time import sleep
from typing import Literal, NoReturn

from tqdm import tqdm

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
TRIES = 4
LONGEST_WAIT = 60.0


class SourceError(Exception):
    """One source did not give the file; the reason is one clause, for a list of sources tried.

    Attributes:
        gated: Whether the source asks for a login.
        integrity: Whether the source gave another file.
        absent: What an existing repository lacks: "file" or "revision".
    """

    def __init__(
        self,
        reason: str,
        *,
        gated: bool = False,
        integrity: bool = False,
        absent: Literal["file", "revision"] | None = None,
    ) -> None:
        super().__init__(reason)
        self.gated = gated
        self.integrity = integrity
        self.absent = absent


class Backoff:
    """Waits of 1, 2, 4, ... seconds between tries, or as long as the server requests."""

    def __init__(self, tries: int = TRIES) -> None:
        self.left = tries - 1
        self.next_wait = 1.0

    def wait(self, retry_after: str | None = None) -> bool:
        """Sleep before the next try; return `False` at once if no try is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        asked = float(retry_after) if retry_after and retry_after.strip().isdigit() else 0.0
        if asked > LONGEST_WAIT:
            return False
        sleep(max(asked, self.next_wait))
        self.next_wait *= 2
        return True


def is_offline(offline: bool | None) -> bool:
    """Return whether offline mode is on: by argument, `PRETRAINPS_OFFLINE` or `HF_HUB_OFFLINE`."""
    if offline is not None:
        return offline
    return any(
        os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}
        for variable in ("PRETRAINPS_OFFLINE", "HF_HUB_OFFLINE")
    )


def looks_like_html(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a web page."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<!--"))


def is_silent(show: bool) -> bool | None:
    """Return tqdm's argument `disable`: `None` shows a bar only if standard error is a terminal."""
    return None if show and sys.stderr is not None else True


def progress_bar(label: str, total: int | None, initial: int, show: bool) -> tqdm[NoReturn]:
    """Return a progress bar of bytes on standard error; silent if `show` is false, or if standard error is no terminal."""
    return tqdm(
        desc=label,
        total=total,
        initial=initial,
        unit="B",
        unit_scale=True,
        unit_divisor=1000,
        disable=is_silent(show),
        leave=False,
    )
