"""Fetch a model's file: from the cache, else from each source in turn, always verified.

A file gets its name in the cache only after its size and sha256 were checked. If no sha256 is published, the first file that
could be read is pinned, and every later one is compared with the pin.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pretrainps.download.archive import extract_member
from pretrainps.download.cache import HINT, Cache, Record, companion
from pretrainps.download.shards import INDEX_SUFFIX, give_merged
from pretrainps.download.source import SourceError, is_offline
from pretrainps.download.verify import (
    OFFLINE,
    FetchTarget,
    check_body,
    mismatch,
    model_name,
    rejection_reason,
    removal,
    unavailable,
)
from pretrainps.errors import ArgumentError, CacheError, IntegrityError, PretrainPSError
from pretrainps.files import disk_errors, place, sha256_of
from pretrainps.registry.packages import package_file
from pretrainps.registry.specs import BundledSource, DriveSource, HttpSource, HubSource, LocalSource, RemoteFile, Source

BY_HAND = "placed by hand"
"""The `source` in the record of a file that a user placed in the cache."""
logger = logging.getLogger("pretrainps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A verified local file."""

    path: Path
    sha256: str
    source: str
    commit: str | None = None
    cached: bool = False
    """Whether it is a file of the cache, not a local or bundled file."""


def fetch(
    wanted: FetchTarget,
    *,
    cache: Cache,
    offline: bool | None = None,
    progress: bool = True,
    verify: bool = False,
    force: bool = False,
    pin: bool = True,
) -> Fetched:
    """Return a verified local copy of a model's file.

    Args:
        wanted: The file to fetch.
        cache: The cache, searched first and filled afterwards.
        offline: Whether to avoid the network; `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Whether to show a progress bar.
        verify: Whether to hash a cached file again even if its size and time have not changed.
        force: Whether to download again although the file is cached. The pin still holds.
        pin: Whether to pin a file without a known sha256. Callers that will read the file pass false, and call `confirm`
        after the file was read successfully. Until then a copy from the Hub is a draft: each fetch asks the Hub whether
        the file has changed.

    Raises:
        IntegrityError: a file differs from its published sha256, its pin, or its own record.
        OfflineError: the file is not cached, and offline mode is on.
        GatedWeightsError: every source failed, one of them because it needs a login.
        WeightsUnavailableError: every source failed.
        CacheError: the cache cannot be written to, or the disk is full.
        ArgumentError: `force` without a network.
    """
    offline = is_offline(offline)
    if force and offline:
        raise ArgumentError("force means a new download, but offline mode is on. Use one of the two.")
    # a local file that is the first source needs no cache, and a cached copy of the same name is another file
    in_place = isinstance(wanted.sources[0], LocalSource | BundledSource)
    hit = None if force or in_place else _cached(wanted, cache, offline=offline, verify=verify)
    if hit is not None:
        if pin:
            confirm(wanted, hit, cache)
        return hit
    tried: list[tuple[Source, SourceError]] = []
    for source in wanted.sources:
        try:
            if isinstance(source, LocalSource | BundledSource):
                return _in_place(wanted, source)
            with cache.lock(wanted.name):
                # another process may have fetched it during the wait for the lock
                hit = None if force else _cached(wanted, cache, offline=offline, verify=verify)
                fetched = hit or _download(wanted, cache, source, offline=offline, progress=progress)
            if pin or not isinstance(source, HubSource):  # only the Hub can be asked cheaply whether a file has changed
                confirm(wanted, fetched, cache)
            return fetched
        except SourceError as error:
            tried.append((source, error))
    cache.tidy(wanted.name)
    raise unavailable(wanted, cache, tried, offline=offline)


def confirm(wanted: FetchTarget, fetched: Fetched, cache: Cache) -> None:
    """Pin a file that was read successfully, and its configuration, if they have no published hash and no pin.

    Raises:
        CacheError: there is a pin, but it is damaged.
    """
    for name, sha256 in ((wanted.name, fetched.sha256), (companion(wanted.name), None)):
        if (wanted.sha256 is not None and name == wanted.name) or not fetched.cached or cache.pin(name) is not None:
            continue
        if cache.record(name) is None:
            continue
        # a read-only cache can still be read
        with contextlib.suppress(CacheError), cache.lock(name):
            record = cache.record(name)  # another process may have replaced it
            if record is not None and sha256 in (None, record.sha256):
                _pin(name, cache, record)


@contextlib.contextmanager
def remedied(wanted: FetchTarget, fetched: Fetched, cache: Cache) -> Iterator[None]:
    """Add to an error about a cached file how to replace it; otherwise the same copy would be read each time."""
    try:
        yield
    except (ArgumentError, CacheError):
        raise
    except PretrainPSError as error:
        if fetched.cached and (remedy := _remedy(wanted, fetched, cache)):
            error.args = (f"{error}\n{remedy}", *error.args[1:])
        raise


def _remedy(wanted: FetchTarget, fetched: Fetched, cache: Cache) -> str:
    name = shlex.quote(model_name(wanted))
    if sha256_of(fetched.path) != fetched.sha256:
        return f"{fetched.path} was damaged on this machine: `pretrainps download {name} --force` fetches it again."
    if wanted.sha256 is not None:
        return ""
    if cache.pin(wanted.name) is not None:
        return (
            f"It is what {name} was at first download, at {fetched.path}. If its source has repaired it since, run "
            f"`{removal(wanted, forget_pin=True)}`, then load again."
        )
    return f"It is at {fetched.path} and was not pinned: when its source has repaired it, load it again."


def _in_place(wanted: FetchTarget, source: LocalSource | BundledSource) -> Fetched:
    """Return a local or bundled file at its own path; it is hashed, never copied."""
    if isinstance(source, LocalSource):
        path, by = Path(source.path).expanduser().absolute(), "its configuration"
    else:
        path, by = package_file(source.package, source.file, wanted.name), "the registry"
    if not path.is_file():
        what = "" if isinstance(source, LocalSource) else f"{path} "
        raise SourceError(what + ("is a folder" if path.is_dir() else "does not exist"))
    digest = sha256_of(path)
    if wanted.sha256 is not None and digest != wanted.sha256:
        raise mismatch(wanted, source, path, digest, wanted.sha256, by)
    return Fetched(path=path, sha256=digest, source=str(source))


def _cached(wanted: FetchTarget, cache: Cache, *, offline: bool, verify: bool) -> Fetched | None:
    """Return the cached file if it exists and is valid. A file placed by hand is accepted; a draft, while it is current."""
    record = cache.record(wanted.name)
    names = [*([record.file] if record else []), *(source.filename for source in wanted.sources)]
    path = next((p for p in (cache.original(wanted.name) / name for name in names) if p.is_file()), None)
    if path is None:
        return None
    unchanged = record is not None and record.describes(path)
    digest = record.sha256 if record is not None and unchanged and not verify else sha256_of(path)
    pin = None if wanted.sha256 else cache.pin(wanted.name)
    expected = wanted.sha256 or (pin.sha256 if pin else None)
    if expected is not None and digest != expected:
        if wanted.sha256 is not None and record is not None and digest == record.sha256:
            return None  # intact, but from an older registry: fetch the current file
        by = "the pin of its first download" if pin else "the registry"
        raise mismatch(wanted, "the cache", path, digest, expected, by)
    if expected is None and record is not None and digest != record.sha256:
        raise mismatch(wanted, "the cache", path, digest, record.sha256, "the record of its download")
    if expected is None and record is not None and not offline and _outdated(wanted, record, path):
        return None
    if record is None or record.sha256 != digest or not unchanged:
        if expected is None and record is None and (reason := rejection_reason(wanted, path, digest)):
            raise IntegrityError(
                f"{wanted.name}: the file placed at {path} is not the expected one: {reason}. Delete it, then load again."
            )
        # placed by hand, touched, or without a record: it is the right file, so write its record
        stat = path.stat()
        seen = Record(file=path.name, sha256=digest, size=stat.st_size, mtime_ns=stat.st_mtime_ns, source=BY_HAND)
        if record is not None and record.sha256 == digest:
            seen = replace(record, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        record = seen
        with contextlib.suppress(CacheError):  # a read-only cache can still be read
            if expected is None and record.source == BY_HAND:  # there is no source to ask for changes
                _pin(wanted.name, cache, record)
            cache.write_record(wanted.name, record)
    return Fetched(path=path, sha256=digest, source=record.source, commit=record.commit, cached=True)


def _outdated(wanted: FetchTarget, record: Record, path: Path) -> bool:
    """Return whether the Hub now has another file than a copy that was never confirmed."""
    source = next((source for source in wanted.sources if str(source) == record.source), None)
    if not isinstance(source, HubSource):
        return False
    from pretrainps.download import hub

    try:
        # the weights come from the configuration's commit, and may be uploaded later while it is a draft
        commit = record.commit if isinstance(wanted, RemoteFile) and wanted.is_json else None
        return not hub.unchanged(source, path, commit)
    except SourceError as error:
        return error.absent is not None  # without an answer, keep the copy


def _download(wanted: FetchTarget, cache: Cache, source: Source, *, offline: bool, progress: bool) -> Fetched:
    """Fetch the file from one source into the cache. The lock is held."""
    with disk_errors(cache.root, HINT):
        incoming = cache.incoming(wanted.name)
        for leftover in incoming.glob("hub-*"):  # files of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        incoming.mkdir(parents=True, exist_ok=True)
        with _body(wanted, source, incoming, offline=offline, progress=progress) as (path, commit):
            digest = sha256_of(path)
            check_body(wanted, cache, path, digest)
            final = cache.original(wanted.name) / source.filename.removesuffix(INDEX_SUFFIX)
            final.parent.mkdir(parents=True, exist_ok=True)
            place(path, final)
        stat = final.stat()
        record = Record(
            file=final.name,
            sha256=digest,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            source=str(source),
            commit=commit,
        )
        cache.write_record(wanted.name, record)
        shutil.rmtree(incoming, ignore_errors=True)
    return Fetched(path=final, sha256=digest, source=record.source, commit=commit, cached=True)


@contextlib.contextmanager
def _body(
    wanted: FetchTarget, source: Source, incoming: Path, *, offline: bool, progress: bool
) -> Iterator[tuple[Path, str | None]]:
    """Yield the downloaded body and its Hub commit. A partial https body is kept for the next try; a wrong one is deleted."""
    # imported here, because a cached model needs none of the network libraries behind them
    from pretrainps.download import drive, http, hub

    # an archive has its own name, so that a source with the same file name does not resume it
    archived = isinstance(source, HttpSource) and source.member is not None
    part = incoming / f"{source.filename}{'.archive' if archived else ''}.part"
    workspace = incoming / f"hub-{os.getpid()}"
    try:
        if isinstance(source, HubSource):

            def give(one: HubSource) -> tuple[Path, str | None]:
                if not offline:
                    return hub.download(one, workspace, progress=progress, label=wanted.name)
                found = hub.cached(one)
                if found is None:
                    raise SourceError(OFFLINE)
                copy = workspace / one.file
                copy.parent.mkdir(parents=True, exist_ok=True)
                return Path(shutil.copyfile(found[0], copy)), found[1]

            yield give_merged(source, give, workspace) if source.file.endswith(INDEX_SUFFIX) else give(source)
        elif offline:
            raise SourceError(OFFLINE)
        elif isinstance(source, HttpSource):
            http.download(source.url, part, progress=progress, label=wanted.name)
            if source.member is None:
                yield part, None
            else:
                workspace.mkdir(parents=True, exist_ok=True)
                yield _unpacked(part, source.member, workspace / source.filename), None
        elif isinstance(source, DriveSource):
            drive.download(source.id, part, progress=progress, label=wanted.name)
            yield part, None
    except (SourceError, OSError) as error:
        if isinstance(error, OSError) or error.integrity:
            part.unlink(missing_ok=True)  # free the space on a full disk; wrong bytes cannot be resumed
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _unpacked(archive: Path, member: str, target: Path) -> Path:
    """Extract the member of a complete archive, then delete the archive in any case: there is nothing to resume."""
    try:
        extract_member(archive, member, target)
    finally:
        archive.unlink(missing_ok=True)
    return target


def _pin(name: str, cache: Cache, record: Record) -> None:
    """Pin the file and log it."""
    cache.write_pin(name, record)
    logger.warning(
        "%s: no sha256 is published for this file; pinned %s... of its first download (%s%s). "
        "A different file will be refused from now on.",
        name,
        record.sha256[:16],
        record.source,
        f", commit {record.commit[:12]}" if record.commit else "",
    )
