"""Find a model by name in the package's own registry files and in those of plug-ins.

A plug-in is any installed distribution with an entry point in the group `pretrainps.registry`. The entry point's value is
`PACKAGE:FILE`, a TOML file inside the package. The file is data; no code of the plug-in runs.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from pretrainps.errors import ArgumentError, RegistryError, UnknownModelError
from pretrainps.registry.packages import package_file
from pretrainps.registry.parse import read_registry
from pretrainps.registry.specs import BundledSource, HubSource, ModelSpec, Task

PLUGIN_GROUP = "pretrainps.registry"


@cache
def registry() -> dict[str, ModelSpec]:
    """Return every registered spec by name, the package's own first.

    Raises:
        RegistryError: a registry file is invalid, or two files have the same name of a model.
    """
    specs: dict[str, ModelSpec] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        _merge(specs, read_registry(path), path.name)
    for point in entry_points(group=PLUGIN_GROUP):
        package, _, file = point.value.partition(":")
        origin = f"plug-in {point.name!r} ({point.value})"
        _merge(specs, read_registry(package_file(package.strip(), file.strip(), origin)), origin)
    return specs


def _merge(specs: dict[str, ModelSpec], new: dict[str, ModelSpec], origin: str) -> None:
    clash = sorted(specs.keys() & new.keys())
    if clash:
        raise RegistryError(f"{origin}: {', '.join(clash)} is registered already. Rename the entry or remove the plug-in.")
    specs.update(new)


def list_models(pattern: str = "*", *, task: Task | None = None) -> list[str]:
    """Return the names of registered models, in natural order. Imports no torch.

    Args:
        pattern: Shell-style wildcard: `"resnet*"`, `"*-hybrid"`.
        task: Only `"backbone"` or only `"detector"` models.

    Example:
        >>> import pretrainps
        >>> pretrainps.list_models("*-hybrid")
        ['resnet18-hybrid', 'resnet50-hybrid', 'shufflenetv1-hybrid']
    """
    if task not in (None, "backbone", "detector"):
        raise ArgumentError(f"task must be 'backbone' or 'detector', not {task!r}.")
    specs = registry()
    names = [n for n in fnmatch.filter(specs, pattern) if task is None or specs[n].task == task]
    return sorted(names, key=_natural)


def shipped_model(task: Task = "detector") -> str:
    """Return the name of a model that comes with the package and needs no download. Imports no torch.

    Args:
        task: What it does. Of several such models it is the first one in the registry's files.

    Raises:
        UnknownModelError: no such model comes with the package.
    """
    for name, spec in registry().items():
        if spec.task == task and all(isinstance(each, BundledSource) for each in spec.sources):
            return name
    raise UnknownModelError(f"no {task} comes with this package. `pretrainps list` shows all names.")


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name, `NAME` or `NAME@REVISION` (a Hub branch, tag or commit).

    Raises:
        UnknownModelError: there is no such entry; the message names the nearest.
    """
    base, at, revision = name.partition("@")
    spec = registry().get(base)
    if spec is None:
        raise UnknownModelError(*_unknown(name, base), suggestions=tuple(_nearest(base)))
    if not at:
        return spec
    hub_sources = tuple(replace(s, revision=revision) for s in spec.sources if isinstance(s, HubSource))
    if not revision or not hub_sources:
        reason = "names no revision" if not revision else f"asks for a revision, but {base} is not on the Hub"
        raise UnknownModelError(f"{name!r} {reason}. Use {base!r}, or 'hf:owner/repository/FILE@REVISION'.")
    # another revision is another file, so the hash of the default one does not apply
    return replace(spec, name=name, sources=hub_sources, sha256=None, sha256_prefix=None)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _nearest(name: str) -> list[str]:
    close = difflib.get_close_matches(name.replace("_", "-").lower(), registry(), n=3, cutoff=0.5)
    return close or [n for n in registry() if name and n.startswith(name.split("-")[0].lower())][:3]


def _unknown(name: str, base: str) -> tuple[str]:
    near = _nearest(base)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    try:
        exists = bool(name) and Path(name).exists()
    except (OSError, ValueError):  # a name that no file can have
        exists = False
    if exists or "/" in name or "\\" in name or name.endswith((".pth", ".pt", ".tar", ".safetensors")):
        on_hub = not exists and re.fullmatch(r"\w[\w.-]*(/[\w.-]+)+", base)
        hint = f"For a file on this machine write 'file:{name}'" + (f", for the Hub 'hf:{name}'. " if on_hub else ". ")
    return (f"unknown model {name!r}. {hint}`pretrainps list` shows all names.",)
