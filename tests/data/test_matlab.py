"""MATLAB files: single entries, unsigned bytes, and files that are damaged, cut off or of another kind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from pretrainps.data.matlab import (
    cell_array,
    cells,
    load_matlab,
    numbers,
    record,
    records,
    save_matlab,
    struct_array,
    text,
    within,
)
from pretrainps.errors import DatasetError, MissingPackageError


def through_file(folder: Path, value: NDArray[Any]) -> NDArray[Any]:
    save_matlab(folder / "x.mat", "x", value)
    return load_matlab(folder / "x.mat", "x")


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("column", [False, True])
def test_lists_of_any_length(tmp_path: Path, count: int, column: bool) -> None:
    names = [f"s{number}.jpg" for number in range(count)]
    assert [text(cell) for cell in cells(through_file(tmp_path, cell_array(names, column=column)))] == names
    structs = struct_array(("name", "number"), [(name, number) for number, name in enumerate(names)])
    found = records(through_file(tmp_path, structs), 2)
    assert [(text(name), numbers(number).tolist()) for name, number in found] == [
        (name, [number]) for number, name in enumerate(names)
    ]
    table = np.empty((count, 3), dtype=object)
    for row, name in enumerate(names):
        table[row] = [name, row, name]
    assert [text(row[2]) for row in records(through_file(tmp_path, table), 3)] == names


def test_equal_arrays_stay_apart_in_a_cell(tmp_path: Path) -> None:
    boxes = [np.array([[1, 2, 3, 4]], dtype=np.uint8)] * 3
    found = cells(through_file(tmp_path, cell_array(boxes)))
    assert len(found) == 3 and all(numbers(box, 4).tolist() == [[1, 2, 3, 4]] for box in found)


def test_bytes_do_not_wrap(tmp_path: Path) -> None:
    rows = numbers(through_file(tmp_path, np.array([[200, 100, 100, 250]], dtype=np.uint8)), 4)
    assert rows.dtype == np.float64
    assert (rows[:, :2] + rows[:, 2:]).tolist() == [[300, 350]]
    assert (rows[:, :2] - rows[:, 2:]).tolist() == [[100, -150]]


@pytest.mark.parametrize(
    ("value", "columns", "expected"),
    [
        (np.zeros((0, 0)), 5, []),
        (np.zeros((3, 0), dtype=np.uint8), 5, []),
        (np.array([[1], [2]]), 2, [[1, 2]]),
        (np.array([[1, 2], [3, 4], [5, 6]]), 2, [[1, 2], [3, 4], [5, 6]]),
        (cell_array([np.array([[7.5, 8]])]), 2, [[7.5, 8]]),
        (np.array([[1, 2]], dtype=np.uint16), None, [1, 2]),
    ],
)
def test_rows_of_numbers(value: NDArray[Any], columns: int | None, expected: list[Any]) -> None:
    found = numbers(value, columns)
    assert found.tolist() == expected and found.dtype == np.float64
    assert columns is None or found.shape[1] == columns


def test_text_in_cells_and_with_blanks() -> None:
    assert text(np.array(["s1.jpg"])) == text(cell_array([np.array(["s1.jpg "])])) == text("s1.jpg") == "s1.jpg"
    assert text(np.array([], dtype="<U1")) == ""


def test_values_of_another_kind() -> None:
    two = struct_array(("a", "b"), [(1, 2), (3, 4)])
    with pytest.raises(
        DatasetError, match=r"a struct or a cell of 3 fields is wanted, not an array \(1, 2\) of a struct of a, b"
    ):
        records(two, 3)
    with pytest.raises(DatasetError, match="one struct of 2 fields"):
        record(two, 2)
    with pytest.raises(DatasetError, match="text is wanted"):
        text(np.array([[1.0]]))
    with pytest.raises(DatasetError, match="numbers are wanted"):
        numbers(np.array(["1"]))
    with pytest.raises(DatasetError, match="rows of 5 numbers are wanted"):
        numbers(np.zeros((2, 4)), 5)
    with pytest.raises(DatasetError, match=r"^list\.mat, row 3: text is wanted"), within("list.mat, row 3"):
        text(3)


def test_the_first_known_variable_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg.mat"
    savemat(path, {"old": np.array([[1]]), "new": np.array([[2]])})
    assert load_matlab(path, "new", "old").tolist() == [[2]]
    assert load_matlab(path, "newest", "old").tolist() == [[1]]
    with pytest.raises(DatasetError, match=r"x\.jpg\.mat holds no variable newest or oldest, but old, new"):
        load_matlab(path, "newest", "oldest")


def test_a_file_cut_off_anywhere(tmp_path: Path) -> None:
    """scipy raises many types of error; here all of them become one."""
    structs = struct_array(("name", "box"), [("s1.jpg", np.arange(40.0)), ("s2.jpg", np.arange(3))])
    save_matlab(tmp_path / "packed.mat", "x", structs)
    savemat(tmp_path / "plain.mat", {"x": structs})
    for file in ("packed.mat", "plain.mat"):
        whole = (tmp_path / file).read_bytes()
        for length in (*range(0, len(whole) - 1, 23), len(whole) - 1):
            (tmp_path / "cut.mat").write_bytes(whole[:length])
            with pytest.raises(DatasetError, match=r"cut\.mat (is damaged or cut off|holds no variable x, but none at all)"):
                load_matlab(tmp_path / "cut.mat", "x")


def test_a_file_with_a_wrong_byte(tmp_path: Path) -> None:
    """A damaged file gives the written data, or an error that names the file."""
    save_matlab(tmp_path / "x.mat", "x", np.arange(100.0).reshape(1, -1))
    whole = bytearray((tmp_path / "x.mat").read_bytes())
    errors = 0
    for place in range(124, len(whole), 7):
        broken = whole.copy()
        broken[place] ^= 0x55
        (tmp_path / "broken.mat").write_bytes(broken)
        try:
            assert load_matlab(tmp_path / "broken.mat", "x").tolist() == [list(range(100))]
        except DatasetError as error:
            errors += 1
            assert "broken.mat" in str(error)
    assert errors > 5


def test_no_matlab_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.mat is missing"):
        load_matlab(tmp_path / "absent.mat", "x")
    (tmp_path / "page.mat").write_text("<html>" * 100)
    with pytest.raises(DatasetError, match=r"page\.mat is damaged or cut off, or no MATLAB file"):
        load_matlab(tmp_path / "page.mat", "x")
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512))
    with pytest.raises(DatasetError, match=r"new\.mat is a MATLAB file of version 7\.3"):
        load_matlab(tmp_path / "new.mat", "x")


def test_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingPackageError, match=r"pretrainps\[train\]"):
        load_matlab(tmp_path / "x.mat", "x")
    with pytest.raises(MissingPackageError, match=r"pretrainps\[train\]"):
        save_matlab(tmp_path / "x.mat", "x", np.zeros(1))


def test_scipy_reads_what_is_written(tmp_path: Path) -> None:
    """As public readers index it."""
    inner = struct_array(("imname", "idlocate"), [("s1.jpg", np.array([[1, 2, 3, 4]], dtype=np.uint8))])
    save_matlab(tmp_path / "x.mat", "x", cell_array([inner, inner], column=True))
    found = loadmat(tmp_path / "x.mat")["x"]
    assert found.shape == (2, 1)
    assert found[1, 0][0, 0][0][0] == "s1.jpg" and found[0, 0]["idlocate"][0, 0][0].tolist() == [1, 2, 3, 4]
