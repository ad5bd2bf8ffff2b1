"""After any failure, the cache holds a verified file or none."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pretrainps import errors
from pretrainps.download import Cache, fetch
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import HttpSource, HubSource, RemoteFile
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer
from tests.support.weights import safetensors_bytes

BODY = safetensors_bytes(bytes(range(256)) * 40)
OTHER = safetensors_bytes(bytes(reversed(range(256))) * 40)
REPO = "owner/weights"


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def hub_spec(**changes: object) -> ModelSpec:
    base = replace(
        find_spec("resnet50-hybrid"), sources=(HubSource(repo=REPO, file="model.pth"),), published_size=None, name="model"
    )
    return replace(base, **changes)


def nothing_kept(home: Path) -> bool:
    """No file under a final name, and no pin, not even in part."""
    kept = [p for p in home.rglob("*") if p.is_file() and "incoming" not in p.parts and "locks" not in p.parts]
    return not kept


@pytest.fixture
def served(hub: FakeHub) -> FakeHub:
    hub.add(REPO, {"model.pth": BODY})
    return hub


def test_first_download_pins_and_says_so(served: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    fetched = fetch(hub_spec(), cache=Cache(), progress=False)
    assert fetched.path.read_bytes() == BODY
    assert fetched.sha256 == sha(BODY)
    assert fetched.commit == served.heads[REPO]
    assert "pinned" in caplog.text and sha(BODY)[:16] in caplog.text
    assert json.loads(Cache().pin_path("model").read_text())["sha256"] == sha(BODY)


def test_cached_file_needs_no_network_at_all(served: FakeHub) -> None:
    fetch(hub_spec(), cache=Cache(), progress=False)
    served.requests.clear()
    again = fetch(hub_spec(), cache=Cache(), progress=False)
    assert again.path.read_bytes() == BODY
    assert served.requests == []


def test_large_files_come_through_the_cdn_and_the_token_stays_home(served: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.through_cdn = True
    served.private[REPO] = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(hub_spec(), cache=Cache(), progress=False).path.read_bytes() == BODY
    assert served.cdn.requests and not any("authorization" in r.headers for r in served.cdn.requests)


@pytest.mark.parametrize("cut", [0, 1, len(BODY) // 2, len(BODY) - 1])
def test_truncated_body_is_completed(served: FakeHub, cut: int, home: Path) -> None:
    served.fault("GET .*/resolve/", cut=cut)
    assert fetch(hub_spec(), cache=Cache(), progress=False).path.read_bytes() == BODY


def test_body_truncated_for_ever_is_refused(served: FakeHub, home: Path) -> None:
    served.fault("GET .*/resolve/", cut=100, ignore_range=True, times=1000)
    with pytest.raises(errors.WeightsUnavailableError):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert nothing_kept(home)


def test_same_size_wrong_bytes_are_refused_without_any_known_hash(served: FakeHub, home: Path) -> None:
    served.fault("GET .*/resolve/", body=OTHER, times=10)
    with pytest.raises(errors.IntegrityError, match="not the one that the Hub announced"):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert nothing_kept(home)


def test_wrong_bytes_against_a_published_hash(files: FileServer, home: Path) -> None:
    spec = hub_spec(sources=(HttpSource(url=files.put("model.pth", OTHER)),), sha256=sha(BODY))
    with pytest.raises(errors.IntegrityError, match=sha(BODY)):
        fetch(spec, cache=Cache(), progress=False)
    assert nothing_kept(home)


def test_changed_file_behind_a_pinned_name(served: FakeHub, home: Path) -> None:
    fetch(hub_spec(), cache=Cache(), progress=False)
    Cache().remove("model")
    served.add(REPO, {"model.pth": OTHER})
    with pytest.raises(errors.IntegrityError, match=r"pin of its first download.*(?s:.*)--forget-pin"):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert not (home / "models" / "model" / "original" / "model.pth").exists()
    Cache().remove("model", forget_pin=True)
    assert fetch(hub_spec(), cache=Cache(), progress=False).sha256 == sha(OTHER)


def test_force_downloads_again_but_keeps_the_old_file_if_the_new_one_is_wrong(served: FakeHub) -> None:
    first = fetch(hub_spec(), cache=Cache(), progress=False)
    served.add(REPO, {"model.pth": OTHER})
    with pytest.raises(errors.IntegrityError):
        fetch(hub_spec(), cache=Cache(), progress=False, force=True)
    assert first.path.read_bytes() == BODY


def test_tampered_cache_is_noticed(served: FakeHub) -> None:
    path = fetch(hub_spec(), cache=Cache(), progress=False).path
    path.write_bytes(OTHER)
    with pytest.raises(errors.IntegrityError, match="cache remove model"):
        fetch(hub_spec(), cache=Cache(), progress=False)


def test_tampering_that_forges_size_and_time_is_noticed_by_verify(served: FakeHub) -> None:
    path = fetch(hub_spec(), cache=Cache(), progress=False).path
    stat = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(errors.IntegrityError):
        fetch(hub_spec(), cache=Cache(), progress=False, verify=True)


def test_touched_but_unchanged_file_is_accepted(served: FakeHub) -> None:
    path = fetch(hub_spec(), cache=Cache(), progress=False).path
    os.utime(path)
    assert fetch(hub_spec(), cache=Cache(), progress=False).path == path


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>log in</html>", b"  <html><body>quota</body></html>"])
def test_web_page_instead_of_weights(files: FileServer, home: Path, page: bytes) -> None:
    spec = hub_spec(sources=(HttpSource(url=files.put("model.pth", page)),))
    with pytest.raises(errors.WeightsUnavailableError, match="web page"):
        fetch(spec, cache=Cache(), progress=False)
    assert nothing_kept(home)


def test_size_far_from_what_the_source_shows(files: FileServer, home: Path) -> None:
    spec = hub_spec(sources=(HttpSource(url=files.put("model.pth", BODY)),), published_size=94.4)
    with pytest.raises(errors.IntegrityError, match=r"0\.01 MB.*94\.4 MB"):
        fetch(spec, cache=Cache(), progress=False)
    assert nothing_kept(home)


def test_hash_prefix_in_the_file_name_is_held(files: FileServer, home: Path) -> None:
    spec = hub_spec(sources=(HttpSource(url=files.put("model.pth", BODY)),), sha256_prefix="00000000")
    with pytest.raises(errors.IntegrityError, match="00000000"):
        fetch(spec, cache=Cache(), progress=False)
    fine = replace(spec, sha256_prefix=sha(BODY)[:8])
    assert fetch(fine, cache=Cache(), progress=False).sha256 == sha(BODY)


@pytest.mark.parametrize(
    ("prepare", "kind", "words"),
    [
        (lambda hub: hub.add(REPO, {"other.pth": BODY}), errors.WeightsUnavailableError, "no such file"),
        (lambda hub: None, errors.GatedWeightsError, "no such repository, or it is private"),
        (lambda hub: (hub.add(REPO, {"model.pth": BODY}), hub.gated.add(REPO)), errors.GatedWeightsError, "accept its terms"),
        (
            lambda hub: (hub.add(REPO, {"model.pth": BODY}), hub.fault("resolve", status=401, times=99)),
            errors.GatedWeightsError,
            "HF_TOKEN",
        ),
    ],
    ids=["404", "private", "gated", "401"],
)
def test_refusals_of_the_hub(hub: FakeHub, home: Path, prepare: object, kind: type[Exception], words: str) -> None:
    prepare(hub)  # type: ignore[operator]
    with pytest.raises(kind, match=words) as caught:
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert str(home / "models" / "model" / "original" / "model.pth") in str(caught.value), (
        "must say where to place the file by hand"
    )
    assert nothing_kept(home)


def test_unknown_revision(served: FakeHub) -> None:
    spec = hub_spec(sources=(HubSource(repo=REPO, file="model.pth", revision="v9"),))
    with pytest.raises(errors.WeightsUnavailableError, match="no revision 'v9'"):
        fetch(spec, cache=Cache(), progress=False)


def test_429_then_success(served: FakeHub, waits: list[float]) -> None:
    served.fault("HEAD .*/resolve/", status=429, headers={"Retry-After": "7"})
    assert fetch(hub_spec(), cache=Cache(), progress=False).path.read_bytes() == BODY
    assert waits == [7.0]


def test_503_for_ever(served: FakeHub, waits: list[float], home: Path) -> None:
    served.fault("resolve", status=503, times=1000)
    with pytest.raises(errors.WeightsUnavailableError, match="503, tried several times"):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert waits == [1.0, 2.0, 4.0]
    assert nothing_kept(home)


def test_no_network_and_no_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(errors.WeightsUnavailableError, match=r"connection failed|unreachable"):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert nothing_kept(home)


@pytest.mark.parametrize("variable", ["PRETRAINPS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_mode(served: FakeHub, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(errors.OfflineError, match="pretrainps download model"):
        fetch(hub_spec(), cache=Cache(), progress=False)
    assert served.requests == []
    monkeypatch.delenv(variable)
    fetch(hub_spec(), cache=Cache(), progress=False)
    monkeypatch.setenv(variable, "1")
    assert fetch(hub_spec(), cache=Cache(), progress=False).path.read_bytes() == BODY


def test_offline_finds_the_file_in_the_users_hub_cache(served: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "model.pth")
    fetched = fetch(hub_spec(), cache=Cache(), progress=False, offline=True)
    assert fetched.path.read_bytes() == BODY
    assert fetched.commit == served.heads[REPO]


def test_damaged_file_in_the_users_hub_cache_is_not_taken(served: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(REPO, "model.pth"))
    path.resolve().write_bytes(OTHER)
    assert fetch(hub_spec(), cache=Cache(), progress=False).path.read_bytes() == BODY


def test_next_source_takes_over(hub: FakeHub, files: FileServer) -> None:
    spec = hub_spec(sources=(HubSource(repo="no/where", file="model.pth"), HttpSource(url=files.put("model.pth", BODY))))
    assert fetch(spec, cache=Cache(), progress=False).source.startswith(files.url)


def test_every_source_tried_is_listed(hub: FakeHub, files: FileServer) -> None:
    spec = hub_spec(sources=(HubSource(repo="no/where", file="model.pth"), HttpSource(url=f"{files.url}/gone.pth")))
    with pytest.raises(errors.WeightsUnavailableError, match=r"(?s)no/where.*gone\.pth: not found \(404\)"):
        fetch(spec, cache=Cache(), progress=False)


def test_file_placed_by_hand_is_adopted(home: Path) -> None:
    cache = Cache()
    spec = hub_spec(sha256=sha(BODY))
    cache.original("model").mkdir(parents=True)
    (cache.original("model") / "model.pth").write_bytes(BODY)
    assert fetch(spec, cache=cache, progress=False, offline=True).sha256 == sha(BODY)
    with pytest.raises(errors.IntegrityError):
        fetch(replace(spec, name="wrong", sha256=sha(OTHER)), cache=_with_file(home, "wrong", BODY), progress=False)


def _with_file(home: Path, name: str, body: bytes) -> Cache:
    cache = Cache()
    cache.original(name).mkdir(parents=True)
    (cache.original(name) / "model.pth").write_bytes(body)
    return cache


def test_newer_registry_hash_fetches_the_newer_file(served: FakeHub) -> None:
    fetch(hub_spec(sha256=sha(BODY)), cache=Cache(), progress=False)
    served.add(REPO, {"model.pth": OTHER})
    assert fetch(hub_spec(sha256=sha(OTHER)), cache=Cache(), progress=False).path.read_bytes() == OTHER


def _refuse_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make the file system refuse as a read-only or full one does, also when the tests run as root."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), str(args[0]))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "open", refuse)


def test_read_only_cache_is_fine_to_read(served: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(hub_spec(), cache=Cache(), progress=False)
    _refuse_writes(monkeypatch, errno.EROFS)
    assert fetch(hub_spec(), cache=Cache(), progress=False).sha256 == sha(BODY)


def test_read_only_cache_cannot_be_filled(served: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_writes(monkeypatch, errno.EROFS)
    with pytest.raises(errors.CacheError, match=r"cannot be written.*PRETRAINPS_HOME"):
        fetch(hub_spec(), cache=Cache(), progress=False)


def test_cache_root_that_is_a_file(served: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.CacheError, match="PRETRAINPS_HOME"):
        fetch(hub_spec(), cache=Cache(tmp_path / "file"), progress=False)


def test_disk_full_while_writing(files: FileServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real refusal: the process may not write files of more than 4 kB."""
    import resource
    import signal

    spec = hub_spec(sources=(HttpSource(url=files.put("model.pth", BODY)),))
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(errors.CacheError, match="no space left"):
            fetch(spec, cache=Cache(), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old_handler)
    assert nothing_kept(home)
    assert not list(home.rglob("*.part")), "the space must be given back"
    assert fetch(spec, cache=Cache(), progress=False).path.read_bytes() == BODY


@pytest.mark.parametrize("name", ["../evil.pth", "/etc/passwd", "a/../../b.pth", "C:\\x.pth", "", "a\0b"])
def test_path_traversal_in_a_file_name(name: str) -> None:
    with pytest.raises(errors.RegistryError, match="leaves its folder"):
        RemoteFile(name="x", sources=(HubSource(repo=REPO, file=name),))


@pytest.mark.parametrize("name", ["..", ".", "../../x", "a/b/c", "hf:o/r@../../x", ".hidden", "x" * 100])
def test_any_model_name_is_one_folder_below_the_root(name: str, home: Path) -> None:
    folder = Cache(home).folder(name).resolve()
    assert folder.parent == (home / "models").resolve()


def test_damaged_pin_is_no_licence_to_trust(served: FakeHub) -> None:
    fetch(hub_spec(), cache=Cache(), progress=False)
    Cache().remove("model")
    Cache().pin_path("model").write_text("{")
    with pytest.raises(errors.CacheError, match="damaged"):
        fetch(hub_spec(), cache=Cache(), progress=False)
