"""Check that a file is the expected one, and the errors for a wrong or unavailable file."""

from __future__ import annotations

import json
import os
import shlex
import zipfile
from pathlib import Path

from pretrainps.download.cache import Cache, companion
from pretrainps.download.contents import files_instead, revisions_instead
from pretrainps.download.kinds import CHECKPOINTS, FileKind, kind_of, safetensors_header
from pretrainps.download.shards import INDEX_SUFFIX
from pretrainps.download.signatures import ADVICE
from pretrainps.download.source import SourceError
from pretrainps.errors import (
    CheckpointFormatError,
    GatedWeightsError,
    IntegrityError,
    OfflineError,
    WeightsUnavailableError,
)
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

FetchTarget = ModelSpec | RemoteFile

SIZE_TOLERANCE = 0.05
"""Allowed difference from the rounded size that a source shows."""


def check_body(wanted: FetchTarget, cache: Cache, path: Path, digest: str) -> None:
    """Check a downloaded body against everything that is known about the file.

    Raises:
        SourceError: it is not the expected file.
    """
    pin = None if wanted.sha256 else cache.pin(wanted.name)
    expected = wanted.sha256 or (pin.sha256 if pin else None)
    if expected is None:
        reason = rejection_reason(wanted, path, digest)
        if reason is not None:
            raise SourceError(reason, integrity=True)
    elif digest != expected:
        since = f"the pin of its first download on {pin.time[:10]}" if pin else "the registry"
        raise SourceError(f"sha256 is {digest}, but {since} says {expected}", integrity=True)


def rejection_reason(wanted: FetchTarget, path: Path, digest: str) -> str | None:
    """Return why a file without a known full sha256 is not the expected one, or `None`, before it is pinned."""
    if wanted.sha256_prefix is not None and not digest.startswith(wanted.sha256_prefix):
        return f"sha256 is {digest}, but its publisher's file name says {wanted.sha256_prefix}..."
    size = path.stat().st_size / 1e6
    if wanted.published_size is not None and abs(size - wanted.published_size) > SIZE_TOLERANCE * wanted.published_size:
        return f"it has {size:.2f} MB, but its source shows {wanted.published_size:g} MB"
    if isinstance(wanted, RemoteFile) and wanted.is_json:
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return "it is no JSON"
        return None
    try:
        kind = kind_of(path)
        if kind is FileKind.SAFETENSORS:
            safetensors_header(path)
    except CheckpointFormatError as error:
        return str(error)
    if kind is FileKind.TORCH_ZIP and not zipfile.is_zipfile(path):
        return "it is truncated"
    return None if kind in CHECKPOINTS else f"it is no checkpoint ({kind.value}): {ADVICE.get(kind, '')}"


def model_name(wanted: FetchTarget) -> str:
    """Return the model's name of a file; for a configuration, the name of its model."""
    return wanted.name.removesuffix(companion(""))


def removal(wanted: FetchTarget, *, forget_pin: bool = False) -> str:
    """Return the command that removes a file, with its companions, from the cache."""
    return f"pretrainps cache remove {shlex.quote(model_name(wanted))}{' --forget-pin' if forget_pin else ''}"


def mismatch(wanted: FetchTarget, where: Source | str, path: Path, got: str, expected: str, by: str) -> IntegrityError:
    """Return the error for a file on this machine that is not the expected one."""
    advice = ADVICE.get(kind_of(path)) if isinstance(where, LocalSource) else None
    if advice is not None:
        return IntegrityError(f"{wanted.name}: {path} is not the file that {by} names: {advice}")
    if isinstance(where, BundledSource):
        remedy = _reinstall(where)
    elif isinstance(where, LocalSource):
        remedy = "Copy it again from where it came, or save the model again."
    else:
        remedy = (
            f"Remove this copy by `{removal(wanted)}` and load again; if you placed it by hand, place the right one. "
            f"If this one is right and the pinned one was not: `{removal(wanted, forget_pin=True)}`, and place it again."
            if "pin" in by
            else f"Remove this copy by `{removal(wanted)}` and load again; if you placed it by hand, place the right one."
        )
    return IntegrityError(
        f"{wanted.name}: {path} ({where}) has sha256\n  {got}, but {by} says\n  {expected}.\n"
        f"The file was changed or damaged. {remedy}"
    )


def unavailable(
    wanted: FetchTarget, cache: Cache, tried: list[tuple[Source, SourceError]], *, offline: bool
) -> WeightsUnavailableError | IntegrityError:
    """Return the error for a file that no source gave. It lists the sources tried, and how to place the file by hand."""
    name = model_name(wanted)
    lines = "\n".join(f"  - {source}: {error}" for source, error in tried)
    pin = None if wanted.sha256 else cache.pin(wanted.name)
    configured = cache.pin(companion(name))
    if any(error.integrity for _, error in tried):
        trust = (
            f"If its authors changed it and you trust the new one, run `{removal(wanted, forget_pin=True)}`, then load again."
        )
        advice = trust if pin or configured else "Try again later; if it stays so, tell its authors."
        return IntegrityError(f"{name}: what came is not the expected file, and was deleted.\n{lines}\n{advice}")
    expected = wanted.sha256 or (pin.sha256 if pin else None)
    first = wanted.sources[0]
    target = cache.original(wanted.name) / first.filename
    addresses = " or ".join(address for source in wanted.sources if (address := _address(source)))
    by_hand = "To place the file by hand: " + (f"fetch {addresses}, and " if addresses else "")
    by_hand += f"put it at {target}" + (f" (sha256 {expected})." if expected else ".")
    if first.filename.endswith(INDEX_SUFFIX):
        by_hand = "To load files fetched by hand, put the index and all its shards into one folder, and load file:FOLDER."
    if isinstance(first, BundledSource):  # a file of a package has no other source
        by_hand = _reinstall(first)
    if offline and any(str(error) == OFFLINE for _, error in tried):
        return OfflineError(
            f"{name} is not in the cache ({cache.root}), and offline mode is on.\n"
            f"Run `pretrainps download {shlex.quote(name)}` where there is a network, or leave offline mode (--offline, "
            f"offline=True, PRETRAINPS_OFFLINE, HF_HUB_OFFLINE). {by_hand}"
        )
    instead = "" if offline else _instead(wanted, tried, pinned=configured is not None)
    kind = GatedWeightsError if any(error.gated for _, error in tried) else WeightsUnavailableError
    return kind(f"{name}: no source gave the file. Tried:\n{lines}\n{instead or by_hand}")


def _instead(wanted: FetchTarget, tried: list[tuple[Source, SourceError]], *, pinned: bool) -> str:
    """Return what to write instead, if the repository exists but not the requested file or revision; else ""."""
    name = model_name(wanted)
    source, error = tried[-1]
    if not isinstance(source, HubSource) or error.absent is None:
        return ""
    if pinned:
        return (
            f"{name} is pinned to its first download, which no longer exists. `{removal(wanted, forget_pin=True)}` makes it "
            "mean the current one."
        )
    if error.absent == "revision":
        return revisions_instead(source, name)
    if not name.startswith("hf:"):
        return ""
    if isinstance(wanted, ModelSpec):
        return "Its configuration is there, its weights are not: has all of it been uploaded? Load it again later."
    found = files_instead(source)
    return f"{name} was not saved by pretrainps. {found}" if wanted.is_json else found


def _reinstall(source: BundledSource) -> str:
    """Return how to restore a file that came with a package."""
    return f"It comes with the package {source.package}: install that again (pip install --force-reinstall)."


def _address(source: Source) -> str | None:
    """Return the file's address for a browser."""
    if isinstance(source, HubSource):
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{endpoint.rstrip('/')}/{source.repo}/resolve/{source.revision}/{source.file}"
    if isinstance(source, DriveSource):
        return f"https://drive.google.com/file/d/{source.id}/view"
    return str(source) if isinstance(source, HttpSource) else None


OFFLINE = "offline mode is on"
"""The reason for a source that was not tried."""
