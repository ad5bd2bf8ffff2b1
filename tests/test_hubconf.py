"""torch.hub, from a checkout, as GitHub would serve it, without the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def test_nothing_heavy_at_its_top() -> None:
    program = "import sys, hubconf; print([m for m in ('torch', 'timm', 'pretrainps', 'huggingface_hub') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
