"""Recipes for fine-tuning, made of what each registered detector declares for each data set.

With another batch size the learning rate is scaled in proportion, as Li and Miao (AAAI 2021) advise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from pretrainps.detectors.registry import DETECTORS, DetectorEntry, FinetuneDefaults
from pretrainps.training.batch_settings import SceneSettings
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.recipes.small import SMALL_DETECTOR, SMALL_LOOP, SMALL_OPTIM, TO_BE_COUNTED


def declared_recipes() -> Iterator[tuple[str, DetectorEntry, FinetuneDefaults]]:
    """Yield the name of each recipe, its detector, and what the detector declares for it."""
    for entry in DETECTORS.values():
        for name, defaults in entry.recipes.items():
            yield name, entry, defaults


def finetune_recipe(entry: DetectorEntry, defaults: FinetuneDefaults) -> FinetuneRecipe:
    """Return the recipe of a detector for one data set.

    Args:
        entry: The detector.
        defaults: What it declares for the data set.
    """
    return _small(entry, defaults) if defaults.small else _published(entry, defaults)


def _published(entry: DetectorEntry, defaults: FinetuneDefaults) -> FinetuneRecipe:
    return FinetuneRecipe(
        kind=entry.name,
        detector=entry.config.from_mapping({"num_identities": TO_BE_COUNTED, **defaults.config}),
        protocol=defaults.protocol,
        optim=OptimSettings(
            lr=defaults.lr,
            reference_batch=defaults.reference_batch,
            decay=defaults.decay,
            warmup_epochs=defaults.warmup_epochs,
            milestones=defaults.milestones,
            clip_norm=defaults.clip_norm,
        ),
        loop=LoopSettings(epochs=defaults.epochs, seed=1),
        workers=5,
    )


def _small(entry: DetectorEntry, defaults: FinetuneDefaults) -> FinetuneRecipe:
    known = {each.name for each in fields(entry.config)}
    small = {"queue_size": 64, "freeze_stem": False, **SMALL_DETECTOR}
    shared = {name: value for name, value in small.items() if name in known}
    return FinetuneRecipe(
        kind=entry.name,
        detector=entry.config.from_mapping({"num_identities": TO_BE_COUNTED, **shared, **defaults.config}),
        protocol=defaults.protocol,
        backbone="random:resnet_tiny",
        scenes=SceneSettings(batch_size=4),
        optim=SMALL_OPTIM,
        loop=SMALL_LOOP,
    )
