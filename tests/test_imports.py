"""What loads what: the package is light, and its imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pretrainps"
HEAVY = ("torch", "torchvision", "timm", "huggingface_hub", "numpy", "PIL")

FLOORS = [
    {"errors", "_version"},
    {"files"},
    {"registry"},
    {"download"},
    {"ops"},
    {"weights"},
    {"images"},
    {"backbones"},
    {"heads", "losses"},
    {"data"},
    {"synthetic"},
    {"detectors"},
    {"inference"},
    {"evaluation"},
    {"weights.recognize", "weights.recognize_detector", "hub.runs", "hub.run_settings"},
    {"weights.inspect"},
    {"hub"},
    {"weights.check_input"},
    {"evaluation.evaluate"},
    {"export"},
    {"gallery"},
    {"demo"},
    {"training"},
    {"cli"},
    {"__main__", "__init__"},
]
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


@pytest.mark.parametrize(
    "code",
    [
        "import pretrainps",
        "import pretrainps; pretrainps.list_models(); pretrainps.info('resnet50-hybrid'); dir(pretrainps)",
        "from pretrainps.cli import main; main(['list'])",
        "from pretrainps.cli import main; main(['info', 'resnet50-hybrid'])",
        "import pretrainps.registry",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    program = f"import sys\n{code}\nprint('HEAVY', [m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@dataclass(frozen=True)
class Import:
    line: int
    module: str
    """From `pretrainps` on."""
    typing_only: bool
    """Under `if TYPE_CHECKING`: for annotations, and never carried out."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports_of(path: Path) -> list[Import]:
    """Return what a module imports of this package, also inside of functions."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports name the package"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in whole]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += [Import(node.lineno, name, id(node) in typing_only) for name in names if name.split(".")[0] == ROOT.name]
    return found


@pytest.mark.parametrize("path", MODULES.values(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    """No room imports one above it; names only used for typing do not count here."""
    here = _floor(name_of(path))
    for found in imports_of(path):
        assert found.typing_only or _floor(found.module) <= here, f"line {found.line}: {found.module} stands above"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even for typing or inside of functions: a circle is one module in several files."""
    graph = {name: {found.module for found in imports_of(path)} - {name} for name, path in MODULES.items()}
    unknown = {module for modules in graph.values() for module in modules} - graph.keys()
    assert not unknown, "imports that lead nowhere"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle: " + " imports ".join(reversed(error.args[1])))


def test_every_room_has_its_floor() -> None:
    """A room that is not listed would be looked at by no test; one that is gone would be a lie."""
    rooms = {name.split(".")[1] for name in MODULES if "." in name} | {"__init__"}
    assert {name.split(".")[0] for name in FLOOR} == rooms
    assert {f"pretrainps.{name}" for name in FLOOR} - {"pretrainps.__init__"} <= MODULES.keys()
    assert sum(map(len, FLOORS)) == len(FLOOR), "a name is listed twice"


def _floor(module: str) -> int:
    """Return the floor of a module: its own if it has one, or its room's."""
    parts = module.split(".")[1:] or ["__init__"]
    return FLOOR[".".join(parts[:2])] if ".".join(parts[:2]) in FLOOR else FLOOR[parts[0]]


def test_every_public_name_resolves() -> None:
    import pretrainps

    for name in pretrainps.__all__:
        assert getattr(pretrainps, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = pretrainps.nosuch
