"""What CHANGELOG.md says of names that moved is true: the new ones are there, and the old ones are gone."""

from __future__ import annotations

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest

PAGE = (Path(__file__).parent.parent / "CHANGELOG.md").read_text()


def rows(mark: str) -> list[tuple[str, str]]:
    match = re.search(rf"<!-- {mark}:.*?-->\n(.*?)<!-- /{mark} -->", PAGE, flags=re.DOTALL)
    assert match is not None, mark
    found = [re.fullmatch(r"\| `(.+?)` \| `(.+?)` \|", line) for line in match[1].splitlines()[2:]]
    return [(row[1], row[2]) if row else pytest.fail(f"no row of two names in {mark}") for row in found]


def resolves(name: str) -> bool:
    """Return whether a name below the package exists; fields, attributes of `self` and arguments in brackets count."""
    plain, _, arguments = name.rstrip(")").partition("(")
    owner, _, last = plain.rpartition(".")
    try:
        holder = resolve_name(f"pretrainps.{owner}")
    except (ImportError, AttributeError):
        return False
    if not hasattr(holder, last):
        return last in getattr(holder, "__annotations__", {}) or (
            inspect.isclass(holder) and f"self.{last} = " in inspect.getsource(holder)
        )
    wanted = set(filter(None, arguments.split(", ")))
    return not wanted or wanted <= inspect.signature(getattr(holder, last)).parameters.keys()


def is_module(name: str) -> bool:
    try:
        return find_spec(f"pretrainps.{name.removesuffix('.*')}") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(("then", "now"), rows("names"))
def test_names_moved_as_it_says(then: str, now: str) -> None:
    assert resolves(now) and not resolves(then)


def test_modules_moved_as_it_says() -> None:
    moved = rows("modules")
    assert [now for _, now in moved if not is_module(now)] == []
    rooms = {
        "gallery.app",
        "gallery.sources",
        "training.engine",
        "training.finetuning",
        "training.pretraining",
        "export",
        "images",
    }
    assert [then for then, _ in moved if is_module(then)] == sorted(rooms & {then for then, _ in moved}), (
        "these are packages now"
    )
