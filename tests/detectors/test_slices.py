"""Everything of a detector stands in its own file: no other code names it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from pretrainps.detectors import DETECTORS

ROOT = Path(__file__).parent.parent.parent / "pretrainps"
SOURCES = sorted(ROOT.rglob("*.py"))
LOSSES = ROOT / "losses"
"""OIM is a loss before it is a detector: there, its name is the loss's."""


def own_file(name: str) -> Path:
    return Path(inspect.getfile(DETECTORS[name].config)).resolve()


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_is_named_in_its_own_file_alone(name: str) -> None:
    entry = DETECTORS[name]
    classes = {entry.title, entry.config.__name__}
    uses = []
    for path in SOURCES:
        if path.resolve() == own_file(name):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used = {node.value} & ({name} if LOSSES not in path.parents else set())
            else:
                used = {getattr(node, part, None) for part in ("id", "attr", "name", "asname")} & classes
            uses += [f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {word}" for word in used]
    assert not uses, "\n".join(uses)


def test_each_detector_has_a_file_of_its_own_in_a_family() -> None:
    files = [own_file(name) for name in DETECTORS]
    assert len(set(files)) == len(files)
    assert all(file.parent.parent == (ROOT / "detectors").resolve() for file in files)
