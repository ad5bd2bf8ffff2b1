"""Resolve names of models to specs: `NAME[@REVISION]`, `timm:NAME`, `file:PATH`, `hf:OWNER/REPO[/FILE][@REVISION]`.

Pasted addresses of the Hub, and paths, work too (`pretrainps.downloads.addresses`).
"""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrainps.downloads import Cache, fetch
from pretrainps.downloads.addresses import HubName, canonical, hub_name
from pretrainps.downloads.cache import companion
from pretrainps.downloads.contents import files_instead
from pretrainps.downloads.fetch import remedied
from pretrainps.downloads.kinds import folder_advice
from pretrainps.downloads.shards import INDEXES, index_in
from pretrainps.downloads.source import is_offline
from pretrainps.errors import (
    ArgumentError,
    CheckpointFormatError,
    PretrainPSError,
    RegistryError,
    UnknownModelError,
    WeightsUnavailableError,
)
from pretrainps.files import CONFIG as CONFIG
from pretrainps.files import FORMAT as FORMAT
from pretrainps.files import WEIGHTS
from pretrainps.registry import ModelSpec, find_spec, parse_spec
from pretrainps.registry.specs import (
    ASSUMED_INPUT,
    PRETRAINING,
    FileFormat,
    HubSource,
    Licence,
    LocalSource,
    Provenance,
    RemoteFile,
)

if TYPE_CHECKING:
    from pretrainps.hub.runs import RunWeights


def info(name: str) -> ModelSpec:
    """Return everything known about a model before its weights are read.

    For registered names this does not import torch and needs no network. For `timm:` names it asks timm, and for `file:` and
    `hf:` names it inspects the file.

    Raises:
        UnknownModelError: there is no such model; the message names the nearest.

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
    """Return the spec of a name.

    Args:
        name: A name in any of the forms above, a path, or a spec, which is returned.
        arch: The architecture of a bare weight file, if its keys do not show it (a timm model). For a file with a whole
        detector, the architecture of its backbone, to get the backbone alone.
        ignore: Shell patterns of keys in the file that are left out before the file is recognized.
        prefix: Prefix of the keys in the file; by default the declared one, or found in a bare weight file.
        cache: Cache for the files of `hf:` names.
        offline: Whether to avoid the network.
        progress: Whether to show a progress bar.
        force: Whether to download the configuration of an `hf:` name again even if it is cached. Its pin still holds.

    Raises:
        UnknownModelError: there is no such model or architecture.
        CheckpointFormatError: the file is no checkpoint, or of no known architecture.
        WeightsUnavailableError: the file or repository does not exist.
    """
    spec = _resolved(name, _Wanted(arch, tuple(ignore), prefix), cache, offline, progress, force)
    return spec if prefix is None else replace(spec, file=replace(spec.file, prefix=prefix))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The caller's arguments about a bare weight file."""

    arch: str | None
    ignore: tuple[str, ...]
    prefix: str | None


def _resolved(
    name: str | Path | ModelSpec, wanted: _Wanted, cache: Cache | None, offline: bool | None, progress: bool, force: bool
) -> ModelSpec:
    if isinstance(name, ModelSpec):
        return name
    name = f"file:{name}" if isinstance(name, Path) else canonical(name)
    kind, colon, rest = name.partition(":")
    if wanted.arch is not None and kind not in ("file", "hf"):
        raise ArgumentError(f"arch= is for bare weight files; what {name!r} is, is known.")
    if colon and kind == "timm":
        from pretrainps.backbones.timm_adapter import timm_spec

        return timm_spec(rest)
    if colon and kind == "file":
        return _local(Path(rest).expanduser(), wanted)
    if colon and kind == "hf":
        return _hub(hub_name(name), wanted, cache or Cache(), offline, progress, force)
    if colon:
        raise UnknownModelError(
            f"unknown kind of name {kind!r} in {name!r}. Known: timm:NAME, file:PATH, hf:owner/repository, or a "
            "registered name (`pretrainps list`)."
        )
    return find_spec(name)


def _local(path: Path, wanted: _Wanted) -> ModelSpec:
    from pretrainps.hub.runs import find_weights

    try:
        trained = find_weights(path)
        if trained is not None:
            return _of_a_run(trained, wanted)
        if path.name == CONFIG and (path.parent / WEIGHTS).is_file():
            path = path.parent
        if path.is_dir() and not (path / WEIGHTS).is_file() and (index := index_in(path)) is not None:
            path = index
        if path.is_dir():
            return _local_folder(path, wanted)
        if not path.is_file():
            raise WeightsUnavailableError(f"file:{path}: there is no such file. Check the path.")
        return _recognized(f"file:{path}", path, LocalSource(path=str(path)), wanted)
    except PretrainPSError:
        raise
    except OSError as error:
        raise WeightsUnavailableError(f"file:{path} cannot be read ({error.strerror or error}). Check the path.") from error


def _of_a_run(trained: RunWeights, wanted: _Wanted) -> ModelSpec:
    name, source = f"file:{trained.name}", LocalSource(path=str(trained.path))
    if trained.config is None:
        return _recognized(name, trained.path, source, wanted)
    spec = _saved({"pretrainps": trained.config}, str(trained.path), wanted)
    return replace(spec, name=name, sources=(source,), summary=f"{spec.summary} Here: {trained.words}.")


def _local_folder(path: Path, wanted: _Wanted) -> ModelSpec:
    config, weights = path / CONFIG, path / WEIGHTS
    for file in (config, weights):
        if not file.is_file():
            advice = f"it has no {file.name}. Give a folder written by save_pretrained, or a weight file."
            raise WeightsUnavailableError(f"{path}: {folder_advice(path) or advice}")
    spec = _saved(_read_json(config), str(config), wanted)
    return replace(spec, name=f"file:{path}", sources=(LocalSource(path=str(weights)),))


def _hub(asked: HubName, wanted: _Wanted, cache: Cache, offline: bool | None, progress: bool, force: bool) -> ModelSpec:
    name = str(asked)
    source = HubSource(repo=asked.repo, file=asked.file or CONFIG, revision=asked.revision or "main")
    remote = RemoteFile(name=name if asked.file else companion(name), sources=(source,), is_json=not asked.file)
    try:
        fetched = fetch(remote, cache=cache, offline=offline, progress=progress, force=force, pin=False)
        with remedied(remote, fetched, cache):
            if asked.file:
                return _recognized(name, fetched.path, source, wanted)
            config = _read_json(fetched.path)
            if not _is_ours(config):
                instead = "" if is_offline(offline) else files_instead(source)
                instead = instead or "Write hf:owner/repository/FILE for a bare weight file."
                raise UnknownModelError(f"{name} was not saved by pretrainps: its {CONFIG} is another library's. {instead}")
            spec = _saved(config, f"{name}/{CONFIG}", wanted)
    except (WeightsUnavailableError, UnknownModelError) as error:  # not ours; it may hold plain weights in shards
        if asked.file:
            raise
        index = replace(source, file=INDEXES[0])
        shards = RemoteFile(name=name, sources=(index,))
        try:
            fetched = fetch(shards, cache=cache, offline=offline, progress=progress, force=force, pin=False)
        except WeightsUnavailableError:
            raise error from None
        with remedied(shards, fetched, cache):
            return _recognized(name, fetched.path, index, wanted)
    # the weights come from the configuration's commit, even if the branch has moved
    weights = replace(source, file=WEIGHTS, revision=fetched.commit or source.revision)
    return replace(spec, name=name, sources=(weights,))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not readable as JSON ({error}). Save the model again.") from error


def _is_ours(config: Any) -> bool:
    found = config.get("pretrainps") if isinstance(config, Mapping) else None
    return isinstance(found, Mapping) and "model" in found


def _saved(config: Any, where: str, wanted: _Wanted) -> ModelSpec:
    """Read the configuration that `save_pretrained` wrote."""
    if not _is_ours(config):
        raise UnknownModelError(f"{where} was not written by pretrainps. Give the weight file itself: file:PATH.")
    found = config["pretrainps"]
    if found.get("format") != FORMAT:
        raise RegistryError(
            f"{where} has format {found.get('format')!r}, this version reads {FORMAT}. Update: pip install -U pretrainps."
        )
    spec = parse_spec(str(found.get("name", "unnamed")), found["model"], where)
    if wanted.arch is not None:
        alone = (
            " `pretrainps export-weights NAME --layout native -o FILE` writes a bare file; arch= takes its backbone alone."
            if spec.detector is not None
            else ""
        )
        raise ArgumentError(f"arch= is for bare weight files; {where} says itself what it is. Leave arch= out.{alone}")
    # save_pretrained writes whole models under our own names: whatever a configuration declares beyond that does not count
    # but for a pre-training's checkpoints, which hold the backbone in two halves
    if found.get("layout") == PRETRAINING:
        from pretrainps.weights.key_layouts import OF_PRETRAINING

        return replace(spec, file=FileFormat(layout=PRETRAINING, ignored=OF_PRETRAINING.heads))
    return replace(spec, file=FileFormat())


def _recognized(name: str, path: Path, source: HubSource | LocalSource, wanted: _Wanted) -> ModelSpec:
    """Return a spec for a bare weight file, from its own metadata or from its keys."""
    from pretrainps.weights.inspect import look
    from pretrainps.weights.recognize_detector import identify, unrecognized

    seen = look(path)
    # the hash of a file on the Hub was not published, only computed; it is pinned after the file was loaded
    sha256 = seen.sha256 if isinstance(source, LocalSource) else None
    if seen.problem:
        raise CheckpointFormatError(f"{path}: {seen.problem}")
    if seen.saved_by_us is not None:
        saved = _saved({"pretrainps": seen.saved_by_us}, str(path), wanted)
        return replace(saved, name=name, sources=(source,), sha256=sha256)
    shapes = {
        key: shape for key, shape in seen.shapes.items() if not any(fnmatch.fnmatchcase(key, each) for each in wanted.ignore)
    }
    found = identify(shapes, seen.wrapper, arch=wanted.arch, prefix=wanted.prefix)
    if found is None and wanted.arch is None:
        raise CheckpointFormatError(f"{path}: {unrecognized(shapes, shlex.quote(str(path)))}")
    arch = found.arch if found else str(wanted.arch)
    file = found.file if found else FileFormat(wrapper=seen.wrapper)
    if arch.startswith("timm:") and not (found and found.loads and not found.extra):  # timm itself may convert it
        file = FileFormat(layout="timm", wrapper=seen.wrapper, prefix=found.file.prefix if found else wanted.prefix or "")
    detector, head = (found.detector, found.head) if found else (None, None)
    return ModelSpec(
        name=name,
        title=path.name,
        task="detector" if detector else "backbone",
        arch=arch,
        detector=detector,
        head=head,
        summary="A weight file recognized by its keys, which cannot tell where strides lie or how pixels go in.",
        file=file,
        sources=(source,),
        sha256=sha256,
        input=ASSUMED_INPUT,
        licence=Licence(id="other", stated_in="nowhere: the file says nothing"),
        provenance=Provenance(authors="unknown", paper="unknown", url="unknown"),
    )
