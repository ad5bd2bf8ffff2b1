"""Fine-tuning of a person-search detector as a task for the engine, measured by the data set's own protocol."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from pretrainps.data.batching import AspectBatches, BatchSampler, ShuffledBatches
from pretrainps.data.loading import Loader, Scenes, scenes_together
from pretrainps.data.records import SearchSet, Split
from pretrainps.data.transforms import SceneAugmentation
from pretrainps.detectors import DetectorConfig, PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import protocol, require_suitable
from pretrainps.evaluation.evaluate import evaluate
from pretrainps.evaluation.selection import with_available_lists
from pretrainps.training.batch_settings import SceneSettings
from pretrainps.training.engine.settings import LoopSettings, OptimSettings
from pretrainps.training.engine.task import Batch, LoaderStream
from pretrainps.training.sources import described
from pretrainps.weights.unwrap import unwrap

log = logging.getLogger("pretrainps")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneRecipe:
    """All settings of a fine-tuning. Its data are given apart from them."""

    kind: str
    """The detector, a key of `pretrainps.detectors.DETECTORS`."""
    detector: DetectorConfig
    """The detector's settings. The number of identities is filled in when the data are read."""
    protocol: str
    """The protocol that it is measured by, a key of `pretrainps.evaluation.PROTOCOLS`."""
    backbone: str = "resnet50-hybrid"
    """The model to start from: a name as `pretrainps.load` takes it, a folder of a pre-training, or "random:ARCH"."""
    with_heads: bool = True
    """Start also from the heads of a pre-training, if there are any."""
    same_people: bool = False
    """Keep the identity tables, if it starts from a detector that was trained on the same people."""
    gallery: int | None = None
    """Size of each query's gallery, if the protocol has lists. By default the protocol's own, or the smallest there is."""
    scenes: SceneSettings = field(default_factory=SceneSettings)
    group_by_aspect: bool = False
    """Keep upright and wide images apart: less padding, but not the papers' way."""
    optim: OptimSettings = field(default_factory=OptimSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    workers: int = 2
    """Processes that read images."""


class Finetuning:
    """A `Task`.

    Args:
        recipe: How it is trained.
        detector: The detector, built for the training split's number of people.
        train: Scenes with people, some of them with identities.
        test: The data that it is measured on; None measures nothing.

    Raises:
        ArgumentError: too few images for a batch; no person with an identity; a test that the protocol does not suit.
    """

    def __init__(
        self, recipe: FinetuneRecipe, detector: PersonSearchDetector[Any], train: Split, test: SearchSet | None = None
    ) -> None:
        detector = unwrap(detector)
        if not isinstance(detector, PersonSearchDetector):
            raise ArgumentError(
                f"a {type(detector).__name__} is no detector. pretrainps.build_detector puts one on a backbone."
            )
        if len(train.identities) < 2:
            raise ArgumentError(
                f"the training split of {train.dataset} names {len(train.identities)} people: to tell people apart takes 2."
            )
        self.recipe, self.detector, self.train, self.test = recipe, detector, train, test
        self.protocol = protocol(recipe.protocol)
        if test is not None:
            if self.protocol.gallery != "frames" and test.lists:
                usual = with_available_lists(self.protocol, test)
                self.protocol = replace(usual, gallery=recipe.gallery or usual.gallery)
            require_suitable(test, self.protocol)
            kept = detector.config.score_threshold
            if kept > self.protocol.min_score:
                log.warning(
                    "the protocol %s takes detections of score %g and above, but the detector keeps only those above %g: set "
                    "detector.score_threshold=%g to measure by it.",
                    self.protocol.name,
                    self.protocol.min_score,
                    kept,
                    self.protocol.min_score,
                )
        detector.require_batch_size(self.batch_size)
        self._batches(0, 1)  # finds out at once whether batches can be made

    @property
    def model(self) -> nn.Module:
        """The detector."""
        return self.detector

    @property
    def batch_size(self) -> int:
        """Scenes in a batch."""
        return self.recipe.scenes.batch_size

    @property
    def metric(self) -> str | None:
        """Mean average precision, if there is a test."""
        return None if self.test is None else "mAP"

    def stream(self, rank: int, world_size: int) -> LoaderStream:
        """Return scenes of one process."""
        look = self.recipe.scenes
        scenes = Scenes(self.train, SceneAugmentation(flip=look.flip, colour=look.colour, crop=look.crop))
        return LoaderStream(Loader(scenes, self._batches(rank, world_size), scenes_together, workers=self.recipe.workers))

    def names(self, batch: Batch) -> list[str]:
        """Return the scenes' names."""
        return [str(target["name"]) for target in batch[1]]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Search the test's gallery, and measure how many people were detected in it."""
        if self.test is None:
            return {}
        model = unwrap(model)
        assert isinstance(model, PersonSearchDetector)
        measured = evaluate(model, self.test, self.protocol, on_damage="skip", progress=False)
        search, detection = measured.search, measured.detection
        assert search is not None and detection is not None
        return {
            "mAP": search.mAP,
            "top1": search.top1,
            "top5": search.top5,
            "detection_ap": detection.ap,
            "detection_recall": detection.recall,
        }

    def describe(self) -> dict[str, Any]:
        """Return fingerprints of the data, the protocol, and what the detector started from."""
        spec, sets = getattr(self.detector, "spec", None), {"train": self.train}
        if self.test is not None:
            sets["gallery"] = self.test.gallery
        return {
            "data": described(sets),
            "protocol": self.protocol.words(self.detector.config.score_threshold) if self.test is not None else None,
            "started_from": spec and {"name": spec.name, "note": spec.provenance.note, "sha256": spec.sha256},
        }

    def _batches(self, rank: int, world_size: int) -> BatchSampler:
        seed = self.recipe.loop.seed
        if not self.recipe.group_by_aspect:
            return ShuffledBatches(len(self.train), self.batch_size, seed=seed, rank=rank, world_size=world_size)
        aspects = [size[1] / size[0] for sample in self.train.with_sizes().samples if (size := sample.size)]
        return AspectBatches(aspects, self.batch_size, seed=seed, rank=rank, world_size=world_size)
