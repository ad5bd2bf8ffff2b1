"""docs/architecture.md is true: its tree is the folders', and its flows and entry points are the code's.

That the paths and names on it exist is tested with those of all pages, in `tests/test_readme.py`.
"""

from __future__ import annotations

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "pretrainps"


def between(mark: str) -> str:
    match = re.search(rf"<!-- {mark}:.*?-->\n(.*?)<!-- /{mark} -->", PAGE, flags=re.DOTALL)
    assert match is not None, mark
    return match[1]


def tree() -> dict[str, str]:
    """Return folders and what the page says of them, from the indented lines."""
    found: dict[str, str] = {}
    parents: list[str] = []
    for line in between("tree").splitlines():
        match = re.fullmatch(r"((?:  )*)([\w.]+)/ +(\S.*)", line)
        if match is None:
            assert line.startswith("```"), line
            continue
        depth = len(match[1]) // 2
        parents = [*parents[:depth], match[2]]
        assert len(parents) == depth + 1, f"nothing stands above {line!r}"
        found["/".join(parents)] = match[3]
    return found


def folders(below: Path) -> set[str]:
    """Return the folders that hold files, themselves or further down, from the root of the repository on."""
    held = {
        parent for file in below.rglob("*") if file.is_file() and "__pycache__" not in file.parts for parent in file.parents
    }
    return {folder.relative_to(ROOT).as_posix() for folder in held if folder.is_relative_to(below)}


def test_the_tree_has_every_folder_of_the_package_and_no_other() -> None:
    assert {folder for folder in tree() if folder.split("/")[0] == PACKAGE.name} == folders(PACKAGE)


def test_the_tree_has_what_lies_at_the_top() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    named = set(tree())
    assert {name for name in shipped if (ROOT / name).is_dir()} <= named
    assert [folder for folder in named if not (ROOT / folder).is_dir()] == []


def test_loose_modules_are_named() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "_version"}
    assert [name for name in sorted(loose) if f"`pretrainps/{name}.py`" not in PAGE] == []


ENTRY_POINTS = sorted(set(re.findall(r"entry point `([\w.]+)`", PAGE)))


@pytest.mark.parametrize("group", ENTRY_POINTS)
def test_every_group_of_entry_points_is_asked_for(group: str) -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    constants = re.findall(rf'^(\w+) = "{re.escape(group)}"$', code, flags=re.MULTILINE)
    assert any(re.search(rf"group={constant}\b", code) for constant in constants), group


def test_every_step_of_the_data_is_a_module() -> None:
    """The first word of each line of the flows, from the package on."""
    flows = PAGE[PAGE.index("## How data flow") : PAGE.index("## Where to add what")]
    steps = [
        line.split()[0] for block in re.findall(r"```text\n(.*?)```", flows, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert len(steps) >= 20
    assert [step for step in steps if find_spec(f"pretrainps.{step}") is None] == []


def test_every_kind_of_thing_has_its_row() -> None:
    rows = [line.split("|")[1].strip() for line in between("adding").splitlines()[2:]]
    wanted = "model, detector, data layout, alignment, export format, protocol, source of downloads, example, command"
    assert [kind for kind in wanted.split(", ") if f"a {kind}" not in rows and f"an {kind}" not in rows] == []
    for kind in ("database", "key layout", "recipe"):
        assert sum(kind in row for row in rows) == 2, kind
