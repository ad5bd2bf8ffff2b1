"""What loads what: the package is light, and its imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
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


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    """No room imports one above it; names only used for typing do not count."""
    here = _floor(".".join(path.relative_to(ROOT).with_suffix("").parts))
    tree = ast.parse(path.read_text())
    typing_only = {
        id(n)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for n in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pretrainps.") and id(node) not in typing_only:
            module = (node.module or "").removeprefix("pretrainps.")
            assert _floor(module) <= here, f"line {node.lineno}: {module} stands above"
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports name the package"


def _floor(module: str) -> int:
    """Return the floor of a module: its own if it has one, or its room's."""
    parts = module.split(".")
    return FLOOR.get(".".join(parts[:2]), FLOOR.get(parts[0], -1))


def test_every_public_name_resolves() -> None:
    import pretrainps

    for name in pretrainps.__all__:
        assert getattr(pretrainps, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = pretrainps.nosuch
