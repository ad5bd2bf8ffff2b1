"""Convert a downloaded file to tensors under native names, and cache the result.

All changes of a key are declared in the spec's `FileFormat`: unwrap, leave out `ignored`, remove `prefix`, rename by `layout`.
The result is written next to the original as a reproducible safetensors file. Its name depends on the file and the declaration,
so that a changed declaration leads to a new conversion.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from pretrainps.downloads import Cache, Fetched
from pretrainps.downloads.cache import Record
from pretrainps.errors import CacheError, CheckpointFormatError, LayoutError
from pretrainps.files import sha256_of
from pretrainps.registry.specs import FileFormat, ModelSpec
from pretrainps.weights.key_layout import KeyLayout
from pretrainps.weights.read import Tensors, read_contents, read_tensors
from pretrainps.weights.report import SideData
from pretrainps.weights.write import read_metadata, write_safetensors

CONVERSION = 2
"""Version of the conversion. Increase it when the code below would convert the same file to other tensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeCheckpoint:
    """A file's tensors under native names."""

    tensors: Tensors
    ignored: tuple[str, ...] = ()
    """The file's keys that were left out, as declared."""
    declared: tuple[str, ...] = ()
    """Those of `ignored` that match a declared pattern; an architecture's own filter may leave out more."""
    unprefixed: tuple[str, ...] = ()
    """The file's keys without the declared prefix; they are undeclared, so they fit no model."""
    side_data: tuple[SideData, ...] = ()
    """Entries of the file that are no tensors."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """Tensors under a model's names, with the origin of each."""

    tensors: Tensors
    sources: dict[str, tuple[str, ...]]
    """A name -> the file's keys from which its tensor was made."""


class Adapter(Protocol):
    """Converts one architecture's files to its names, if this needs the model and a key layout is not enough."""

    fingerprint: str
    """Identifies the conversion: it changes if the same file would be converted to other tensors."""

    def __call__(self, tensors: Mapping[str, Tensor], known: tuple[str, ...]) -> Adapted:
        """Return the tensors under the model's names.

        Args:
            tensors: The tensors of the file, without prefix.
            known: Shell patterns of keys that may be left over.
        """
        ...


def convert(
    path: Path, file: FileFormat, layout: KeyLayout, *, mapped: bool = True, adapter: Adapter | None = None
) -> NativeCheckpoint:
    """Read a file and convert its tensors to native names. It writes nothing.

    Args:
        path: The checkpoint.
        file: The form of its tensors in the file.
        layout: The key layout of its names, `file.layout`.
        mapped: See `read_object`.
        adapter: The architecture's own converter of files that are not in the native layout.

    Raises:
        CheckpointFormatError: unreadable, holding NaN or infinity, or without any tensor that the declared prefix fits.
        LayoutError: the file is not proven to be in the layout.
    """
    contents = read_contents(path, file.wrapper, mapped=mapped)
    found = contents.tensors
    ignored = [key for key in (*found, *contents.side_data) if any(fnmatch.fnmatchcase(key, each) for each in file.ignored)]
    declared = tuple(key for key in ignored if key in found)
    kept = {key: value for key, value in found.items() if key not in set(ignored)}
    if file.prefix and not any(key.startswith(file.prefix) for key in kept):
        raise CheckpointFormatError(
            f"{path}: no tensor has the declared prefix {file.prefix!r}. `pretrainps inspect {shlex.quote(str(path))}` shows "
            "what the file is."
        )
    unprefixed = tuple(key for key in kept if not key.startswith(file.prefix))
    bare = {key.removeprefix(file.prefix): value for key, value in kept.items() if key.startswith(file.prefix)}
    if adapter is not None and file.layout != "native":
        everything = {key.removeprefix(file.prefix): value for key, value in found.items() if key.startswith(file.prefix)}
        adapted = adapter(everything, file.ignored)
        unwanted = {key.removeprefix(file.prefix) for key in ignored}
        bare = {
            key: value
            for key, value in adapted.tensors.items()
            if not set(adapted.sources[key]) <= unwanted and not any(fnmatch.fnmatchcase(key, each) for each in file.ignored)
        }
        used = {source for key in bare for source in adapted.sources[key]}
        left = [file.prefix + key for key in everything if key not in used]
        ignored = [*dict.fromkeys((*ignored, *left))]
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
    return NativeCheckpoint(
        tensors=native,
        ignored=tuple(ignored),
        declared=declared,
        unprefixed=unprefixed,
        side_data=tuple(
            SideData(key, layout.native_name(key.removeprefix(file.prefix)) if key.startswith(file.prefix) else None, what)
            for key, what in contents.side_data.items()
            if key not in set(ignored)
        ),
    )


def native_checkpoint(
    spec: ModelSpec,
    fetched: Fetched,
    layout: KeyLayout,
    cache: Cache,
    *,
    family: str,
    verify: bool = False,
    adapter: Adapter | None = None,
) -> NativeCheckpoint:
    """Return a fetched model's tensors, from the cached conversion if there is one.

    Local and bundled files are read into memory and converted each time, so they work without a writable cache.

    Args:
        spec: The model.
        fetched: Its verified file.
        layout: The key layout of its names.
        cache: Cache for the conversions.
        family: The architecture's family: layouts of two families may have one name.
        verify: Whether to hash a cached conversion again even if its size and time have not changed.
        adapter: See `convert`.

    Raises:
        CheckpointFormatError: see `convert`.
        LayoutError: see `convert`.
    """
    if not fetched.cached:
        return convert(fetched.path, spec.file, layout, mapped=False, adapter=adapter)
    name = f"native-{fetched.sha256[:12]}-{_fingerprint(spec.file, family, adapter)}.safetensors"
    target = cache.folder(spec.name) / name
    cached = _read_conversion(target, fetched, verify=verify)
    if cached is not None:
        return cached
    checkpoint = convert(fetched.path, spec.file, layout, adapter=adapter)
    with contextlib.suppress(CacheError), cache.lock(spec.name):
        _write_conversion(target, checkpoint, spec, fetched)
    return checkpoint


def _fingerprint(file: FileFormat, family: str, adapter: Adapter | None) -> str:
    inputs = json.dumps([CONVERSION, asdict(file), family, adapter.fingerprint if adapter else None], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()[:12]


def _read_conversion(target: Path, fetched: Fetched, *, verify: bool) -> NativeCheckpoint | None:
    """Return a conversion if it is complete and of this file; otherwise it can be made again from the original."""
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
    return NativeCheckpoint(
        tensors=tensors,
        ignored=tuple(notes.get("ignored", ())),
        declared=tuple(notes.get("declared", ())),
        unprefixed=tuple(notes.get("stray", ())),
        side_data=tuple(SideData(*entry) for entry in notes.get("side_data", ())),
    )


def _write_conversion(target: Path, checkpoint: NativeCheckpoint, spec: ModelSpec, fetched: Fetched) -> None:
    for stale in (*target.parent.glob("native-*"), *target.parent.glob(".native-*.tmp")):
        if not stale.name.startswith(f"native-{fetched.sha256[:12]}-"):  # from another file, or left by a killed process
            with contextlib.suppress(OSError):  # some systems do not delete files in use
                stale.unlink()
    notes = {
        "model": spec.name,
        "source_sha256": fetched.sha256,
        "ignored": list(checkpoint.ignored),
        "declared": list(checkpoint.declared),
        "stray": list(checkpoint.unprefixed),
        "side_data": [list(astuple(entry)) for entry in checkpoint.side_data],
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
