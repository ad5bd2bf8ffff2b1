"""Read annotations in JSON and JSON lines; errors name the file, the line and the field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrainps.data.records import FAR
from pretrainps.data.text_files import read_lines, read_text
from pretrainps.errors import DatasetError

Record = Mapping[str, Any]
"""A JSON object."""


def read_json(path: Path) -> Record:
    """Return the object that a file holds.

    Raises:
        DatasetError: the file is missing, no UTF-8, no JSON (with line and column), or no object.
    """
    return as_object(_parse(read_text(path), str(path)), where=str(path))


def read_json_lines(path: Path) -> Iterator[tuple[str, Record]]:
    """Yield the object in each line that is not blank, after its location: "path, line 7".

    Raises:
        DatasetError: the file is missing or no UTF-8; or a line is no JSON or no object.
    """
    for where, line in read_lines(path):
        yield where, as_object(_parse(line, where), where=where)


def as_object(value: object, *, where: str) -> Record:
    """Return a value after a check that it is an object.

    Raises:
        DatasetError: it is something else.
    """
    if not isinstance(value, dict):
        raise DatasetError(f"{where}: expected an object {{...}}, not {_short(value)}.")
    return value


def get_text(record: Record, field: str, *, where: str) -> str:
    """Return a field that is a text of at least one character.

    Raises:
        DatasetError: it is missing or something else.
    """
    value = record.get(field)
    if not isinstance(value, str) or not value:
        raise _wrong(record, field, "a text", where)
    return value


def get_whole(record: Record, field: str, *, where: str, default: int | None = None) -> int:
    """Return a field that is a whole number of at most 64 bits; JSON's true and false are no numbers.

    Args:
        record: The object.
        field: The name of the field.
        where: Location of the object, for the message.
        default: Value of a missing field, if it may be missing.

    Raises:
        DatasetError: it is missing or something else.
    """
    value = record.get(field, default)
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise _wrong(record, field, "a whole number", where)
    return value


def get_length(record: Record, field: str, *, where: str) -> int:
    """Return a field that is an image's height or width, in whole pixels.

    Raises:
        DatasetError: it is missing or something else.
    """
    value = get_whole(record, field, where=where)
    if not 1 <= value < FAR:
        raise _wrong(record, field, "a number of pixels, at least 1", where)
    return value


def get_list(record: Record, field: str, *, where: str, default: list[Any] | None = None) -> list[Any]:
    """Return a field that is a list; a missing one is `default`, if that is given.

    Raises:
        DatasetError: it is missing or something else.
    """
    value = record.get(field, default)
    if not isinstance(value, list):
        raise _wrong(record, field, "a list", where)
    return value


def get_object(record: Record, field: str, *, where: str) -> Record:
    """Return a field that is an object; a missing one is an empty object.

    Raises:
        DatasetError: it is something else.
    """
    value = record.get(field, {})
    if not isinstance(value, dict):
        raise _wrong(record, field, "an object", where)
    return value


def get_number(record: Record, field: str, *, where: str) -> float:
    """Return a field that is a finite number.

    Raises:
        DatasetError: it is missing or something else.
    """
    value: Any = record.get(field)
    if not is_coordinate(value):
        raise _wrong(record, field, "a finite number", where)
    return float(value)


def get_xywh(record: Record, field: str, *, where: str) -> list[float]:
    """Return a field that is a box as left, top, width, height.

    Raises:
        DatasetError: it is missing or is not four finite numbers.
    """
    value = record.get(field)
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_coordinate, value)):
        raise _wrong(record, field, "four finite numbers: left, top, width, height", where)
    return value


def is_coordinate(value: Any) -> bool:
    """Whether a value from JSON is a finite number that can be a coordinate in an image."""
    return type(value) in (int, float) and -FAR < value < FAR  # also false for NaN, which is not JSON but Python reads it


def _wrong(record: Record, field: str, wanted: str, where: str) -> DatasetError:
    if field not in record:
        return DatasetError(f"{where}: the field {field!r} is missing. It must be {wanted}.")
    return DatasetError(f"{where}: {field!r} must be {wanted}, not {_short(record[field])}.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if "\n" not in text else f"{where}, line {error.lineno}"
        raise DatasetError(
            f"{place}, column {error.colno}: no JSON ({error.msg}). Is the file cut off? Fetch it again."
        ) from error
    except (RecursionError, ValueError) as error:  # brackets without end, numbers of thousands of digits
        raise DatasetError(f"{where}: not the JSON of an annotation ({error}).") from error
