"""Recipes are the papers' where there is a paper, and every one fits its detector."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pretrainps.detectors import registry
from pretrainps.detectors.registry import DETECTORS, DetectorEntry, FinetuneDefaults, register_detector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import PROTOCOLS
from pretrainps.training import override, recipes, setting_names
from pretrainps.training.engine.renamed import RENAMED, current_name
from pretrainps.training.engine.run_folder import flat
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.pretraining.task import PretrainRecipe
from pretrainps.training.recipes import RECIPES, counted, recipe_named

RECORDED = json.loads((Path(__file__).parent / "recipes_of_749f621.json").read_text())
"""Each recipe of commit 749f621, its settings by their dotted names."""


@pytest.mark.parametrize("name", RECORDED)
def test_settings_are_those_of_the_first_version(name: str) -> None:
    """No more and no fewer: a run that was begun with a recipe is resumed with it."""
    recipe, wanted = RECIPES[name](), dict(RECORDED[name])
    assert type(recipe).__name__ == wanted.pop("type")
    config = recipe.detector if isinstance(recipe, FinetuneRecipe) else recipe.hybrid.detector
    assert type(config).__name__ == wanted.pop("detector_type").replace("DetectorConfig", "RegionConfig")
    assert flat(json.loads(json.dumps(asdict(recipe)))) == {current_name(key): value for key, value in wanted.items()}


def test_names_are_attributes() -> None:
    for name, recipe in RECIPES.items():
        assert getattr(recipes, name)() == recipe() and getattr(recipes, name).__name__ == name
        assert recipe.__doc__
    assert set(RECIPES) >= set(RECORDED) and len(RECIPES) == len(list(RECIPES))
    with pytest.raises(AttributeError, match="no attribute 'seqnet_nowhere'"):
        _ = recipes.seqnet_nowhere


@pytest.mark.parametrize("old", RENAMED)
def test_a_setting_is_still_known_by_its_old_name(old: str) -> None:
    found = [recipe for recipe in (make() for make in RECIPES.values()) if current_name(old) in setting_names(recipe)]
    assert found and all(old not in setting_names(recipe) for recipe in found)
    for value in ("0.25",) if old == "alone_share" else ("true", "false"):
        for recipe in found:
            assert override(recipe, [f"{old}={value}"]) == override(recipe, [f"{current_name(old)}={value}"])
    assert any(override(recipe, [f"{old}={value}"]) != recipe for recipe in found)


@pytest.fixture
def of_another_package() -> Iterator[str]:
    """A detector that declares recipes, one of them under a name that is taken."""
    small = FinetuneDefaults(summary="Mine, on a CPU.", protocol="frames", config={"oim_scalar": 3.0}, small=True)
    other = FinetuneDefaults(summary="Mine.", protocol="prw", epochs=3, lr=0.5, decay="matrices", milestones=(1.0, 2.0))
    nae = DETECTORS["nae"]
    config = type("MineConfig", (nae.config,), {"__slots__": ()})
    declared = {"mine_small": small, "mine_prw": other, "seqnet_prw": other, "hybrid_synthetic": other}
    register_detector(DetectorEntry(name="mine", model=nae.model, config=config, recipes=declared))
    yield "mine"
    del registry._entries["mine"]


def test_recipes_of_a_detector_of_another_package(of_another_package: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mine = recipe_named("recipes.mine_prw", FinetuneRecipe)
    assert (mine.kind, mine.protocol, mine.loop.epochs, mine.optim.lr) == ("mine", "prw", 3, 0.5)
    assert (mine.optim.decay, mine.optim.milestones) == ("matrices", (1.0, 2.0))
    small = recipes.mine_small()
    assert (small.backbone, small.detector.oim_scalar, small.detector.min_size) == ("random:resnet_tiny", 3.0, 416)
    assert recipe_named("seqnet_prw", FinetuneRecipe).kind == "seqnet" and "declares a recipe 'seqnet_prw'" in caplog.text
    assert isinstance(RECIPES["hybrid_synthetic"](), PretrainRecipe)


@pytest.mark.parametrize("name", RECIPES)
def test_each_is_whole(name: str) -> None:
    recipe = RECIPES[name]()
    if isinstance(recipe, FinetuneRecipe):
        assert type(recipe.detector) is DETECTORS[recipe.kind].config
        assert recipe.protocol in PROTOCOLS
        assert counted(recipe, 7).detector == replace(recipe.detector, num_identities=7)
        assert recipe_named(f"recipes.{name}", FinetuneRecipe) == recipe
    else:
        assert recipe_named(name, PretrainRecipe) == recipe
    assert override(recipe, ["optim.lr=0.5"]).optim.lr == 0.5
    assert "loop.epochs" in setting_names(recipe)


def test_the_papers_numbers() -> None:
    """SeqNet's defaults.py, NAE4PS's README and train.py."""
    for name, epochs, queue, decay in (
        ("seqnet_cuhk", 20, 5000, "all"),
        ("seqnet_prw", 18, 500, "all"),
        ("nae_cuhk", 22, 5000, "no_biases"),
        ("nae_prw", 22, 500, "no_biases"),
    ):
        recipe = recipe_named(name, FinetuneRecipe)
        optim = recipe.optim
        assert (recipe.loop.epochs, recipe.detector.queue_size, optim.decay) == (epochs, queue, decay)
        assert (optim.lr, optim.momentum, optim.weight_decay, optim.milestones, optim.gamma) == (0.003, 0.9, 5e-4, (16,), 0.1)
        assert (optim.clip_norm, optim.warmup_epochs, optim.warmup_factor, optim.reference_batch) == (10, 1, 1e-3, 5)
        assert (recipe.scenes.batch_size, recipe.scenes.flip, recipe.scenes.colour, recipe.scenes.crop) == (5, 0.5, 0, 0)
        assert (recipe.detector.min_size, recipe.detector.max_size) == (900, 1500)


def test_names_that_are_none() -> None:
    with pytest.raises(ArgumentError, match=r"Did you mean 'seqnet_prw'.*There are .*seqnet_cuhk"):
        recipe_named("recipes.seqnet_pwr", FinetuneRecipe)
    with pytest.raises(ArgumentError, match="hybrid_resnet50"):
        recipe_named("seqnet_prw", PretrainRecipe)
    with pytest.raises(ArgumentError, match=r"Did you mean 'detector.min_size'"):
        override(recipe_named("seqnet_prw", FinetuneRecipe), ["detector.minsize=3"])
