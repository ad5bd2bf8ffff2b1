"""A whole training in one call: from a recipe and the folders of data sets to the saved model.

`pretrain` and `finetune` do what the commands of these names do. `starting_model` says what a training may start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.data.layouts import layout_named, recognize_layout
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.hub.build import build_detector
from pretrainps.hub.load import load
from pretrainps.hub.publish import save_pretrained
from pretrainps.training.engine.loop import RunResult, train
from pretrainps.training.engine.processes import Processes
from pretrainps.training.engine.task import Task
from pretrainps.training.finetuning.from_detector import continue_detector
from pretrainps.training.finetuning.from_pretraining import start_detector
from pretrainps.training.finetuning.task import FinetuneRecipe, Finetuning
from pretrainps.training.pretraining.save import HEADS, save_backbone
from pretrainps.training.pretraining.task import Pretraining, PretrainRecipe
from pretrainps.training.recipes import counted
from pretrainps.training.sources import read_sets
from pretrainps.weights import read_tensors

_RANDOM = "random:"
_MAY_DIFFER = ("recipe.workers", "recipe.loop.*", "recipe.optim.*", "task.data.gallery.*", "task.protocol*")
"""Loop and optimizer are recorded twice, and the engine compares its own record of them. How many processes read, and what the
model is measured on, changes nothing in what is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a training came to."""

    result: RunResult
    """Its last step, its measures, and whether it was stopped."""
    is_main: bool
    """Whether this is the process that saves and reports, of several that train together."""
    folder: Path | None = None
    """Where the model was saved. `None` if the training was stopped early, and in all processes but the main one."""


def pretrain(
    recipe: PretrainRecipe,
    detection: Mapping[str, Path],
    reid: Mapping[str, Path],
    output: Path,
    *,
    resume: bool = False,
    force: bool = False,
    offline: bool | None = None,
    progress: bool = True,
) -> Trained:
    """Pre-train a backbone, and save it to the folder `backbone` in the run's folder.

    Args:
        recipe: How it is trained, and from which backbone.
        detection: Detection sets: name and folder. A name is a layout's, or your own.
        reid: Re-ID sets likewise.
        output: The run's folder.
        resume: Continue the run in the folder.
        force: Use data sets that their owners have withdrawn.
        offline: Never use the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Show progress bars.

    Raises:
        ArgumentError: data sets, settings or a start that do not go together.
        DatasetError: a data set is not as its layout wants it.
        TrainingError: the run's folder, losses or model do not allow to go on.
    """
    scenes, crops = read_sets(detection, "detection", force=force), read_sets(reid, "reid", force=force)
    torch.manual_seed(recipe.loop.seed)
    backbone = starting_model(recipe.backbone, offline=offline, progress=progress)
    if not isinstance(backbone, Backbone):
        raise ArgumentError(f"{recipe.backbone} is no bare backbone but a {type(backbone).__name__}. Name a backbone.")
    task = Pretraining(recipe, backbone, scenes, crops)
    return _train(
        task, recipe, output, lambda: save_backbone(task.hybrid, output / "backbone"), resume=resume, progress=progress
    )


def finetune(
    recipe: FinetuneRecipe,
    data: Path,
    output: Path,
    *,
    layout: str | None = None,
    measure: bool = True,
    resume: bool = False,
    force: bool = False,
    offline: bool | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Train a detector, and save the best one to the folder `model` in the run's folder.

    Args:
        recipe: How it is trained, and what it starts from. The number of identities is filled in.
        data: The folder of a data set for person search.
        output: The run's folder.
        layout: What the data set is, if it is not recognized.
        measure: Measure the detector on the test split while it learns; without it, that split is not read.
        resume: Continue the run in the folder.
        force: Use a data set that its owners have withdrawn.
        offline: Never use the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Show progress bars.
        say: Gets the report of what the detector takes over.

    Raises:
        ArgumentError: data set, settings or a start that do not go together.
        DatasetError: the data set is not as its layout wants it.
        TrainingError: the run's folder, losses or model do not allow to go on.
    """
    found = layout_named(layout) if layout else recognize_layout(data)
    scenes = found.read(data, found.main_splits[0], force=force)
    test = found.read_search(data, force=force) if measure else None
    recipe = counted(recipe, len(scenes.identities))
    detector = _starting_detector(recipe, offline=offline, progress=progress)
    if say is not None and hasattr(detector, "load_report"):
        say(str(detector.load_report))
    task = Finetuning(recipe, detector, scenes, test)
    return _train(task, recipe, output, lambda: save_pretrained(detector, output / "model"), resume=resume, progress=progress)


def starting_model(name: str, *, offline: bool | None = None, progress: bool = True) -> Backbone | PersonSearchDetector[Any]:
    """Return the model that a training starts from.

    Args:
        name: As `pretrainps.load` takes it; or the folder of a training, or of what one saved; or "random:ARCH".
        offline: Never use the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Show progress bars.

    Raises:
        ArgumentError: it is neither a backbone nor a detector.
    """
    if name.startswith(_RANDOM):
        return build_backbone(name.removeprefix(_RANDOM))
    folder = _pretrained(name)
    if folder is None and Path(name).expanduser().is_dir():  # of a run that has not ended, for example
        folder = Path(name)
    loaded = load(name if folder is None else f"file:{folder}", offline=offline, progress=progress)
    if not isinstance(loaded, Backbone | PersonSearchDetector):
        raise ArgumentError(f"{name} is neither backbone nor detector but a {type(loaded).__name__}.")
    return loaded


def _starting_detector(recipe: FinetuneRecipe, *, offline: bool | None, progress: bool) -> PersonSearchDetector[Any]:
    """Return the detector that a fine-tuning starts with, on the pre-trained backbone or from the detector that is named."""
    torch.manual_seed(recipe.loop.seed)
    people = recipe.detector.num_identities
    folder = _pretrained(recipe.backbone)
    if folder is not None:
        return start_detector(recipe.kind, folder, num_identities=people, with_heads=recipe.with_heads, config=recipe.detector)
    start = starting_model(recipe.backbone, offline=offline, progress=progress)
    if isinstance(start, Backbone):
        return build_detector(recipe.kind, backbone=start, config=recipe.detector)
    return continue_detector(
        start, kind=recipe.kind, num_identities=people, same_people=recipe.same_people, config=recipe.detector
    )


def _pretrained(name: str) -> Path | None:
    """Return the folder of a pre-trained backbone and its heads, if the name is of that or of the run that made it."""
    folder = Path(name.removeprefix("file:")).expanduser()
    return next((each for each in (folder / "backbone", folder) if (each / HEADS).is_file()), None)


def _train(
    task: Task,
    recipe: PretrainRecipe | FinetuneRecipe,
    output: Path,
    save: Callable[[], Path],
    *,
    resume: bool,
    progress: bool,
) -> Trained:
    """Train, and save the model with its best weights if the training came to its end."""
    result = train(
        task,
        recipe.optim,
        recipe.loop,
        output,
        resume=resume,
        config={"recipe": asdict(recipe)},
        may_differ=_MAY_DIFFER,
        progress=progress,
    )
    processes = Processes()
    if processes.count > 1:  # what follows is done by the first process only
        torch.distributed.destroy_process_group()
    if result.stopped is not None or not processes.is_main:
        return Trained(result=result, is_main=processes.is_main)
    task.model.load_state_dict(read_tensors(result.best or result.last, mapped=False))
    task.model.eval()
    return Trained(result=result, is_main=True, folder=save())
