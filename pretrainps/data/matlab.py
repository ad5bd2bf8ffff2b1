"""Read MATLAB annotation files safely, and write them as the data sets' authors did.

`scipy.io.loadmat` gives arrays in arrays in arrays. Readers that squeeze them break when a list holds a single entry.
Readers that add the numbers overflow, because MATLAB stores small numbers as unsigned bytes. The functions here return lists,
text and float64 instead. They do not know the file that a value came from: `within` puts its name into their errors.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrainps.data.matlab_elements import check_elements
from pretrainps.errors import DatasetError, MissingPackageError


def load_matlab(path: Path, *variables: str) -> NDArray[Any]:
    """Return the first of the named variables that a file holds.

    Args:
        path: The .mat file, with its suffix (v4 to v7; not v7.3, which is HDF5).
        variables: Names by which the variable is known, the preferred one first.

    Raises:
        DatasetError: the file is missing, damaged, cut off or of version 7.3, or holds none of the variables.
        MissingPackageError: scipy is not installed.
    """
    scipy_io = _scipy_io()
    if not path.is_file():
        raise DatasetError(f"{path} is missing.")
    try:
        with warnings.catch_warnings():
            check_elements(path.read_bytes(), variables)
            warnings.simplefilter("ignore")  # an unreadable variable comes as text in place of an array, checked below
            found = scipy_io.loadmat(path, variable_names=list(variables), appendmat=False)
            others = [] if found.keys() & set(variables) else [row[0] for row in scipy_io.whosmat(path, appendmat=False)]
    except NotImplementedError as error:
        raise DatasetError(f"{path} is a MATLAB file of version 7.3. Save it with -v7.") from error
    except Exception as error:  # scipy raises many types of error, from its parsers and from zlib
        raise DatasetError(_damaged(path, error)) from error
    value = next((found[name] for name in variables if name in found), None)
    if value is None:
        raise DatasetError(f"{path} holds no variable {' or '.join(variables)}, but {', '.join(others) or 'none at all'}.")
    if not isinstance(value, np.ndarray):
        raise DatasetError(_damaged(path, value))
    return value


def _scipy_io() -> Any:
    try:
        return importlib.import_module("scipy.io")
    except ImportError as error:
        raise MissingPackageError("MATLAB files are read and written with scipy: pip install 'pretrainps[train]'") from error


def _damaged(path: Path, why: object) -> str:
    return f"{path} is damaged or cut off, or no MATLAB file ({why}). Unpack or download it again."


@contextmanager
def within(place: object) -> Iterator[None]:
    """Put a location (a file, a row of it) before the message of an error, unless it already begins with it."""
    try:
        yield
    except DatasetError as error:
        if str(error).startswith(str(place)):
            raise
        raise DatasetError(f"{place}: {error}") from error


def cells(value: Any) -> list[Any]:
    """Return the elements of an array of any shape: a cell's contents, or tuples of a struct array's fields."""
    return _as_array(value).reshape(-1).tolist()  # of an array of arrays, a list of arrays


def records(value: Any, fields: int) -> list[tuple[Any, ...]]:
    """Return a struct array, or a cell with one column a field, as tuples; an empty array of any type gives an empty list.

    Fields are identified by their positions, as in the data sets' public readers, which never use their names.

    Args:
        value: A result of `load_matlab`, or a part of it.
        fields: The least number of fields.

    Raises:
        DatasetError: it is neither, or there are fewer fields.
    """
    array = _as_array(value)
    if array.size == 0:
        return []
    if len(array.dtype.names or ()) >= fields:
        return array.reshape(-1).tolist()
    if array.dtype == object and array.ndim == 2 and array.shape[1] >= fields:
        return [tuple(row) for row in array]
    raise DatasetError(f"a struct or a cell of {fields} fields is wanted, not {_what(array)}.")


def record(value: Any, fields: int) -> tuple[Any, ...]:
    """Return a single struct, or a cell of one row, as a tuple of its fields.

    Raises:
        DatasetError: it is neither, there are several, or there are fewer fields.
    """
    found = records(value, fields)
    if len(found) != 1:
        raise DatasetError(f"one struct of {fields} fields is wanted, not {_what(_as_array(value))}.")
    return found[0]


def text(value: Any) -> str:
    """Return a char array, or a cell that holds one, as text without surrounding blanks; an empty array gives "".

    Raises:
        DatasetError: it is no text.
    """
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, np.ndarray) and value.size == 0:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"text is wanted, not {_what(_as_array(value))}.")
    return value.strip()


def numbers(value: Any, columns: int | None = None) -> NDArray[np.float64]:
    """Return numbers, or a cell that holds them, as float64: flat, or in rows of a fixed length.

    Unsigned bytes would overflow in the first sum, and the same column may have another type in the next file.

    Args:
        value: A result of `load_matlab`, or a part of it.
        columns: Length of a row; `None` to flatten. An empty array of any shape gives no rows.

    Raises:
        DatasetError: it holds something else, or rows of another length.
    """
    array = _as_array(value)
    while array.dtype == object and array.size == 1:
        array = _as_array(array.item())
    if array.size == 0:
        return np.zeros(0 if columns is None else (0, columns))
    if array.dtype.kind not in "buif":
        raise DatasetError(f"numbers are wanted, not {_what(array)}.")
    if columns is None:
        return array.astype(np.float64).reshape(-1)
    if array.size == columns:  # a single row may be stored as a column
        array = array.reshape(1, columns)
    if array.ndim != 2 or array.shape[1] != columns:
        raise DatasetError(f"rows of {columns} numbers are wanted, not {_what(array)}.")
    return array.astype(np.float64)


def _as_array(value: Any) -> NDArray[Any]:
    """Return a value as an array. A tuple, which `cells` and `records` make from a struct, becomes a cell of one row."""
    return cell_array(value) if isinstance(value, tuple) else np.asarray(value)


def _what(array: NDArray[Any]) -> str:
    kind = f"a struct of {', '.join(array.dtype.names)}" if array.dtype.names else str(array.dtype)
    return f"an array {array.shape} of {kind}"


def cell_array(values: Sequence[Any], *, column: bool = False) -> NDArray[np.object_]:
    """Return a cell array for saving: 1 x N, or N x 1."""
    cell = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):  # an assignment to a slice would unpack arrays of equal shapes
        cell[index] = value
    return cell.reshape((-1, 1) if column else (1, -1))


def struct_array(fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> NDArray[np.void]:
    """Return a 1 x N struct array for saving; one row gives a single struct."""
    array = np.empty(len(rows), dtype=[(name, object) for name in fields])
    for index, row in enumerate(rows):
        array[index] = tuple(row)
    return array.reshape(1, -1)


def save_matlab(path: Path, variable: str, value: NDArray[Any]) -> None:
    """Write one variable, as `save_variables` does."""
    save_variables(path, {variable: value})


def save_variables(path: Path, variables: Mapping[str, Any]) -> None:
    """Write variables to a compressed file of version 7, with the folders that it needs.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    scipy_io = _scipy_io()
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(value) for name, value in variables.items()}
    scipy_io.savemat(path, arrays, appendmat=False, do_compression=True)
