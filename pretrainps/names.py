"""What a name stands for: `NAME[@REVISION]`, `timm:NAME`, `file:PATH`, `hf:OWNER/REPO[/FILE][@REVISION]`."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrainps.errors import ArgumentError, CheckpointFormatError, RegistryError, UnknownModelError, WeightsUnavailableError
from pretrainps.registry import ModelSpec, find_spec, parse_spec
from pretrainps.registry.specs import (
    ASSUMED_INPUT,
    FileFormat,
    HubSource,
    Licence,
    LocalSource,
    Provenance,
    RemoteFile,
)
from pretrainps.store import Cache, fetch
from pretrainps.store.cache import companion
from pretrainps.store.files import WEIGHTS

CONFIG = "config.json"
FORMAT = 1
"""Version of the `config.json` that `save_pretrained` writes."""


def info(name: str) -> ModelSpec:
    """Return everything known about a model before its weights are read.

    For registered names this imports no torch and needs no network. `timm:` names ask timm, `file:` and `hf:` names look
    at the file.

    Raises:
        UnknownModelError: no such model; names the nearest.

    Example:
        >>> import pretrainps
        >>> pretrainps.info("resnet50-hybrid").parameters
        23508032
    """
    return resolve(name)


def resolve(
    name: str | Path | ModelSpec,
    *,
    arch: str | None = None,
    ignore: Sequence[str] = (),
    prefix: str | None = None,
    cache: Cache | None = None,
    offline: bool | None = None,
    progress: bool = True,
    force: bool = False,
) -> ModelSpec:
    """Return the spec that a name stands for.

    Args:
        name: A name in any of the forms above; a path is `file:PATH`, and a spec stands for itself.
        arch: The architecture, for a bare weight file whose keys do not tell (a timm model's), or whose backbone alone is
            wanted although it holds a whole detector.
        ignore: Shell patterns of keys in the file that are left out before it is asked what the rest is.
        prefix: What stands before the keys in the file; by default as declared, or found in a bare weight file.
        cache: Where files of `hf:` names are kept.
        offline: Never use the network.
        progress: Show a progress bar.
        force: Download the configuration of an `hf:` name again although it is cached. Its pin still holds.

    Raises:
        UnknownModelError: no such model or architecture.
        CheckpointFormatError: the file is no checkpoint, or of no known architecture.
        WeightsUnavailableError: the file or repository is not there.
    """
    spec = _resolved(name, _Wanted(arch, tuple(ignore), prefix), cache, offline, progress, force)
    return spec if prefix is None else replace(spec, file=replace(spec.file, prefix=prefix))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the caller knows of a bare weight file."""

    arch: str | None
    ignore: tuple[str, ...]
    prefix: str | None


def _resolved(
    name: str | Path | ModelSpec, wanted: _Wanted, cache: Cache | None, offline: bool | None, progress: bool, force: bool
) -> ModelSpec:
    if isinstance(name, ModelSpec):
        return name
    if isinstance(name, Path):
        name = f"file:{name}"
    kind, colon, rest = name.partition(":")
    if wanted.arch is not None and kind not in ("file", "hf"):
        raise ArgumentError(f"arch= is for bare weight files; what {name!r} is, is known.")
    if colon and kind == "timm":
        from pretrainps.backbones.timm_adapter import timm_spec

        return timm_spec(rest)
    if colon and kind == "file":
        return _local(Path(rest).expanduser(), wanted)
    if colon and kind == "hf":
        return _hub(name, rest, wanted, cache or Cache(), offline, progress, force)
    if colon:
        raise UnknownModelError(f"unknown kind of name {kind!r} in {name!r}. Known: timm:, file:, hf:, or a registered name.")
    return find_spec(name)


def _local(path: Path, wanted: _Wanted) -> ModelSpec:
    if path.is_dir():
        config, weights = path / CONFIG, path / WEIGHTS
        for file in (config, weights):
            if not file.is_file():
                raise WeightsUnavailableError(
                    f"{path} has no {file.name}. Give a folder written by save_pretrained, or a weight file."
                )
        spec = _saved(_read_json(config), str(config))
        return replace(spec, name=f"file:{path}", sources=(LocalSource(path=str(weights)),))
    if not path.is_file():
        raise WeightsUnavailableError(f"file:{path}: there is no such file. Check the path.")
    return _recognised(f"file:{path}", path, LocalSource(path=str(path)), wanted)


def _hub(name: str, rest: str, wanted: _Wanted, cache: Cache, offline: bool | None, progress: bool, force: bool) -> ModelSpec:
    path, _, revision = rest.partition("@")
    parts = path.split("/")
    if len(parts) < 2 or not all(parts):
        raise UnknownModelError(f"{name!r} is no Hub name. Write hf:owner/repository, with @REVISION if you want one.")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    source = HubSource(repo=repo, file=file or CONFIG, revision=revision or "main")
    remote = RemoteFile(name=name if file else companion(name), sources=(source,), is_json=not file)
    fetched = fetch(remote, cache=cache, offline=offline, progress=progress, force=force)
    if file:
        return _recognised(name, fetched.path, source, wanted)
    spec = _saved(_read_json(fetched.path), f"{name}/{CONFIG}")
    # weights of the commit that the configuration came from, whatever the branch says by now
    weights = replace(source, file=WEIGHTS, revision=fetched.commit or source.revision)
    return replace(spec, name=name, sources=(weights,))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not readable as JSON ({error}). Save the model again.") from error


def _saved(config: Any, where: str) -> ModelSpec:
    """Read the configuration that `save_pretrained` wrote."""
    found = config.get("pretrainps") if isinstance(config, Mapping) else None
    if not isinstance(found, Mapping) or "model" not in found:
        raise UnknownModelError(
            f"{where} was not written by pretrainps. For a bare weight file on the Hub write hf:owner/repository/FILE."
        )
    if found.get("format") != FORMAT:
        raise RegistryError(
            f"{where} has format {found.get('format')!r}, this version reads {FORMAT}. Update: pip install -U pretrainps."
        )
    spec = parse_spec(str(found.get("name", "unnamed")), found["model"], where)
    # save_pretrained writes whole models under our own names: whatever a configuration declares beyond that does not count
    return replace(spec, file=FileFormat())


def _recognised(name: str, path: Path, source: HubSource | LocalSource, wanted: _Wanted) -> ModelSpec:
    """Make a spec for a bare weight file, from its own metadata or from its keys."""
    from pretrainps.detector_recognition import identify, unrecognised
    from pretrainps.inspection import look

    seen = look(path)
    if seen.problem:
        raise CheckpointFormatError(f"{path}: {seen.problem}")
    if seen.saved_by_us is not None:
        return replace(_saved({"pretrainps": seen.saved_by_us}, str(path)), name=name, sources=(source,), sha256=seen.sha256)
    shapes = {
        key: shape for key, shape in seen.shapes.items() if not any(fnmatch.fnmatchcase(key, each) for each in wanted.ignore)
    }
    found = identify(shapes, seen.wrapper, arch=wanted.arch, prefix=wanted.prefix)
    if found is None and wanted.arch is None:
        raise CheckpointFormatError(f"{path}: {unrecognised(shapes)}")
    arch = found.arch if found else str(wanted.arch)
    file = found.file if found else FileFormat(wrapper=seen.wrapper)
    detector, head = (found.detector, found.head) if found else (None, None)
    return ModelSpec(
        name=name,
        title=path.name,
        task="detector" if detector else "backbone",
        arch=arch,
        detector=detector,
        head=head,
        summary="A weight file recognised by its keys, which cannot tell where strides lie or how pixels go in.",
        file=file,
        sources=(source,),
        sha256=seen.sha256,
        input=ASSUMED_INPUT,
        licence=Licence(id="other", stated_in="nowhere: the file says nothing"),
        provenance=Provenance(authors="unknown", paper="unknown", url="unknown"),
    )
