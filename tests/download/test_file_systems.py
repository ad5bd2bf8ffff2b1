"""File systems without locks, permissions, flushes or capital letters."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pretrainps
from pretrainps import errors
from pretrainps.download import Cache, locks
from pretrainps.download.cache import Record
from pretrainps.files import disk_errors, flush_names, flush_to_disk, write_text
from tests.support.fakehub import FakeHub
from tests.support.weights import FILES, REPO, authors_file

SMALL = "shufflenetv1-hybrid"


def refusing(number: int) -> Callable[..., None]:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.filterwarnings("ignore:flock not supported:UserWarning")  # filelock says so itself, for ENOSYS alone
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_model_is_fetched_where_there_is_no_flock(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Without flock huggingface_hub cannot download either; a token goes to the Hub and nowhere else."""
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    hub.private[REPO] = "hf_secret"
    hub.through_cdn = True
    assert pretrainps.load(SMALL, progress=False).load_report.share == 1
    assert hub.cdn.requests and not any("authorization" in request.headers for request in hub.cdn.requests)
    assert Cache().pin(SMALL) is not None


def test_wrong_bytes_are_refused_without_flock_too(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    hub.add(REPO, {FILES[SMALL]: authors_file(SMALL)})
    hub.fault("GET .*/resolve/", body=authors_file(SMALL)[:-1] + b"x", times=9)
    with pytest.raises(errors.IntegrityError, match="not the one that the Hub announced"):
        pretrainps.load(SMALL, progress=False)


def test_a_lock_without_flock_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    with locks.hold(tmp_path / "x.lock"):
        with pytest.raises(locks.LockedError) as caught, locks.hold(tmp_path / "x.lock", wait=False):
            pass
        assert caught.value.marker is not None and caught.value.marker.exists()
    with locks.hold(tmp_path / "x.lock", wait=False):
        pass


def test_who_waits_for_a_marker_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process of another machine left it; this machine cannot know whether that process still runs."""
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EOPNOTSUPP))
    monkeypatch.setattr(locks, "SILENT_WAIT", 0.1)
    marker = tmp_path / "x.lock.held"
    marker.write_text("1\nanother-machine\n")

    class Deleting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            marker.unlink()  # as the message says

    handler = Deleting()
    locks.logger.addHandler(handler)
    try:
        with locks.hold(tmp_path / "x.lock"):
            pass
    finally:
        locks.logger.removeHandler(handler)
    assert f"holds {marker}" in caplog.text and "delete it" in caplog.text


def test_a_gallery_that_a_dead_run_left_marked_names_the_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pretrainps.gallery.storage.files import GalleryFiles

    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    store = GalleryFiles(tmp_path / "g")
    (tmp_path / "g").mkdir()
    marker = tmp_path / "g" / "index.lock.held"
    marker.write_text("1\nanother-machine\n")
    with pytest.raises(errors.GalleryError, match=f"delete {marker}"), store.lock(wait=False):
        pass
    marker.unlink()
    with store.lock(wait=False):
        pass


def test_any_other_refusal_of_a_lock_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(errors.CacheError, match=r"Input/output error.*PRETRAINPS_HOME"), Cache().lock("x"):
        pass


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_refused_chmod_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "chmod", refusing(number))
    write_text(tmp_path / "a" / "b.json", "{}")
    assert (tmp_path / "a" / "b.json").read_text() == "{}"


def test_a_strange_umask_does_not_lock_the_owner_out(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        write_text(tmp_path / "b.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.ENOSYS])
def test_folders_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    flush_names(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_never_taken_for_one_that_cannot_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(number))
    for flush in (lambda: flush_names(tmp_path), lambda: flush_to_disk(0)):
        with pytest.raises(OSError, match=os.strerror(number)):
            flush()
    with pytest.raises(errors.CacheError):
        write_text(tmp_path / "x", "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EBUSY])
def test_every_refusal_of_a_disk_is_an_error_of_ours(tmp_path: Path, number: int) -> None:
    with pytest.raises(errors.CacheError, match=f"{tmp_path} cannot be written"), disk_errors(tmp_path):
        refusing(number)()


def test_names_that_differ_in_capitals_lie_apart_on_every_system(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    names = ["hf:o/r/Model.pth", "hf:o/r/model.pth", "hf:O/r/model.pth", "hf:o/r/%4Dodel.pth", "hf:o/r/" + "M" * 90]
    keys = [cache.key(name) for name in names]
    assert len({key.lower() for key in keys}) == len(names)
    for name in names:
        cache.write_pin(name, Record(file="f", sha256="0" * 64, size=1, source="s"))
        cache.write_record(name, Record(file="f", sha256="0" * 64, size=1, source="s"))
    assert cache.names() == cache.pinned_names() == sorted(names), "long names too"


def test_what_an_earlier_version_cached_is_found(tmp_path: Path) -> None:
    cache, record = Cache(tmp_path), Record(file="f", sha256="0" * 64, size=1, source="s")
    for place in ("models/hf%3AAlice10%2Fx/record.json", "pins/hf%3AAlice10%2Fx.json"):
        record.write(tmp_path / place)
    assert cache.record("hf:Alice10/x") == record and cache.pin("hf:Alice10/x") == record
    assert cache.names() == cache.pinned_names() == ["hf:Alice10/x"]
    assert cache.record("hf:alice10/x") is None, "another case is another model"
    cache.remove("hf:Alice10/x", forget_pin=True)
    assert cache.names() == cache.pinned_names() == []


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(authors_file(SMALL))
    monkeypatch.setattr(Path, "open", refusing(errno.EACCES))
    with pytest.raises(errors.WeightsUnavailableError, match=r"cannot be read.*Permission denied"):
        pretrainps.load(f"file:{path}")


def test_without_flock_in_another_process() -> None:
    """The next process removes the marker of a process that was killed on this machine."""
    program = (
        "import errno, fcntl, os, sys\nfrom pathlib import Path\n"
        "def refuse(*a): raise OSError(errno.ENOLCK, 'no locks')\nfcntl.flock = refuse\n"
        "from pretrainps.download.locks import hold\n"
        "with hold(Path(sys.argv[1])):\n    os._exit(0) if sys.argv[2] == 'die' else print('held')\n"
    )
    lock = str(Cache().root.parent / "x.lock")
    subprocess.run([sys.executable, "-c", program, lock, "die"], check=True, timeout=60)
    assert Path(lock + ".held").exists()
    done = subprocess.run([sys.executable, "-c", program, lock, "live"], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "held\n"
