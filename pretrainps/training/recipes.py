"""Recipes: functions that return settings. The papers' for fine-tuning, this package's own for hybrid pre-training.

NAE and SeqNet are trained alike: SGD at 0.003 for batches of 5, warmed up over the first epoch, divided by 10 after the 16th,
gradients no longer than 10, mirroring and nothing else. With another batch size the learning rate is scaled in proportion, as
SeqNet's authors advise. They differ in what decays: NAE spares biases.

The hybrid recipes are not the paper's, whose recipe and data were never published.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from pretrainps.detectors.region import RegionConfig
from pretrainps.detectors.registry import detector_entry
from pretrainps.errors import ArgumentError
from pretrainps.losses.identity import IdentitySettings
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.task import PretrainRecipe

_TO_BE_COUNTED = 1
"""Stands for the number of identities until the training split is read."""
_SMALL = {
    "rpn_candidates_train": 1000,
    "rpn_candidates": 500,
    "rpn_proposals_train": 200,
    "rpn_proposals": 60,
    "region_size": 8,
    "region_samples": 32,
    "anchor_sizes": (16, 32, 64, 128, 256),
    "pooling": "average",  # identities are learned faster
    "min_size": 416,  # the scenes have 320: enlarged, the maps of small people tell more
    "max_size": 624,
}
"""Settings for the synthetic world on a CPU."""
_SMALL_BOX_WEIGHT = 2.0
"""Of a box loss that the papers weigh by 10: on so small a network it stays larger, and would drown who is who."""
_SMALL_LOOP = LoopSettings(epochs=3, precision="bfloat16", channels_last=True)


def seqnet_cuhk() -> FinetuneRecipe:
    """SeqNet on CUHK-SYSU, as its authors trained it: 20 epochs, a queue of 5000."""
    return _paper("seqnet", "cuhk-sysu", epochs=20, queue_size=5000)


def seqnet_prw() -> FinetuneRecipe:
    """SeqNet on PRW, as its authors trained it: 18 epochs, a queue of 500."""
    return _paper("seqnet", "prw", epochs=18, queue_size=500)


def seqnet_posetrack21() -> FinetuneRecipe:
    """SeqNet on PoseTrack21, with PRW's settings."""
    return _paper("seqnet", "posetrack21", epochs=18, queue_size=500)


def nae_cuhk() -> FinetuneRecipe:
    """NAE on CUHK-SYSU, as its authors trained it: 22 epochs, a queue of 5000, no decay of biases."""
    return _paper("nae", "cuhk-sysu", epochs=22, queue_size=5000)


def nae_prw() -> FinetuneRecipe:
    """NAE on PRW, as its authors trained it: 22 epochs, a queue of 500, no decay of biases."""
    return _paper("nae", "prw", epochs=22, queue_size=500)


def naeplus_cuhk() -> FinetuneRecipe:
    """NAE+ on CUHK-SYSU, with NAE's settings."""
    return _paper("nae+", "cuhk-sysu", epochs=22, queue_size=5000)


def oim_cuhk() -> FinetuneRecipe:
    """The OIM baseline on CUHK-SYSU, with NAE's settings, as papers report it."""
    return _paper("oim", "cuhk-sysu", epochs=22, queue_size=5000)


def oim_prw() -> FinetuneRecipe:
    """The OIM baseline on PRW, with NAE's settings, as papers report it."""
    return _paper("oim", "prw", epochs=22, queue_size=500)


def own_search() -> FinetuneRecipe:
    """SeqNet on your own scenes (`coco_search`), with PRW's settings."""
    return _paper("seqnet", "frames", epochs=18, queue_size=500)


def seqnet_synthetic() -> FinetuneRecipe:
    """SeqNet on the synthetic world's scenes, small enough for a CPU."""
    return _small("seqnet")


def nae_synthetic() -> FinetuneRecipe:
    """NAE on the synthetic world's scenes, small enough for a CPU."""
    recipe = _small("nae")
    # the length of a vector tells people from background, and identities pull at the same vector: with a weight of 1, by more
    return replace(recipe, detector=replace(recipe.detector, weight_box_cls=10.0))


def hybrid_resnet50() -> PretrainRecipe:
    """Hybrid pre-training of a ResNet-50 from ImageNet's weights."""
    return _hybrid("resnet50-imagenet")


def hybrid_resnet18() -> PretrainRecipe:
    """Hybrid pre-training of a ResNet-18 from ImageNet's weights."""
    return _hybrid("resnet18-imagenet")


def hybrid_shufflenetv1() -> PretrainRecipe:
    """Hybrid pre-training of a ShuffleNetV1 from ImageNet's weights."""
    return _hybrid("shufflenetv1-imagenet")


def hybrid_synthetic() -> PretrainRecipe:
    """Hybrid pre-training of a tiny ResNet from nothing on the synthetic world, small enough for a CPU."""
    config = RegionConfig(
        num_identities=_TO_BE_COUNTED,
        freeze_stem=False,
        oim_scalar=16.0,
        weight_box_reg=_SMALL_BOX_WEIGHT,
        **_SMALL,  # type: ignore[arg-type]
    )
    return PretrainRecipe(
        backbone="random:resnet_tiny",
        hybrid=HybridSettings(detector=config, identity=IdentitySettings(loss="cross_entropy", triplet="soft")),
        alone_share=0.6,
        scenes=SceneSettings(batch_size=3),
        crops=CropSettings(people=15, shots=4, height=128, width=64, shift=5, erase=0.0),
        optim=OptimSettings(kind="adamw", lr=2e-3, weight_decay=0.05, decay="matrices", schedule="cosine", warmup_steps=50),
        loop=replace(_SMALL_LOOP, epochs=100, max_steps=4000),
    )


def _hybrid(backbone: str) -> PretrainRecipe:
    config = RegionConfig(num_identities=_TO_BE_COUNTED, freeze_stem=False)
    return PretrainRecipe(
        backbone=backbone,
        hybrid=HybridSettings(detector=config),
        alone_share=0.5,
        optim=OptimSettings(lr=0.01, reference_batch=8, weight_decay=1e-4, warmup_steps=1000, schedule="cosine"),
        scenes=SceneSettings(batch_size=8),
        loop=LoopSettings(epochs=12),
    )


def _paper(kind: str, protocol: str, *, epochs: int, queue_size: int) -> FinetuneRecipe:
    config = detector_entry(kind).config(num_identities=_TO_BE_COUNTED, queue_size=queue_size)
    return FinetuneRecipe(
        kind=kind,
        detector=config,
        protocol=protocol,
        optim=OptimSettings(
            lr=0.003,
            reference_batch=5,
            decay="all" if kind == "seqnet" else "no_biases",
            warmup_epochs=1.0,
            milestones=(16.0,),
            clip_norm=10.0,
        ),
        loop=LoopSettings(epochs=epochs, seed=1),
        workers=5,
    )


def _small(kind: str) -> FinetuneRecipe:
    first_box = "weight_proposal_reg" if kind == "seqnet" else "weight_box_reg"
    config = detector_entry(kind).config(
        num_identities=_TO_BE_COUNTED,
        queue_size=64,
        freeze_stem=False,
        **{first_box: _SMALL_BOX_WEIGHT},  # type: ignore[arg-type]
        **_SMALL,  # type: ignore[arg-type]
    )
    optim = OptimSettings(kind="adamw", lr=1e-3, weight_decay=0.05, decay="matrices", schedule="cosine", warmup_steps=50)
    return FinetuneRecipe(
        kind=kind,
        detector=config,
        protocol="frames",
        backbone="random:resnet_tiny",
        scenes=SceneSettings(batch_size=4),
        optim=optim,
        loop=_SMALL_LOOP,
    )


Recipe = Callable[[], PretrainRecipe | FinetuneRecipe]
R = TypeVar("R", PretrainRecipe, FinetuneRecipe)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.__name__: recipe
        for recipe in (
            hybrid_resnet50,
            hybrid_resnet18,
            hybrid_shufflenetv1,
            hybrid_synthetic,
            seqnet_cuhk,
            seqnet_prw,
            seqnet_posetrack21,
            nae_cuhk,
            nae_prw,
            naeplus_cuhk,
            oim_cuhk,
            oim_prw,
            own_search,
            seqnet_synthetic,
            nae_synthetic,
        )
    }
)
"""By name."""


def recipe_named(name: str, kind: type[R]) -> R:
    """Return a recipe by its name, "recipes." before it or not.

    Raises:
        ArgumentError: there is none of that name and kind; lists those there are.
    """
    found = {each: made for each, make in RECIPES.items() if isinstance(made := make(), kind)}
    short = name.removeprefix("recipes.")
    if short not in found:
        near = difflib.get_close_matches(short, found, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ArgumentError(f"no recipe {name!r} for this.{hint} There are {', '.join(found)}.")
    return found[short]


def counted(recipe: FinetuneRecipe, people: int) -> FinetuneRecipe:
    """Return a recipe for a training split with so many people."""
    return replace(recipe, detector=replace(recipe.detector, num_identities=people))
