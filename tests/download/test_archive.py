"""Extraction of one file from an archive: the right file, complete, and no other path is written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps import errors
from pretrainps.download import Cache, archive, fetch
from pretrainps.download.archive import extract_member
from pretrainps.download.source import SourceError
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import HttpSource
from tests.support.server import FileServer
from tests.support.weights import safetensors_bytes

BODY = safetensors_bytes(bytes(range(256)) * 400)
OTHER = safetensors_bytes(bytes(reversed(range(256))) * 400)
MEMBER = "logs/cuhk_sysu/checkpoint.pth"
FILES: dict[str, bytes] = {"logs/cuhk_sysu/args.json": b"{}", MEMBER: BODY, "logs/prw/checkpoint.pth": OTHER}

Entry = tuple[str, bytes] | tarfile.TarInfo


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    """Return an entry that is no regular file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def tar_of(*entries: Entry, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def zipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


TAR = tar_of(*FILES.items())
TAR_GZ = zipped(TAR)


def extracted(folder: Path, body: bytes, member: str = MEMBER) -> bytes:
    """Extract in a separate folder; only the target may appear in it, also after an error."""
    inside = folder / "inside"
    inside.mkdir()
    (folder / "a.tar").write_bytes(body)
    try:
        extract_member(folder / "a.tar", member, inside / "out")
    except BaseException:
        assert not list(inside.iterdir()), "nothing half-written"
        raise
    assert [p.name for p in inside.iterdir()] == ["out"]
    assert sorted(p.name for p in folder.iterdir() if p.name != "home") == ["a.tar", "inside"]
    return (inside / "out").read_bytes()


@pytest.mark.parametrize("pack", [bytes, zipped], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("stored_as", [MEMBER, f"./{MEMBER}"])
def test_member_comes_whole_and_alone(tmp_path: Path, pack: Callable[[bytes], bytes], form: int, stored_as: str) -> None:
    folder = special("logs", tarfile.DIRTYPE)
    entries = [(stored_as if name == MEMBER else name, body) for name, body in FILES.items()]
    assert extracted(tmp_path, pack(tar_of(folder, *entries, form=form))) == BODY


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    name = f"logs/{'x' * 300}/\N{SNOWMAN}.pth"
    assert extracted(tmp_path, tar_of((name, BODY), form=form), f"./{name}") == BODY


@pytest.mark.parametrize("near", ["checkpoint.pth", f"/{MEMBER}", f"../{MEMBER}", f"x/{MEMBER}", MEMBER.upper(), f"{MEMBER} "])
def test_names_are_matched_exactly(tmp_path: Path, near: str) -> None:
    with pytest.raises(SourceError, match=r"has no logs/cuhk_sysu/checkpoint\.pth; it has, among others, '") as caught:
        extracted(tmp_path, tar_of((near, BODY), ("readme", b"")))
    assert caught.value.integrity and repr(near) in str(caught.value) and "'readme'" in str(caught.value)


@pytest.mark.parametrize("evil", ["../../evil.pth", "/tmp/evil-of-pretrainps.pth", "inside/../../evil.pth"])
def test_other_members_are_never_written(tmp_path: Path, evil: str) -> None:
    entries = [(evil, b"x"), special("link", tarfile.SYMTYPE, "/etc"), ("link/passwd", b"x"), (MEMBER, BODY)]
    assert extracted(tmp_path, tar_of(*entries)) == BODY
    assert not Path("/tmp/evil-of-pretrainps.pth").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
    ],
)
@pytest.mark.parametrize("after_a_file", [False, True])
def test_only_a_regular_file_will_do(tmp_path: Path, kind: bytes, words: str, after_a_file: bool) -> None:
    """Also if a link follows a file of that name: tar would leave the link."""
    target = special(MEMBER, kind, "logs/prw/checkpoint.pth" if kind == tarfile.LNKTYPE else "/etc/passwd")
    before: list[Entry] = [(MEMBER, BODY)] if after_a_file else []
    with pytest.raises(SourceError, match=f"is no file in the archive, but a .*{words}") as caught:
        extracted(tmp_path, tar_of(*before, target))
    assert caught.value.integrity


def test_of_two_with_one_name_the_last_counts(tmp_path: Path) -> None:
    assert extracted(tmp_path, tar_of((MEMBER, OTHER * 2), (f"./{MEMBER}", BODY))) == BODY


@pytest.mark.parametrize("body", [TAR, TAR_GZ], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, body: bytes, share: float) -> None:
    with pytest.raises(SourceError, match=r"damaged|no tar archive") as caught:
        extracted(tmp_path, body[: int(share * len(body))].rstrip(b"\0"))
    assert caught.value.integrity


def test_truncated_between_two_members(tmp_path: Path) -> None:
    """Without the mark of the archive's end, there may have been another file of that name."""
    with pytest.raises(SourceError, match="damaged"):
        extracted(tmp_path, tar_of((MEMBER, BODY))[: 512 + -(-len(BODY) // 512) * 512])


@pytest.mark.parametrize("where", ["content", "checksum", "trailing"])
def test_gzip_checksum_is_compared(tmp_path: Path, where: str) -> None:
    stored = bytearray(gzip.compress(TAR, compresslevel=0, mtime=0))
    if where == "trailing":
        stored += b"garbage"
    else:
        stored[len(stored) // 2 if where == "content" else -6] ^= 1
    with pytest.raises(SourceError, match="damaged"):
        extracted(tmp_path, bytes(stored))


def test_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    """`tarfile` alone would stop there without an error."""
    second = tar_of((MEMBER, OTHER))
    first = tar_of((MEMBER, BODY))[: -(-len(BODY) // 512) * 512 + 512]
    with pytest.raises(SourceError, match="damaged"):
        extracted(tmp_path, first + second[:150] + b"9" + second[151:])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>quota</html>", "web page"),
        (BODY, "safetensors"),
        (b"PK\x03\x04" + bytes(600), "zip"),
        (b"\xff" * 5000, "unknown"),
        (zipped(b"<html></html>"), "gzip file"),
        (zipped(b""), "gzip file"),
    ],
    ids=["empty", "html", "safetensors", "zip", "noise", "gzipped html", "gzipped nothing"],
)
def test_no_archive_at_all(tmp_path: Path, body: bytes, kind: str) -> None:
    with pytest.raises(SourceError, match=rf"no tar archive \(.*{kind}") as caught:
        extracted(tmp_path, body)
    assert caught.value.integrity


def test_archive_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file at all"):
        extracted(tmp_path, tar_of())


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_MEMBER", len(BODY) - 1)
    with pytest.raises(SourceError, match=r"checkpoint\.pth would take"):
        extracted(tmp_path, TAR)


@pytest.mark.parametrize("ballast", ["before", "after"])
def test_a_bomb_beside_the_member_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ballast: str) -> None:
    monkeypatch.setattr(archive, "LARGEST_ARCHIVE", 10 * len(BODY))
    bomb = bytes(20 * len(BODY))
    with pytest.raises(SourceError, match="the archive would take"):
        extracted(tmp_path, zipped(tar_of(("bomb", bomb), (MEMBER, BODY)) if ballast == "before" else TAR + bomb * 9))


@pytest.mark.parametrize("size", [b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7, b"\xff" * 12], ids=["huge", "negative"])
@pytest.mark.parametrize("kind", [b"0", b"x", b"L"], ids=["file", "pax header", "long name"])
def test_impossible_sizes_end_at_once(tmp_path: Path, size: bytes, kind: bytes) -> None:
    header = bytearray(tarfile.TarInfo(MEMBER).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(SourceError):
        extracted(tmp_path, bytes(header) + bytes(10240))


def test_a_chain_of_headers_of_headers(tmp_path: Path) -> None:
    link = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(SourceError, match="damaged"):
        extracted(tmp_path, link.tobuf(tarfile.GNU_FORMAT) * 3000 + TAR)


@settings(max_examples=150)
@given(
    edits=st.lists(st.tuples(st.integers(0, 3 * 512), st.integers(0, 255)), max_size=4),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_any_damage_ends_in_the_member_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], form: int
) -> None:
    """Small entries, so that most bytes are those of headers, long names and pax records."""
    body = bytearray(tar_of(("d\N{SNOWMAN}" * 60, b"12"), ("m", b"34"), ("e" * 120, b"56"), form=form))
    for offset, value in edits:
        body[offset] = value
    folder = tmp_path_factory.mktemp("damaged")
    try:
        assert len(extracted(folder, bytes(body), "m")) <= 10240
    except SourceError as error:
        assert error.integrity


def test_full_disk_is_the_disks_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archive, "_copy", refuse)
    with pytest.raises(OSError, match="No space") as caught:
        extracted(tmp_path, TAR)
    assert caught.value.errno == errno.ENOSPC


# fetched from a server


def archived(url: str, **changes: object) -> ModelSpec:
    source = HttpSource(url=url, member=MEMBER)
    base = replace(find_spec("resnet50-hybrid"), name="model", sources=(source,), published_size=None)
    return replace(base, **changes)


def kept(home: Path) -> list[str]:
    files = (p for p in home.rglob("*") if p.is_file() and "locks" not in p.parts)
    return sorted(p.relative_to(home).as_posix() for p in files)


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_the_member_is_what_is_named_hashed_pinned_and_recorded(files: FileServer, home: Path) -> None:
    url = files.put("logs.tar.gz", TAR_GZ)
    fetched = fetch(archived(url), cache=Cache(), progress=False)
    assert fetched.path.name == "checkpoint.pth" and fetched.path.read_bytes() == BODY
    assert fetched.source == f"{MEMBER} out of the archive {url}"
    assert json.loads(Cache().pin_path("model").read_text())["sha256"] == fetched.sha256 == sha(BODY)
    assert kept(home) == ["models/model/original/checkpoint.pth", "models/model/record.json", "pins/model.json"]

    files.requests.clear()
    again = fetch(archived(url), cache=Cache(), progress=False, verify=True)
    assert again.cached and again.source == fetched.source and files.requests == []


def test_published_size_and_hash_are_the_members(files: FileServer) -> None:
    url = files.put("logs.tar.gz", TAR_GZ)
    fetch(archived(url, published_size=len(BODY) / 1e6, sha256_prefix=sha(BODY)[:8]), cache=Cache(), progress=False)
    with pytest.raises(errors.IntegrityError, match=sha(BODY)):
        fetch(archived(url, name="other", sha256=sha(TAR_GZ)), cache=Cache(), progress=False)


def test_repacked_archive_of_the_same_file_is_welcome_and_another_file_is_not(files: FileServer, home: Path) -> None:
    url = files.put("logs.tar.gz", TAR_GZ)
    fetch(archived(url), cache=Cache(), progress=False)
    files.put("logs.tar.gz", tar_of((f"./{MEMBER}", BODY)))
    assert fetch(archived(url), cache=Cache(), progress=False, force=True).sha256 == sha(BODY)
    files.put("logs.tar.gz", tar_of((MEMBER, OTHER)))
    with pytest.raises(errors.IntegrityError, match="pin of its first download"):
        fetch(archived(url), cache=Cache(), progress=False, force=True)
    assert kept(home) == ["models/model/original/checkpoint.pth", "models/model/record.json", "pins/model.json"]


def test_cut_off_download_resumes(files: FileServer, home: Path) -> None:
    large = gzip.compress(TAR, compresslevel=0, mtime=0)
    url = files.put("logs.tar.gz", large)
    files.fault("GET", cut=len(large) * 3 // 4)
    files.fault("GET", status=404)
    with pytest.raises(errors.WeightsUnavailableError, match=r"checkpoint\.pth out of the archive http"):
        fetch(archived(url), cache=Cache(), progress=False)
    (part,) = (home / "models").rglob("*.part")
    there = part.stat().st_size
    assert 0 < there < len(large)
    files.requests.clear()
    assert fetch(archived(url), cache=Cache(), progress=False).sha256 == sha(BODY)
    assert [r.headers.get("range") for r in files.requests] == [f"bytes={there}-"]


@pytest.mark.parametrize(
    "bad",
    [TAR_GZ[:-20], b"no archive", tar_of(("other.pth", BODY)), tar_of(special(MEMBER, tarfile.SYMTYPE, "/etc/passwd"))],
    ids=["damaged", "no archive", "no such member", "link"],
)
def test_bad_archive_is_thrown_away_and_not_resumed(files: FileServer, home: Path, bad: bytes) -> None:
    url = files.put("logs.tar.gz", bad)
    with pytest.raises(errors.IntegrityError, match=r"logs\.tar\.gz: "):
        fetch(archived(url), cache=Cache(), progress=False)
    assert kept(home) == []
    files.put("logs.tar.gz", TAR_GZ)
    files.requests.clear()
    assert fetch(archived(url), cache=Cache(), progress=False).sha256 == sha(BODY)
    assert "range" not in files.requests[0].headers


def test_web_page_instead_of_the_archive(files: FileServer, home: Path) -> None:
    with pytest.raises(errors.WeightsUnavailableError, match="web page"):
        fetch(archived(files.put("logs.tar.gz", b"<!DOCTYPE html>")), cache=Cache(), progress=False)
    assert not list(home.rglob("checkpoint.pth"))


def test_member_that_is_no_checkpoint_is_not_pinned(files: FileServer, home: Path) -> None:
    with pytest.raises(errors.IntegrityError, match="no checkpoint"):
        fetch(archived(files.put("logs.tar", tar_of((MEMBER, b"hello")))), cache=Cache(), progress=False)
    assert kept(home) == []


def test_next_source_takes_over_where_the_path_inside_is_another(files: FileServer) -> None:
    spec = archived(files.put("logs.tar.gz", zipped(tar_of((MEMBER.removeprefix("logs/"), BODY)))))
    short = HttpSource(url=f"{files.url}/logs.tar.gz", member=MEMBER.removeprefix("logs/"))
    assert fetch(replace(spec, sources=(*spec.sources, short)), cache=Cache(), progress=False).source == str(short)


def test_file_placed_by_hand_is_adopted(files: FileServer) -> None:
    spec = archived(f"{files.url}/logs.tar.gz")
    with pytest.raises(errors.WeightsUnavailableError) as caught:
        fetch(spec, cache=Cache(), progress=False)
    target = Cache().original("model") / "checkpoint.pth"
    assert f"fetch {MEMBER} out of the archive {files.url}/logs.tar.gz, and put it at {target}." in str(caught.value)
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    assert fetch(spec, cache=Cache(), progress=False, offline=True).sha256 == sha(BODY)


@pytest.mark.parametrize("member", ["../evil.pth", "/etc/passwd", "a/../../b.pth", "C:\\x.pth", "", "a\0b", "."])
def test_member_names_that_leave_their_folder(member: str) -> None:
    with pytest.raises(errors.RegistryError, match="leaves its folder"):
        replace(archived("https://example.org/a.tar"), sources=(HttpSource(url="https://example.org/a.tar", member=member),))


def test_the_source_names_the_member_and_hides_a_password() -> None:
    source = HttpSource(url="https://me:secret@example.org/a.tar.gz", member="x/w.pth")
    assert str(source) == "x/w.pth out of the archive https://example.org/a.tar.gz" and source.filename == "w.pth"
