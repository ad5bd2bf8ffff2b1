"""Google Drive's answers: the file, the confirmation page and the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrainps.download import drive as drive_module
from pretrainps.download.source import SourceError
from tests.support import fakedrive
from tests.support.fakedrive import FakeDrive

BODY = bytes(range(256)) * 40


def get(file_id: str, part: Path) -> bytes:
    drive_module.download(file_id, part, progress=False, label="test")
    return part.read_bytes()


def test_small_file(drive: FakeDrive, tmp_path: Path) -> None:
    drive.files["abc"] = BODY
    assert get("abc", tmp_path / "p") == BODY


def test_confirmation_page(drive: FakeDrive, tmp_path: Path) -> None:
    drive.files["abc"] = BODY
    drive.confirm.add("abc")
    assert get("abc", tmp_path / "p") == BODY


def test_cut_download_is_resumed_after_the_confirmation(drive: FakeDrive, tmp_path: Path) -> None:
    drive.files["abc"] = BODY
    drive.confirm.add("abc")
    drive.fault("GET .*uuid", cut=5000)
    assert get("abc", tmp_path / "p") == BODY


@pytest.mark.parametrize(
    ("page", "words", "gated"),
    [
        (fakedrive.QUOTA_PAGE, "quota is used up", False),
        (fakedrive.PRIVATE_PAGE, "not shared it with everyone", True),
        ("<html>something new</html>", "web page", False),
    ],
)
def test_pages_that_are_no_file(drive: FakeDrive, tmp_path: Path, page: str, words: str, gated: bool) -> None:
    drive.pages["abc"] = page
    with pytest.raises(SourceError, match=words) as caught:
        get("abc", tmp_path / "p")
    assert caught.value.gated is gated
    assert not (tmp_path / "p").exists()


def test_missing_file(drive: FakeDrive, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="404"):
        get("gone", tmp_path / "p")


def test_form_to_another_host_is_not_followed(drive: FakeDrive, tmp_path: Path) -> None:
    drive.files["abc"] = BODY
    drive.confirm.add("abc")
    drive.form_action = "https://elsewhere.example/download"
    with pytest.raises(SourceError, match="another host"):
        get("abc", tmp_path / "p")


def test_form_to_an_unprotected_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive_module, "ENDPOINT", "https://drive.usercontent.google.com")
    page = fakedrive.CONFIRM_PAGE.format(id="x", action="http://drive.usercontent.google.com/download")
    with pytest.raises(SourceError, match="unprotected"):
        drive_module._confirmed(page, "https://drive.usercontent.google.com/download?id=x")
    page = fakedrive.CONFIRM_PAGE.format(id="x", action="/download?at=1")
    url = drive_module._confirmed(page, "https://drive.usercontent.google.com/download?id=x")
    assert url.startswith("https://drive.usercontent.google.com/download?at=1&id=x&") and url.count("?") == 1


def test_busy_then_success(drive: FakeDrive, tmp_path: Path, waits: list[float]) -> None:
    drive.files["abc"] = BODY
    drive.fault("GET", status=503, times=2)
    assert get("abc", tmp_path / "p") == BODY
    assert waits == [1.0, 2.0]
