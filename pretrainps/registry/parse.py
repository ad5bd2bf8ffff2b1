"""Convert registry entries: from a TOML or JSON mapping to a `ModelSpec`, and back.

It is strict on purpose: an unknown key is a typing error, and to ignore it could lose a hash or a licence without notice.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from pretrainps.errors import RegistryError
from pretrainps.registry.specs import (
    BundledSource,
    DetectorSpec,
    DriveSource,
    FileFormat,
    HeadSpec,
    HttpSource,
    HubSource,
    InputConvention,
    Licence,
    LocalSource,
    ModelSpec,
    Provenance,
    PublishedResult,
    Source,
)

SOURCE_KINDS: Mapping[str, type[Source]] = {
    "hub": HubSource,
    "https": HttpSource,
    "drive": DriveSource,
    "bundled": BundledSource,
    "local": LocalSource,
}
_KIND_OF = {cls: kind for kind, cls in SOURCE_KINDS.items()}
_SECTIONS: Mapping[str, type[Any]] = {
    "input": InputConvention,
    "licence": Licence,
    "provenance": Provenance,
    "head": HeadSpec,
    "detector": DetectorSpec,
    "file": FileFormat,
}

T = TypeVar("T")


def read_registry(path: Path) -> dict[str, ModelSpec]:
    """Read one registry file: a TOML file with one `[models.NAME]` table for each entry.

    Raises:
        RegistryError: the file is no TOML, or an entry does not follow the schema; the message names file, entry and field.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # no text, no TOML, too many brackets or digits
        raise RegistryError(f"registry file {path}: cannot be read ({error}). Correct or remove it.") from error
    stray = sorted(set(document) - {"models"})
    if stray or not isinstance(document.get("models", {}), dict):
        raise RegistryError(f"registry file {path}: expected only [models.NAME] tables, found {stray}.")
    return {name: parse_spec(name, entry, path.name) for name, entry in document.get("models", {}).items()}


def parse_spec(name: str, entry: object, where: str) -> ModelSpec:
    """Build the spec of one entry.

    Args:
        name: The model's name.
        entry: The mapping under `[models.NAME]`, or a result of `spec_to_mapping`.
        where: The file of the entry, for the message.

    Raises:
        RegistryError: a field is missing, unknown, of the wrong type, or has an impossible value.
    """
    label = f"{where}: {name}"
    if not isinstance(entry, Mapping):
        raise RegistryError(f"{label}: expected a table, found {type(entry).__name__}.")
    values: dict[str, Any] = dict(entry)
    for section, cls in _SECTIONS.items():
        if values.get(section) is not None:
            values[section] = build_record(cls, values[section], f"{label}.{section}")
    values["sources"] = tuple(_parse_source(s, f"{label}.sources") for s in _tables(values, "sources", label))
    values["results"] = tuple(build_record(PublishedResult, r, f"{label}.results") for r in _tables(values, "results", label))
    return build_record(ModelSpec, {**values, "name": name}, label)


def spec_to_mapping(spec: ModelSpec) -> dict[str, Any]:
    """Return the entry that `parse_spec` reads as `spec`, for JSON and without the name."""
    mapping = {key: value for key, value in asdict(spec).items() if key != "name"}
    mapping["sources"] = [
        {"kind": _KIND_OF[type(source)], **asdict(source)}  # the fields do not include the class
        for source in spec.sources
    ]
    return {key: _plain(value) for key, value in mapping.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _tables(values: Mapping[str, Any], key: str, label: str) -> list[Any]:
    found = values.get(key, [])
    if not isinstance(found, list | tuple):
        raise RegistryError(f"{label}.{key}: expected an array of tables.")
    return list(found)


def _parse_source(table: object, label: str) -> Source:
    if not isinstance(table, Mapping) or "kind" not in table:
        raise RegistryError(f"{label}: each source needs a kind, one of {', '.join(SOURCE_KINDS)}.")
    cls = SOURCE_KINDS.get(str(table["kind"]))
    if cls is None:
        raise RegistryError(f"{label}: unknown kind {table['kind']!r}; use one of {', '.join(SOURCE_KINDS)}.")
    return build_record(cls, {key: value for key, value in table.items() if key != "kind"}, label)


def build_record(cls: type[T], table: object, label: str) -> T:
    """Make a dataclass from a mapping, after a check of names and types."""
    if isinstance(table, cls):
        return table
    if not isinstance(table, Mapping):
        raise RegistryError(f"{label}: expected a table, found {type(table).__name__}.")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise RegistryError(f"{label}: unknown field(s) {', '.join(unknown)}. Known: {', '.join(known)}.")
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required - set(table))
    if missing:
        raise RegistryError(f"{label}: field(s) {', '.join(missing)} missing.")
    values = {key: _coerce(value, str(known[key].type), f"{label}.{key}") for key, value in table.items()}
    try:
        return cls(**values)
    except RegistryError as error:
        raise error if str(error).startswith(label) else RegistryError(f"{label}: {error}") from error


def literal_choices(annotation: str) -> tuple[Any, ...]:
    """Return the values of a `Literal[...]` annotation; an empty tuple for any other annotation."""
    if not annotation.startswith("Literal["):
        return ()
    choices: tuple[Any, ...] = ast.literal_eval(f"({annotation[len('Literal[') : -1]},)")
    return choices


def _coerce(value: Any, annotation: str, label: str) -> Any:
    """Check a TOML value against a field's annotation; arrays become tuples, and whole numbers floats if needed."""
    if value is None:
        if "None" in annotation:
            return None
        raise RegistryError(f"{label}: expected {annotation}, found nothing.")
    base = annotation.removesuffix(" | None")
    if base.startswith("tuple["):
        if not isinstance(value, list | tuple):
            raise RegistryError(f"{label}: expected an array, found {value!r}.")
        items = base.removeprefix("tuple[").removesuffix("]").split(", ")
        if items[-1] == "...":
            return tuple(_coerce(item, items[0], label) for item in value)
        if len(items) != len(value):
            raise RegistryError(f"{label}: expected {len(items)} values, found {len(value)}.")
        return tuple(_coerce(item, kind, label) for item, kind in zip(value, items, strict=True))
    if base == "bool":
        if not isinstance(value, bool):
            raise RegistryError(f"{label}: expected true or false, found {value!r}.")
        return value
    if (choices := literal_choices(base)) and value not in choices:
        raise RegistryError(f"{label}: expected one of {', '.join(map(repr, choices))}, found {value!r}.")
    expected: dict[str, type | tuple[type, ...]] = {
        "str": str,
        "int": int,
        "float": (int, float),
        "dict[str, Any]": dict,
    }
    if base in expected and (isinstance(value, bool) or not isinstance(value, expected[base])):
        raise RegistryError(f"{label}: expected {base}, found {value!r}.")
    if base != "float":
        return value
    try:
        return float(value)
    except OverflowError as error:
        raise RegistryError(f"{label}: {str(value)[:20]}... is no number that a computer can hold.") from error
