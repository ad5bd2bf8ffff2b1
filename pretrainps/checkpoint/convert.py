"""From a downloaded file to tensors under the package's own names, converted once and kept.

Everything that happens to a key on the way is declared in the spec's `FileFormat`: unwrap, leave out `ignored`, strip
`prefix`, rename by `layout`. The result is written beside the original as a reproducible safetensors file, named after
what went into it, so that a changed declaration leads to a new conversion.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pretrainps.checkpoint.layouts import layout_of
from pretrainps.checkpoint.read import Tensors, read_tensors
from pretrainps.checkpoint.write import read_metadata, write_safetensors
from pretrainps.errors import CacheError, CheckpointFormatError, LayoutError
from pretrainps.registry.specs import FileFormat, ModelSpec
from pretrainps.store import Cache, Fetched
from pretrainps.store.cache import Record
from pretrainps.store.files import sha256_of

CONVERSION = 2
"""Raised whenever the code below would turn the same file into other tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeCheckpoint:
    """A file's tensors under the package's own names."""

    tensors: Tensors
    ignored: tuple[str, ...] = ()
    """The file's keys that were left out, as declared."""
    stray: tuple[str, ...] = ()
    """The file's keys without the declared prefix: nothing is declared of them, so they fit no model."""


def convert(path: Path, file: FileFormat, family: str, *, mapped: bool = True) -> NativeCheckpoint:
    """Read a file and bring its tensors under the package's own names. Writes nothing.

    Args:
        path: The checkpoint.
        file: How its tensors lie in it.
        family: The architecture's family, which knows the key layouts.
        mapped: See `read_object`.

    Raises:
        CheckpointFormatError: unreadable, holding NaN or infinity, or without any tensor that the declared prefix fits.
        LayoutError: the family does not know the layout, or the file is not proven to be in it.
    """
    layout = layout_of(family, file.layout)
    found = read_tensors(path, file.wrapper, mapped=mapped)
    ignored = [key for key in found if any(fnmatch.fnmatchcase(key, pattern) for pattern in file.ignored)]
    kept = {key: value for key, value in found.items() if key not in set(ignored)}
    if file.prefix and not any(key.startswith(file.prefix) for key in kept):
        raise CheckpointFormatError(
            f"{path}: no tensor has the declared prefix {file.prefix!r}. `pretrainps inspect {path}` shows what the file is."
        )
    stray = tuple(key for key in kept if not key.startswith(file.prefix))
    bare = {key.removeprefix(file.prefix): value for key, value in kept.items() if key.startswith(file.prefix)}
    broken = [key for key, value in bare.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise CheckpointFormatError(
            f"{path}: {len(broken)} tensors hold NaN or infinity ({', '.join(broken[:4])}): its training went wrong, or it is "
            "damaged. Use an earlier checkpoint."
        )
    try:
        native = layout.read(bare)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error}") from error
    except RuntimeError as error:  # a reordering met a tensor of another shape
        raise CheckpointFormatError(f"{path}: its tensors do not have the shapes of the key layout {layout.name!r}.") from error
    return NativeCheckpoint(tensors=native, ignored=tuple(ignored), stray=stray)


def native_checkpoint(
    spec: ModelSpec, fetched: Fetched, family: str, cache: Cache, *, verify: bool = False
) -> NativeCheckpoint:
    """Return a fetched model's tensors, from the cached conversion if there is one.

    Local and bundled files are read into memory and converted each time; a cache that cannot be written to is not needed
    either.

    Args:
        spec: The model.
        fetched: Its verified file.
        family: The architecture's family, which knows the key layouts.
        cache: Where conversions are kept.
        verify: Hash a cached conversion again even though its size and time have not changed.

    Raises:
        CheckpointFormatError: see `convert`.
        LayoutError: see `convert`.
    """
    if not fetched.cached:
        return convert(fetched.path, spec.file, family, mapped=False)
    name = f"native-{fetched.sha256[:12]}-{_fingerprint(spec.file, family)}.safetensors"
    target = cache.folder(spec.name) / name
    cached = _read_conversion(target, fetched, verify=verify)
    if cached is not None:
        return cached
    checkpoint = convert(fetched.path, spec.file, family)
    with contextlib.suppress(CacheError), cache.lock(spec.name):
        _write_conversion(target, checkpoint, spec, fetched)
    return checkpoint


def _fingerprint(file: FileFormat, family: str) -> str:
    inputs = json.dumps([CONVERSION, asdict(file), family], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()[:12]


def _read_conversion(target: Path, fetched: Fetched, *, verify: bool) -> NativeCheckpoint | None:
    """Return a conversion that is whole and of this very file; the original is at hand to make it again otherwise."""
    try:
        record = Record.read(target.with_suffix(".json"))
        if record is None or ((verify or not record.describes(target)) and sha256_of(target) != record.sha256):
            return None
        notes = read_metadata(target)
        if notes.get("source_sha256") != fetched.sha256:
            return None
        tensors = read_tensors(target)
    except (CheckpointFormatError, OSError):  # another process may be removing it
        return None
    return NativeCheckpoint(tensors=tensors, ignored=tuple(notes.get("ignored", ())), stray=tuple(notes.get("stray", ())))


def _write_conversion(target: Path, checkpoint: NativeCheckpoint, spec: ModelSpec, fetched: Fetched) -> None:
    for stale in (*target.parent.glob("native-*"), *target.parent.glob(".native-*.tmp")):
        if not stale.name.startswith(f"native-{fetched.sha256[:12]}-"):  # of another file, or left by a killed process
            with contextlib.suppress(OSError):  # some systems do not delete what is in use
                stale.unlink()
    notes = {
        "model": spec.name,
        "source_sha256": fetched.sha256,
        "ignored": list(checkpoint.ignored),
        "stray": list(checkpoint.stray),
    }
    write_safetensors(checkpoint.tensors, target, notes)
    stat = target.stat()
    Record(
        file=target.name,
        sha256=sha256_of(target),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        source=f"converted from {fetched.path.name}",
    ).write(target.with_suffix(".json"))
