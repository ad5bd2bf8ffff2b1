"""`--set optim.lr=0.001`: change single fields of nested settings. Each value is read by the type of its field."""

from __future__ import annotations

import ast
import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pretrainps.errors import ArgumentError
from pretrainps.training.engine.renamed import current_name

Settings = TypeVar("Settings")
_Tree = dict[str, "str | _Tree"]
"""Values as text, by the parts of their dotted names."""


def override(settings: Settings, assignments: Sequence[str]) -> Settings:
    """Return settings with some fields changed.

    A mapping within the settings takes any name. Its values are read as Python writes them (`600`, `0.5`, `true`, `'max'`), and
    are checked by the code that uses them.

    Args:
        settings: A dataclass whose fields may be dataclasses or mappings themselves.
        assignments: One `NAME=VALUE` each, such as `optim.lr=0.001`; later ones win. `none` empties a field that may be empty,
            and several values are separated by commas.

    Raises:
        ArgumentError: no such field (the message names the nearest), a value of another type, or one that is not allowed.

    Example:
        >>> from pretrainps.training.engine.settings import OptimSettings
        >>> override(OptimSettings(), ["milestones=8,11", "clip_norm=none"]).milestones
        (8.0, 11.0)
    """
    tree: _Tree = {}
    known = setting_names(settings)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ArgumentError(f"--set {assignment}: expected name=value, for example --set optim.lr=0.001.")
        name = name.strip()
        _plant(tree, (name if name in known else current_name(name)).split("."), text.strip())
    found: Settings = _changed(settings, tree, "", settings)
    return found


def setting_names(settings: object) -> list[str]:
    """Return the dotted names of all fields that hold a value, in order."""
    names = []
    for name, value in _members(settings):
        inner = setting_names(value)
        names += [f"{name}.{each}" for each in inner] if inner else [name]
    return names


def _members(settings: object) -> list[tuple[str, Any]]:
    if is_dataclass(settings) and not isinstance(settings, type):
        return [(each.name, getattr(settings, each.name)) for each in fields(settings)]
    return list(settings.items()) if isinstance(settings, Mapping) else []


def _plant(tree: _Tree, path: list[str], text: str) -> None:
    for name in path[:-1]:
        below = tree.setdefault(name, {})
        if isinstance(below, str):
            raise ArgumentError(f"--set {name}={below}: {name} holds several settings; name one of them.")
        tree = below
    tree[path[-1]] = text


def _changed(settings: Any, tree: _Tree, prefix: str, root: object) -> Any:
    """Return settings with the changes of a tree. Those of one record are made at once, for its fields may limit each other."""
    members = dict(_members(settings))
    changes: dict[str, Any] = {}
    for name, change in tree.items():
        whole = prefix + name
        if isinstance(settings, Mapping) and isinstance(change, str):
            changes[name] = plain_value(change)
            continue
        if name not in members:
            raise ArgumentError(_unknown(_first_of(whole, change), root))
        value = members[name]
        if not isinstance(change, str):
            changes[name] = _changed(value, change, f"{whole}.", root)
        elif is_dataclass(value) or isinstance(value, Mapping):
            inside = ", ".join(setting_names(value)) or "names of your own"
            raise ArgumentError(f"--set {whole}: {name} holds several settings; name one of them: {inside}.")
        else:
            changes[name] = _read(change, get_type_hints(type(settings))[name], whole)
    return {**settings, **changes} if isinstance(settings, Mapping) else replace(settings, **changes)


def _first_of(whole: str, change: str | _Tree) -> str:
    """Return the whole name of a change's first field."""
    while not isinstance(change, str):
        name, change = next(iter(change.items()))
        whole += f".{name}"
    return whole


def _unknown(whole: str, root: object) -> str:
    known = setting_names(root)
    near = difflib.get_close_matches(whole, known, n=1, cutoff=0.5)
    if not near:  # a right name under the wrong heading, or under none
        last = whole.rsplit(".", 1)[-1]
        near = [each for each in known if each.rsplit(".", 1)[-1] == last][:1]
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"--set {whole}: there is no such setting. {hint}There are: {', '.join(known)}."


def _read(text: str, kind: Any, name: str) -> Any:
    """Read a value by its type: numbers, bool, str, Path, Literal, tuples, and any of them or nothing."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        if text.lower() in ("none", "null", "") and type(None) in inner:
            return None
        return _read(text, next(each for each in inner if each is not type(None)), name)
    if origin is Literal:
        for choice in inner:
            if text == str(choice):
                return choice
        raise ArgumentError(f"--set {name}={text}: expected one of {', '.join(map(str, inner))}.")
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
        if inner[-1] is not Ellipsis and len(parts) != len(inner):
            raise ArgumentError(f"--set {name}={text}: expected {len(inner)} values separated by commas.")
        kinds = [inner[0]] * len(parts) if inner[-1] is Ellipsis else list(inner)
        return tuple(_read(part, each, name) for part, each in zip(parts, kinds, strict=True))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ArgumentError(f"--set {name}={text}: expected true or false.")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ArgumentError(f"--set {name}={text}: expected {'a whole number' if kind is int else 'a number'}.") from None
    if kind in (str, Path):
        return kind(text)
    raise ArgumentError(f"--set {name}: a {kind} cannot be given on the command line; set it in a recipe.")


def plain_value(text: str) -> Any:
    """Return the value of a text as Python writes it: `600`, `0.5`, `true`, `'max'`, `1,2`; any other text as it is."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
