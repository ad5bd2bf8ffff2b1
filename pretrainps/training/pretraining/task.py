"""Hybrid pre-training as a task for the engine: several data sets of each sub-task, joined in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from pretrainps.backbones import Backbone
from pretrainps.data.batching import BatchSampler, Draw, JoinedBatches, PKBatchSampler, ShuffledBatches, identities_of
from pretrainps.data.loading import Crops, Loader, ReadFailure, Scenes, crops_together, scenes_together
from pretrainps.data.records import Split
from pretrainps.data.transforms import SceneAugmentation, crop_transform
from pretrainps.errors import ArgumentError
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.engine.task import Batch
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.training.pretraining.settings import HybridSettings
from pretrainps.training.pretraining.stream import Course, HybridStream
from pretrainps.training.sources import described


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainRecipe:
    """All settings of a hybrid pre-training. Its data are given apart from them.

    Raises:
        ArgumentError: a value that cannot be; the message names the field.
    """

    backbone: str
    """The backbone to start from, as `pretrainps.load` takes it; or "random:ARCH" for random weights."""
    hybrid: HybridSettings = field(default_factory=HybridSettings)
    """What is learned, and how. Its data sets are filled in when they are read."""
    scenes: SceneSettings = field(default_factory=SceneSettings)
    crops: CropSettings = field(default_factory=CropSettings)
    crops_only_share: float = 0.0
    """Share of the training, at its start, that sees crops only, where there are scenes and crops. A small network that sees
    scenes from the first batch on may never learn to tell people apart."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of each data set among those of its sub-task. The shares may have any sum; a data set that is not named has 1."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    steps_per_epoch: int | None = None
    """Batches of an epoch; by default, as many as it takes to show every scene, or every person if that is more."""
    workers: int = 2
    """Processes that read images, for each sub-task."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.crops_only_share < 1.0:
            raise ArgumentError(
                f"PretrainRecipe.crops_only_share must be at least 0 and below 1, not {self.crops_only_share}: a training that "
                "never sees scenes learns no detection. For re-ID only, name no detection data set."
            )


class Pretraining:
    """A `Task`.

    Args:
        recipe: What is learned, and how.
        backbone: What it starts from.
        detection: Detection data sets by name.
        reid: Re-ID data sets by name.

    Raises:
        ArgumentError: no data; a share of a data set that is not there; fewer images than a batch needs; a data set with one
            person.
    """

    metric = None

    def __init__(
        self, recipe: PretrainRecipe, backbone: Backbone, detection: Mapping[str, Split], reid: Mapping[str, Split]
    ) -> None:
        if both := set(detection) & set(reid):
            raise ArgumentError(f"two data sets are called {', '.join(sorted(both))}: give each a name of its own (NAME=ROOT).")
        if unknown := set(recipe.shares) - set(detection) - set(reid):
            raise ArgumentError(f"shares names {', '.join(sorted(unknown))}; there are {', '.join((*detection, *reid))}.")
        self.recipe, self.detection, self.reid = recipe, dict(detection), dict(reid)
        identities = {name: len(split.identities) for name, split in reid.items()}
        self.settings = replace(recipe.hybrid, detection_sets=tuple(detection), reid_sets=identities)
        self.hybrid = HybridModel(backbone, self.settings)
        self.stream(0, 1)  # finds out at once whether batches can be made

    @property
    def model(self) -> nn.Module:
        """The backbone with the heads of both sub-tasks."""
        return self.hybrid

    @property
    def batch_size(self) -> int:
        """Scenes of a batch, also where there are crops only: the learning rate is meant for so many scenes."""
        return self.recipe.scenes.batch_size

    def stream(self, rank: int, world_size: int) -> HybridStream:
        """Return scenes and crops of one process."""
        steps = self.recipe.steps_per_epoch
        if steps is None:
            parts = self._scene_batches(rank, world_size), self._crop_batches(rank, world_size)
            steps = max(len(each) for each in parts if each is not None)
        scenes, crops = self._scene_batches(rank, world_size, steps), self._crop_batches(rank, world_size, steps)
        look, person = self.recipe.scenes, self.recipe.crops
        scene_sets: dict[str, Scenes | Crops] = {
            name: Scenes(split, SceneAugmentation(flip=look.flip, colour=look.colour, crop=look.crop))
            for name, split in self.detection.items()
        }
        moved = crop_transform(
            person.height, person.width, flip=person.flip, shift=person.shift, colour=person.colour, erase=person.erase
        )
        crop_sets: dict[str, Scenes | Crops] = {name: Crops(split, moved) for name, split in self.reid.items()}
        workers = self.recipe.workers
        crops_only_share = self.recipe.crops_only_share if self.detection and self.reid else 0.0
        return HybridStream(
            None if scenes is None else Loader(Joined(scene_sets), scenes, _scenes_by_set, workers=workers),
            None if crops is None else Loader(Joined(crop_sets), crops, _crops_by_set, workers=workers),
            Course.of(self.recipe.loop, steps, crops_only_share),
        )

    def names(self, batch: Batch) -> list[str]:
        """Return the names of the scenes, and the person of each crop."""
        scenes, crops, _ = batch
        return [
            *(f"{name}: {target['name']}" for name, (_, targets) in scenes.items() for target in targets),
            *(f"{name}: a crop of person {int(person)}" for name, (_, ids, _) in crops.items() for person in ids),
        ]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: what pre-training is good for shows in fine-tuning."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return fingerprints of the data, the backbone that it started from, and the length.

        How long there are crops only, and how strong the alignment is, depends on the length.
        """
        origin, loop = self.hybrid.origin, self.recipe.loop
        return {
            "length": {"epochs": loop.epochs, "max_steps": loop.max_steps},
            "detection": described(self.detection),
            "reid": described(self.reid),
            "backbone": {"name": origin.name, "sha256": origin.sha256} if origin else "random",
        }

    def _scene_batches(self, rank: int, world_size: int, length: int | None = None) -> JoinedBatches | None:
        if not self.detection:
            return None
        sizes = self._portions(self.detection, self.recipe.scenes.batch_size, "scenes.batch_size")
        parts = [ShuffledBatches(len(split), size) for split, size in zip(self.detection.values(), sizes, strict=True)]
        return self._joined(parts, self.detection, rank, world_size, length)

    def _crop_batches(self, rank: int, world_size: int, length: int | None = None) -> JoinedBatches | None:
        if not self.reid:
            return None
        sizes = self._portions(self.reid, self.recipe.crops.people, "crops.people")
        shots = self.recipe.crops.shots
        parts = [
            PKBatchSampler(identities_of(split), p=size, k=shots) for split, size in zip(self.reid.values(), sizes, strict=True)
        ]
        return self._joined(parts, self.reid, rank, world_size, length)

    def _joined(
        self, parts: Sequence[BatchSampler], sets: Mapping[str, Split], rank: int, world_size: int, length: int | None
    ) -> JoinedBatches:
        sizes = [len(split) for split in sets.values()]
        return JoinedBatches(parts, sizes, length=length, seed=self.recipe.loop.seed, rank=rank, world_size=world_size)

    def _portions(self, sets: Mapping[str, Split], whole: int, field_name: str) -> list[int]:
        """Divide a batch among data sets by their shares, each with at least one item."""
        if whole < len(sets):
            raise ArgumentError(f"{field_name}={whole}, but each of {len(sets)} data sets needs a place: {', '.join(sets)}.")
        shares = [self.recipe.shares.get(name, 1.0) for name in sets]
        if min(shares) <= 0:
            raise ArgumentError(f"shares {dict(self.recipe.shares)}: each must be above 0.")
        wanted = [whole * share / sum(shares) for share in shares]
        portions = [max(1, int(each)) for each in wanted]
        while sum(portions) != whole:  # the largest remainders first
            step = 1 if sum(portions) < whole else -1
            order = sorted(range(len(sets)), key=lambda each: step * (portions[each] - wanted[each]))
            chosen = next(each for each in order if portions[each] + step >= 1)
            portions[chosen] += step
        return portions


class Joined(Dataset[Any]):
    """Data sets one after the other; an item comes with the name of its data set.

    Args:
        sets: Each by its name.
    """

    def __init__(self, sets: Mapping[str, Scenes | Crops]) -> None:
        self.sets = sets

    def __len__(self) -> int:
        return sum(len(each) for each in self.sets.values())

    def __getitem__(self, draw: Draw) -> tuple[str, Any] | ReadFailure:
        place = draw.item
        for name, each in self.sets.items():
            if place < len(each):
                item = each[Draw(place, draw.seed)]
                return item if isinstance(item, ReadFailure) else (name, item)
            place -= len(each)
        raise IndexError(draw.item)


def _by_set(items: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, item in items:
        found.setdefault(name, []).append(item)
    return found


def _scenes_by_set(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: scenes_together(each) for name, each in _by_set(items).items()}


def _crops_by_set(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: crops_together(each) for name, each in _by_set(items).items()}
