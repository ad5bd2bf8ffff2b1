"""torch.hub, from a checkout, as GitHub would serve it, without the network."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import hubconf
from pretrainps.registry import registry
from tests.support.fakehub import FakeHub
from tests.support.weights import FILES, REPO, authors_file

ROOT = Path(__file__).parent.parent
NAME = "owner/pretrainps:main"


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path) -> None:
    """torch.hub keeps a repository as owner_name_ref; with that in place it asks nobody."""
    hub_dir = tmp_path / "torch-hub"
    hub_dir.mkdir()
    (hub_dir / "owner_pretrainps_main").symlink_to(ROOT)
    torch.hub.set_dir(str(hub_dir))


def test_every_model_is_an_entry_point_and_nothing_else_is() -> None:
    found = torch.hub.list(NAME, trust_repo=True, verbose=False)
    assert sorted(found) == sorted(name.replace("-", "_") for name in registry())


@pytest.mark.parametrize("name", list(registry()))
def test_help_is_documentation(name: str) -> None:
    text = torch.hub.help(NAME, name.replace("-", "_"), trust_repo=True)
    assert registry()[name].title in text and f'"{name}"' in text and registry()[name].licence.id in text


@pytest.mark.parametrize("source", ["github", "local"])
def test_load(hub: FakeHub, source: str) -> None:
    hub.add(REPO, {FILES["shufflenetv1-hybrid"]: authors_file("shufflenetv1-hybrid")})
    where = NAME if source == "github" else str(ROOT)
    model = torch.hub.load(
        where, "shufflenetv1_hybrid", source=source, trust_repo=True, verbose=False, progress=False, head="embedding"
    )
    assert model.load_report.share == 1 and model(torch.rand(1, 3, 64, 32)).shape == (1, 960)


def test_functions_are_called_with_what_their_models_take() -> None:
    """Also by help(): a detector takes no head."""
    common = ["device", "offline", "progress"]
    for name, spec in registry().items():
        function = getattr(hubconf, name.replace("-", "_"))
        taken = list(inspect.signature(function).parameters)
        assert taken == (common if spec.task == "detector" else ["head", "embedding_dim", "num_classes", *common])
        assert function.__name__ == name.replace("-", "_") and function.__name__.isidentifier()


def test_every_function_loads_its_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last one of the loop that made them."""
    monkeypatch.setattr(hubconf, "_load", lambda name, **options: name)
    assert [getattr(hubconf, name.replace("-", "_"))() for name in registry()] == list(registry())


def test_nothing_heavy_at_its_top() -> None:
    """`-S` leaves the standard library alone, so a missing dependency is torch.hub's to name."""
    program = "import sys, hubconf; print([m for m in ('torch', 'timm', 'numpy', 'huggingface_hub') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dependencies_are_those_of_the_package() -> None:
    """torch.hub checks names of modules, which are those of the packages but for one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    assert set(hubconf.dependencies) == (needed - {"pillow"}) | {"PIL"}
