"""Recipes: functions that return settings, by name.

Those for fine-tuning are made of what each registered detector declares: `recipes.NAME` of a detector's recipe is a function of
this package, as those for pre-training are.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pretrainps.detectors.registry import DetectorEntry, FinetuneDefaults
from pretrainps.errors import ArgumentError
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.pretraining.task import PretrainRecipe
from pretrainps.training.recipes.finetuning import declared_recipes, finetune_recipe
from pretrainps.training.recipes.pretraining import PRETRAINING

log = logging.getLogger("pretrainps")
Recipe = Callable[[], PretrainRecipe | FinetuneRecipe]
R = TypeVar("R", PretrainRecipe, FinetuneRecipe)


class _Recipes(Mapping[str, Recipe]):
    """All recipes by name. Those of detectors are looked up each time, because detectors can be registered at any time."""

    def __getitem__(self, name: str) -> Recipe:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Recipe]:
        found: dict[str, Recipe] = {made.__name__: made for made in PRETRAINING}
        owners = dict.fromkeys(found, "pre-training")
        for name, entry, defaults in declared_recipes():
            if name in found:
                _warn_once(name, entry.name, owners[name])
                continue
            found[name], owners[name] = _function(name, entry, defaults), f"the detector {entry.name}"
        return found


RECIPES: Mapping[str, Recipe] = _Recipes()
"""All recipes by name; read-only."""


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name in RECIPES:
        return RECIPES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def recipe_named(name: str, kind: type[R]) -> R:
    """Return a recipe by its name, with or without "recipes." before it.

    Raises:
        ArgumentError: there is none of that name and kind; lists those there are.
    """
    ours = {each.__name__ for each in PRETRAINING}
    found = {each: make for each, make in RECIPES.items() if (each in ours) == (kind is PretrainRecipe)}
    short = name.removeprefix("recipes.")
    if short not in found:
        near = difflib.get_close_matches(short, found, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ArgumentError(f"no recipe {name!r} for this.{hint} There are {', '.join(found)}.")
    recipe = found[short]()
    assert isinstance(recipe, kind)
    return recipe


def counted(recipe: FinetuneRecipe, people: int) -> FinetuneRecipe:
    """Return a recipe for a training split with so many people."""
    return replace(recipe, detector=replace(recipe.detector, num_identities=people))


@cache
def _warn_once(name: str, detector: str, owner: str) -> None:
    log.warning(
        "the detector %s declares a recipe %r, but %s has one of that name. It cannot be used until it is renamed.",
        detector,
        name,
        owner,
    )


def _function(name: str, entry: DetectorEntry, defaults: FinetuneDefaults) -> Recipe:
    def recipe() -> FinetuneRecipe:
        return finetune_recipe(entry, defaults)

    recipe.__name__ = recipe.__qualname__ = name
    recipe.__doc__ = defaults.summary
    return recipe
