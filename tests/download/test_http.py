"""The https source: resume, retries and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrainps.download import http
from pretrainps.download.source import SourceError
from tests.support.server import FileServer

BODY = bytes(range(256)) * 4000  # a megabyte, several blocks


def get(url: str, part: Path) -> bytes:
    http.download(url, part, progress=False, label="test")
    return part.read_bytes()


def test_connection_cut_midway_is_resumed(files: FileServer, tmp_path: Path, waits: list[float]) -> None:
    url = files.put("w", BODY)
    files.fault("GET /w", cut=300_000)
    files.fault("GET /w", cut=200_000)
    assert get(url, tmp_path / "w.part") == BODY
    ranges = [r.headers.get("range") for r in files.requests]
    assert ranges[0] is None and all(r is not None for r in ranges[1:]), "the rest was asked for, not the whole again"
    assert waits == [1.0, 1.0], "progress starts the waiting anew"


def test_resume_in_another_process(files: FileServer, tmp_path: Path) -> None:
    url = files.put("w", BODY)
    files.fault("GET /w", cut=400_000)
    files.fault("GET /w", status=503, times=10)
    part = tmp_path / "w.part"
    with pytest.raises(SourceError):
        get(url, part)
    assert 0 < part.stat().st_size < len(BODY)
    files.faults.clear()
    assert get(url, part) == BODY
    assert files.requests[-1].headers["range"] == f"bytes={400_000 >> 16 << 16}-"


def test_body_that_changed_meanwhile_starts_over(files: FileServer, tmp_path: Path) -> None:
    url = files.put("w", BODY)
    files.fault("GET /w", cut=400_000)
    files.fault("GET /w", status=503, times=10)
    with pytest.raises(SourceError):
        get(url, tmp_path / "w.part")
    files.faults.clear()
    newer = bytes(reversed(BODY))
    files.put("w", newer)
    assert get(url, tmp_path / "w.part") == newer


def test_server_without_ranges(files: FileServer, tmp_path: Path) -> None:
    url = files.put("w", BODY)
    files.fault("GET /w", cut=400_000)
    files.fault("GET /w", ignore_range=True)
    assert get(url, tmp_path / "w.part") == BODY


def test_partial_file_longer_than_the_body(files: FileServer, tmp_path: Path) -> None:
    part = tmp_path / "w.part"
    url = files.put("w", BODY)
    files.fault("GET /w", cut=400_000)
    files.fault("GET /w", status=503, times=10)
    with pytest.raises(SourceError):
        get(url, part)
    files.faults.clear()
    part.write_bytes(BODY + b"more")
    assert get(url, part) == BODY


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retry_then_success(files: FileServer, tmp_path: Path, status: int, waits: list[float]) -> None:
    files.fault("GET /w", status=status, times=2)
    assert get(files.put("w", BODY), tmp_path / "w.part") == BODY
    assert waits == [1.0, 2.0]


def test_a_wait_of_hours_is_not_waited_for(files: FileServer, tmp_path: Path, waits: list[float]) -> None:
    files.fault("GET /w", status=429, headers={"Retry-After": "7200"}, times=10)
    with pytest.raises(SourceError, match="429"):
        get(files.put("w", BODY), tmp_path / "w.part")
    assert waits == []


@pytest.mark.parametrize(("status", "gated"), [(401, True), (403, True), (404, False), (410, False)])
def test_refusals_are_not_retried(files: FileServer, tmp_path: Path, status: int, gated: bool) -> None:
    files.fault("GET /w", status=status, times=10)
    with pytest.raises(SourceError, match=str(status)) as caught:
        get(files.put("w", BODY), tmp_path / "w.part")
    assert caught.value.gated is gated
    assert len(files.requests) == 1


def test_dead_host(tmp_path: Path, waits: list[float]) -> None:
    with pytest.raises(SourceError, match="connection failed"):
        get("http://127.0.0.1:9/w", tmp_path / "w.part")
    assert len(waits) == 3


def test_proxy_from_the_environment_is_used(files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", files.url)
    monkeypatch.setenv("NO_PROXY", "")
    files.files["http://weights.example/w"] = BODY  # a proxy is asked for the whole URL
    assert get("http://weights.example/w", tmp_path / "w.part") == BODY


def stopped_halfway(files: FileServer, url: str, part: Path) -> None:
    files.fault("GET /w", cut=400_000)
    files.fault("GET /w", status=503, times=10)
    with pytest.raises(SourceError):
        get(url, part)
    files.faults.clear()


@pytest.mark.parametrize("said", ['"another"', None])
def test_a_server_that_ignores_if_range_cannot_join_two_bodies(files: FileServer, tmp_path: Path, said: str | None) -> None:
    url, part = files.put("w", BODY), tmp_path / "w.part"
    stopped_halfway(files, url, part)
    newer = bytes(reversed(BODY))
    files.put("w", newer)
    files.ignore_if_range = True
    if said is None:
        files.etags = False
    assert get(url, part) == newer


def test_a_partial_file_without_its_note_is_no_beginning(files: FileServer, tmp_path: Path) -> None:
    """Killed between emptying the old part and writing the new note, or the other way round."""
    url, part = files.put("w", BODY), tmp_path / "w.part"
    stopped_halfway(files, url, part)
    part.with_name("w.part.json").unlink()
    part.write_bytes(b"old beginning" * 1000)
    assert get(url, part) == BODY


def test_servers_that_never_get_anywhere_are_given_up(files: FileServer, tmp_path: Path, waits: list[float]) -> None:
    url = files.put("w", BODY)
    for cut in (400_000, 200_000) * 200:
        files.fault("GET /w", cut=cut, ignore_range=True)
    with pytest.raises(SourceError, match="several times"):
        get(url, tmp_path / "w.part")
    assert len(waits) < 20
    files.faults.clear()
    files.fault("GET /w", status=416, times=1000)
    with pytest.raises(SourceError, match="several times"):
        get(url, tmp_path / "w.part")


def test_compressed_bodies(files: FileServer, tmp_path: Path) -> None:
    import gzip

    url = files.put("w", BODY)
    files.fault("GET /w", body=gzip.compress(BODY), headers={"Content-Encoding": "gzip"}, times=9)
    assert get(url, tmp_path / "w.part") == BODY


@pytest.mark.parametrize("url", ["http://a..b/x", "nosuch://x/y", "http://[bad/x"])
def test_urls_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(SourceError):
        get(url, tmp_path / "w.part")
