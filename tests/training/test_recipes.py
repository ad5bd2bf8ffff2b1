"""Recipes are the papers' where there is a paper, and every one fits its detector."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrainps.detectors.registry import DETECTORS
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import PROTOCOLS
from pretrainps.training import override, setting_names
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.pretraining.task import PretrainRecipe
from pretrainps.training.recipes import RECIPES, counted, recipe_named


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
    with pytest.raises(ArgumentError, match=r"Did you mean 'seqnet_prw'.*There are seqnet_cuhk"):
        recipe_named("recipes.seqnet_pwr", FinetuneRecipe)
    with pytest.raises(ArgumentError, match="hybrid_resnet50"):
        recipe_named("seqnet_prw", PretrainRecipe)
    with pytest.raises(ArgumentError, match=r"Did you mean 'detector.min_size'"):
        override(recipe_named("seqnet_prw", FinetuneRecipe), ["detector.minsize=3"])
