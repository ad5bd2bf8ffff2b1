"""The recipes of `evidence.py`: all settings that are the same for all starts, in a size for a CPU and one for a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pretrainps.training.batch_settings import SceneSettings
from pretrainps.training.finetuning.task import FinetuneRecipe
from pretrainps.training.pretraining.alignment import AlignmentSettings
from pretrainps.training.pretraining.task import PretrainRecipe
from pretrainps.training.recipes import hybrid_synthetic, nae_synthetic, seqnet_synthetic


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The sizes of data, networks and trainings."""

    arch: str
    """The backbone's architecture."""
    drawn: tuple[int, int]
    """Height and width of the drawn scenes, in pixels."""
    seen: tuple[int, int]
    """Height and width of the resized scenes that the detector sees."""
    crop: tuple[int, int]
    """Height and width of the crops."""
    scenes: int
    """Number of scenes in each detection set."""
    people: int
    """Number of people in each re-ID set."""
    shots: int = 2
    """Crops of each of these people by each of three cameras."""
    target_people: int
    """Number of labelled people in the target's training scenes, with about 6 appearances each."""
    test_people: int
    """Number of labelled people in its test, where every appearance is a query."""
    scene_batch: int
    """Scenes in a step of pre-training."""
    crop_batch: int
    """People in a step of pre-training, with 4 crops each."""
    pretraining_steps: int
    """Steps of a pre-training on one sub-task."""
    plain_steps: int
    """Steps of a pre-training on both with separate crops, at about the same cost."""
    pasted_steps: int
    """Steps of a pre-training on both with crops pasted into scenes."""
    pasted_from: float
    """Share of these steps before the first pasted crops."""
    joint_steps: int
    """Steps of a pre-training on both as in this package."""
    crops_only_share: float
    """Share of these steps on identities alone."""
    pretraining_lr: float
    finetuning_steps: Mapping[str, int]
    """Steps of fine-tuning for each detector."""
    finetuning_lr: Mapping[str, float]
    detector: Mapping[str, Any] = field(default_factory=dict)
    """Settings of RPN and regions that differ from those of `nae_synthetic` and `seqnet_synthetic`."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of every detector, including that of the pre-training."""
        return {"min_size": self.seen[0], "max_size": self.seen[1], **self.detector}


CPU = Scale(
    arch="resnet_tiny",
    drawn=(224, 336),  # seven tenths of the synthetic world's usual size
    seen=(224, 336),
    crop=(96, 48),
    scenes=400,
    people=400,
    target_people=150,
    test_people=60,
    scene_batch=3,
    crop_batch=15,
    pretraining_steps=3600,
    plain_steps=1800,
    pasted_steps=1500,
    pasted_from=400 / 1500,
    joint_steps=2550,
    crops_only_share=2 / 3,
    pretraining_lr=2e-3,
    finetuning_steps={"seqnet": 200, "nae": 400},  # no pre-training covers the norm of NAE's embedding
    finetuning_lr={"seqnet": 5e-4, "nae": 1e-3},
    detector={"region_samples": 16, "rpn_candidates_train": 500},
)
GPU = Scale(
    arch="resnet18",
    drawn=(320, 480),
    seen=(416, 624),  # as in the recipes: enlarged images help with small people
    crop=(128, 64),
    scenes=1000,
    people=1000,
    target_people=300,
    test_people=100,
    scene_batch=4,
    crop_batch=15,
    pretraining_steps=6000,
    plain_steps=3000,
    pasted_steps=3000,
    pasted_from=800 / 3000,
    joint_steps=4000,
    crops_only_share=5 / 8,
    pretraining_lr=1e-3,
    finetuning_steps={"seqnet": 500, "nae": 600},
    finetuning_lr={"seqnet": 5e-4, "nae": 5e-4},
)
SMOKE = replace(
    CPU,
    scenes=4,
    people=6,
    target_people=20,
    test_people=4,
    pretraining_steps=2,
    plain_steps=2,
    pasted_steps=2,
    pasted_from=0.5,
    joint_steps=2,
    crops_only_share=0.5,
    finetuning_steps={"seqnet": 2, "nae": 2},
)
SCALES = {"cpu": CPU, "gpu": GPU, "smoke": SMOKE}


def pretraining(start: str, scale: Scale, seed: int) -> PretrainRecipe:
    """Return the recipe of a start."""
    recipe = hybrid_synthetic()
    kind, _, alignment = start.partition("+")
    both = {"plain": scale.plain_steps, "pasted": scale.pasted_steps, "joint": scale.joint_steps}
    steps = both.get(kind, scale.pretraining_steps)
    aligned: Any = alignment or "none"
    return replace(
        recipe,
        hybrid=replace(
            recipe.hybrid,
            detector=replace(recipe.hybrid.detector, **scale.settings),
            alignment=AlignmentSettings(kind=aligned),
            crop_features="scene" if kind in ("pasted", "joint") else "roi",
            pasted_from=scale.pasted_from if kind == "pasted" else 0.0,
        ),
        crops_only_share=scale.crops_only_share if kind == "joint" else 0.0,
        optim=replace(recipe.optim, lr=scale.pretraining_lr),
        scenes=SceneSettings(batch_size=scale.scene_batch),
        crops=replace(recipe.crops, people=scale.crop_batch, height=scale.crop[0], width=scale.crop[1], shift=4),
        loop=replace(recipe.loop, epochs=1, max_steps=steps, seed=seed, evaluate_every=None, checkpoint_minutes=600.0),
        steps_per_epoch=steps,
        workers=0,
    )


def finetuning(detector: str, scale: Scale, seed: int) -> FinetuneRecipe:
    """Return the recipe of a detector."""
    recipe = nae_synthetic() if detector == "nae" else seqnet_synthetic()
    at_the_end: dict[str, Any] = {"epochs": 10_000, "evaluate_every": 10_000}
    steps = scale.finetuning_steps[detector]
    return replace(
        recipe,
        detector=replace(recipe.detector, **scale.settings),
        optim=replace(recipe.optim, lr=scale.finetuning_lr[detector]),
        loop=replace(recipe.loop, seed=seed, max_steps=steps, checkpoint_minutes=600.0, **at_the_end),
        workers=0,
    )
