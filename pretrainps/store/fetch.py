"""From a spec to a verified local file: the cache first, then each source in turn.

A file gets its name in the cache only after its size and sha256 were found right. Where nobody published a sha256, the
first download pins it, and every later one is compared with the pin.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pretrainps.errors import (
    CacheError,
    GatedWeightsError,
    IntegrityError,
    OfflineError,
    WeightsUnavailableError,
)
from pretrainps.registry.packages import package_file
from pretrainps.registry.specs import (
    BundledSource,
    DriveSource,
    HttpSource,
    HubSource,
    LocalSource,
    ModelSpec,
    RemoteFile,
    Source,
)
from pretrainps.store.cache import Cache, Record
from pretrainps.store.files import disk_errors, place, sha256_of
from pretrainps.store.source import SourceError, is_offline, looks_like_html

logger = logging.getLogger("pretrainps")

SIZE_TOLERANCE = 0.05
"""How far a file may be from the rounded size its source shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A verified local file."""

    path: Path
    sha256: str
    source: str
    commit: str | None = None
    cached: bool = False
    """Whether it lies in the cache, under the cache's control (not a local or bundled file)."""


def fetch(
    spec: ModelSpec | RemoteFile,
    *,
    cache: Cache,
    offline: bool | None = None,
    progress: bool = True,
    verify: bool = False,
    force: bool = False,
) -> Fetched:
    """Return the spec's file, verified.

    Args:
        spec: What to fetch.
        cache: Where to look first and to put it.
        offline: Never use the network; `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Show a progress bar.
        verify: Hash a cached file again even if its size and time have not changed.
        force: Download again although it is cached. The pin still holds.

    Raises:
        IntegrityError: a file differs from its published sha256, its pin, or its own record.
        OfflineError: not cached, and the network is off-limits.
        GatedWeightsError: every source failed, one for want of a login.
        WeightsUnavailableError: every source failed.
        CacheError: the cache cannot be written to, or the disk is full.
    """
    in_place = _in_place(spec)
    if in_place is not None:
        return in_place
    if not force:
        hit = _cached(spec, cache, verify=verify)
        if hit is not None:
            return hit
    with cache.lock(spec.name):
        # another process may have fetched it while this one waited for the lock
        hit = None if force else _cached(spec, cache, verify=verify)
        return hit or _download(spec, cache, offline=is_offline(offline), progress=progress)


def _in_place(spec: ModelSpec | RemoteFile) -> Fetched | None:
    """Serve local and bundled files from where they lie; they are hashed, never copied."""
    for source in spec.sources:
        if isinstance(source, LocalSource):
            path = Path(source.path).expanduser().absolute()
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise WeightsUnavailableError(f"{spec.name}: the file {path} {what}. Check the path.")
        elif isinstance(source, BundledSource):
            path = package_file(source.package, source.file, spec.name)
            if not path.is_file():
                continue
        else:
            continue
        digest = sha256_of(path)
        if spec.sha256 is not None and digest != spec.sha256:
            raise IntegrityError(_mismatch(spec, str(source), path, digest, spec.sha256, "the registry"))
        return Fetched(path=path, sha256=digest, source=str(source))
    return None


def _cached(spec: ModelSpec | RemoteFile, cache: Cache, *, verify: bool) -> Fetched | None:
    """Return the cached file if it is there and right. A file placed by hand is adopted."""
    record, expected, pin = cache.record(spec.name), spec.sha256, None
    if expected is None:
        pin = cache.pin(spec.name)
        expected = pin.sha256 if pin else None
    path = _cache_path(spec, cache, record)
    if not path.is_file():
        return None
    if record is not None and record.describes(path) and not verify:
        digest = record.sha256
    else:
        digest = sha256_of(path)
        if record is not None and digest != record.sha256:
            raise IntegrityError(_mismatch(spec, "the cache", path, digest, record.sha256, "the record of its download"))
    if expected is not None and digest != expected:
        if record is not None and spec.sha256 is not None:
            return None  # intact, but of an older release of the registry: fetch the one it names now
        by = "the registry" if spec.sha256 else "the pin of its first download"
        raise IntegrityError(_mismatch(spec, "the cache", path, digest, expected, by))
    if record is None or not record.describes(path):
        source = record.source if record else "placed by hand"
        _check_announced(spec, path, digest)
        record = Record(
            file=path.name, sha256=digest, size=path.stat().st_size, mtime_ns=path.stat().st_mtime_ns, source=source
        )
        with contextlib.suppress(CacheError):  # a read-only cache is fine to read from
            cache.write_record(spec.name, record)
            _pin(spec, cache, record)
    return Fetched(path=path, sha256=digest, source=record.source, commit=record.commit, cached=True)


def _cache_path(spec: ModelSpec | RemoteFile, cache: Cache, record: Record | None) -> Path:
    folder = cache.folder(spec.name)
    named = [record.file] if record else []
    candidates = [folder / name for name in [*named, *(s.filename for s in spec.sources)]]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _download(spec: ModelSpec | RemoteFile, cache: Cache, *, offline: bool, progress: bool) -> Fetched:
    tried: list[tuple[Source, SourceError]] = []
    with disk_errors(cache.root):
        incoming = cache.incoming(spec.name)
        for leftover in incoming.glob("hub-*"):  # of a process that was killed; ours is the only live one, we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        incoming.mkdir(parents=True, exist_ok=True)
        for source in spec.sources:
            try:
                with _body(spec, source, incoming, offline=offline, progress=progress) as (path, commit):
                    digest = sha256_of(path)
                    _check(spec, cache, source, path, digest)
                    final = cache.folder(spec.name) / source.filename
                    place(path, final)
            except SourceError as error:
                tried.append((source, error))
                continue
            stat = final.stat()
            record = Record(
                file=final.name,
                sha256=digest,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                source=str(source),
                commit=commit,
            )
            _pin(spec, cache, record)
            cache.write_record(spec.name, record)
            shutil.rmtree(incoming, ignore_errors=True)
            return Fetched(path=final, sha256=digest, source=str(source), commit=commit, cached=True)
    raise _unavailable(spec, cache, tried, offline=offline)


@contextlib.contextmanager
def _body(
    spec: ModelSpec | RemoteFile, source: Source, incoming: Path, *, offline: bool, progress: bool
) -> Iterator[tuple[Path, str | None]]:
    """Yield the downloaded body and its Hub commit. A partial https body stays for the next try; a bad one does not."""
    # imported here, because a cached model needs none of the network libraries behind them
    from pretrainps.store import drive, http, hub

    part = incoming / f"{source.filename}.part"
    workspace = incoming / f"hub-{os.getpid()}"
    try:
        if offline:
            found = hub.cached(source) if isinstance(source, HubSource) else None
            if found is None:
                raise SourceError("offline")
            workspace.mkdir(parents=True, exist_ok=True)
            yield Path(shutil.copyfile(found[0], workspace / source.filename)), found[1]
        elif isinstance(source, HubSource):
            yield hub.download(source, workspace, progress=progress, label=spec.name)
        elif isinstance(source, HttpSource):
            http.download(source.url, part, progress=progress, label=spec.name)
            yield part, None
        elif isinstance(source, DriveSource):
            drive.download(source.id, part, progress=progress, label=spec.name)
            yield part, None
    except (SourceError, OSError) as error:
        if isinstance(error, OSError) or error.integrity:
            part.unlink(missing_ok=True)  # on a full disk give the space back; wrong bytes are no beginning of right ones
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _check(spec: ModelSpec | RemoteFile, cache: Cache, source: Source, path: Path, digest: str) -> None:
    """Raise a `SourceError` unless the body is the expected one."""
    pin = None if spec.sha256 else cache.pin(spec.name)
    expected = spec.sha256 or (pin.sha256 if pin else None)
    if expected is not None:
        if digest != expected:
            since = "the registry" if spec.sha256 else f"the pin of its first download on {pin.time[:10] if pin else ''}"
            raise SourceError(f"sha256 is {digest}, but {since} says {expected}", integrity=True)
        return
    try:
        _check_announced(spec, path, digest)
    except IntegrityError as error:
        raise SourceError(str(error), integrity=True) from error


def _check_announced(spec: ModelSpec | RemoteFile, path: Path, digest: str) -> None:
    """Without a full sha256, hold the file against what little is known of it."""
    if spec.sha256_prefix is not None and not digest.startswith(spec.sha256_prefix):
        raise IntegrityError(f"sha256 is {digest}, but its publisher's file name says {spec.sha256_prefix}...")
    size = path.stat().st_size
    with path.open("rb") as file:
        if looks_like_html(file.read(512)):
            raise IntegrityError("it is a web page, not a weight file")
    if spec.published_size is not None and abs(size / 1e6 - spec.published_size) > SIZE_TOLERANCE * spec.published_size:
        raise IntegrityError(f"it has {size / 1e6:.2f} MB, but its source shows {spec.published_size:g} MB")


def _pin(spec: ModelSpec | RemoteFile, cache: Cache, record: Record) -> None:
    if spec.sha256 is not None or cache.pin(spec.name) is not None:
        return
    replace(record, mtime_ns=0).write(cache.pin_path(spec.name))
    logger.warning(
        "%s: nobody published a sha256 for this file; pinned %s... of its first download (%s%s). "
        "A different file will be refused from now on.",
        spec.name,
        record.sha256[:16],
        record.source,
        f", commit {record.commit[:12]}" if record.commit else "",
    )


def _mismatch(spec: ModelSpec | RemoteFile, where: str, path: Path, got: str, expected: str, by: str) -> str:
    return (
        f"{spec.name}: {path} ({where}) has sha256\n  {got}, but {by} says\n  {expected}.\n"
        f"The file was changed or damaged. If it is a copy in the cache, remove it with `pretrainps cache remove {spec.name}` "
        "and load again; if you placed it by hand, place the right one."
    )


def _unavailable(
    spec: ModelSpec | RemoteFile, cache: Cache, tried: list[tuple[Source, SourceError]], *, offline: bool
) -> WeightsUnavailableError | IntegrityError:
    lines = "\n".join(f"  - {source}: {error}" for source, error in tried)
    expected = spec.sha256
    if expected is None and (pin := cache.pin(spec.name)) is not None:
        expected = pin.sha256
    target = cache.folder(spec.name) / spec.sources[0].filename
    by_hand = f"To place the file by hand: put it at {target}" + (f" (sha256 {expected})." if expected else ".")
    if any(error.integrity for _, error in tried):
        return IntegrityError(
            f"{spec.name}: what came is not the expected file, and was deleted.\n{lines}\n"
            "If its authors changed it and you trust the new one, run "
            f"`pretrainps cache remove {spec.name} --forget-pin`, then load again."
        )
    if offline:
        return OfflineError(
            f"{spec.name} is not in the cache ({cache.root}), and offline mode is on.\n"
            f"Run `pretrainps download {spec.name}` where there is a network, or unset PRETRAINPS_OFFLINE and "
            f"HF_HUB_OFFLINE. {by_hand}"
        )
    kind = GatedWeightsError if any(error.gated for _, error in tried) else WeightsUnavailableError
    return kind(f"{spec.name}: no source gave the file. Tried:\n{lines}\n{by_hand}")
