"""Recipes for hybrid pre-training. They are this package's own: the paper's recipe and data were never published."""

from __future__ import annotations

from dataclasses import replace

from pretrainps.detectors.region import RegionConfig
from pretrainps.losses.identity import IdentitySettings
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.task import PretrainRecipe
from pretrainps.training.recipes.small import SMALL_DETECTOR, SMALL_LOOP, SMALL_OPTIM, TO_BE_COUNTED


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
    """Hybrid pre-training of a tiny ResNet from random weights on the synthetic world, small enough for a CPU."""
    config = RegionConfig(
        num_identities=TO_BE_COUNTED,
        freeze_stem=False,
        oim_scalar=16.0,
        weight_box_reg=2.0,  # weighted by 10, the box loss of so small a network would drown the identities
        **SMALL_DETECTOR,
    )
    return PretrainRecipe(
        backbone="random:resnet_tiny",
        hybrid=HybridSettings(detector=config, identity=IdentitySettings(loss="cross_entropy", triplet="soft")),
        crops_only_share=0.6,
        scenes=SceneSettings(batch_size=3),
        crops=CropSettings(people=15, shots=4, height=128, width=64, shift=5, erase=0.0),
        optim=replace(SMALL_OPTIM, lr=2e-3),
        loop=replace(SMALL_LOOP, epochs=100, max_steps=4000),
    )


def _hybrid(backbone: str) -> PretrainRecipe:
    config = RegionConfig(num_identities=TO_BE_COUNTED, freeze_stem=False)
    return PretrainRecipe(
        backbone=backbone,
        hybrid=HybridSettings(detector=config),
        crops_only_share=0.5,
        optim=OptimSettings(lr=0.01, reference_batch=8, weight_decay=1e-4, warmup_steps=1000, schedule="cosine"),
        scenes=SceneSettings(batch_size=8),
        loop=LoopSettings(epochs=12),
    )


PRETRAINING = (hybrid_resnet50, hybrid_resnet18, hybrid_shufflenetv1, hybrid_synthetic)
