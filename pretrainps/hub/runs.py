"""Find the model in the folder of a training run, and its configuration.

`pretrainps finetune` and `pretrain` make a folder with `config.json` and `checkpoints/`, and at their end `model/` or
`backbone/`. A weight file in it has a configuration in its header. In runs of earlier versions it has not; there the run's
settings are used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrainps.download.kinds import safetensors_header
from pretrainps.errors import CheckpointFormatError, IntegrityError, WeightsUnavailableError
from pretrainps.files import CONFIG, WEIGHTS, sha256_of
from pretrainps.hub.run_settings import config_of_run
from pretrainps.registry.specs import PRETRAINING
from pretrainps.weights.write import read_metadata

CHECKPOINTS, BEST = "checkpoints", "best.safetensors"
"""The folder of a run's checkpoints, and the file in it with the best weights so far."""
MODEL, AVERAGED, TRAINING, STATE, MANIFEST = (
    "model.safetensors",
    "averaged.safetensors",
    "training.pt",
    "state.json",
    "manifest.json",
)
"""The files of a checkpoint."""
RESULTS = ("model", "backbone")
"""Folders of a run's result: a detector, or a pre-trained backbone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunWeights:
    """A file of weights that a training wrote."""

    path: Path
    name: str
    """The path for `file:`: the file, or the folder that `save_pretrained` wrote."""
    words: str
    """A description of it."""
    config: Mapping[str, Any] | None
    """Its configuration, in the form that `save_pretrained` writes; `None` if neither header nor run determine it."""


def find_weights(path: Path) -> RunWeights | None:
    """Return the weights for a path in a training's folder; `None` for any other path.

    Args:
        path: A run's folder, its `checkpoints`, one checkpoint, `config.json`, or a weight file.

    Raises:
        WeightsUnavailableError: the run has no weights yet, or the file holds none.
        IntegrityError: the given checkpoint was changed after it was written.
    """
    found = _find(Path(os.path.abspath(path)))
    if found is None or path.is_absolute():
        return found
    # a relative path gives relative answers
    return replace(found, path=Path(os.path.relpath(found.path)), name=os.path.relpath(found.name))


def _find(path: Path) -> RunWeights | None:
    if path.name == CONFIG and is_run(path.parent):
        path = path.parent
    if path.is_dir():
        if is_run(path):
            return _of_run(path)
        if path.name == CHECKPOINTS and is_run(path.parent):
            return _of_checkpoints(path) or _nothing(path.parent)
        return _of_checkpoint(path) if is_checkpoint(path) else None
    if not path.is_file():
        return None
    if is_checkpoint(path.parent):
        if path.name in (MODEL, AVERAGED):
            return _of_checkpoint(path.parent, path.name)
        if path.name in (TRAINING, STATE, MANIFEST):
            raise WeightsUnavailableError(
                f"{path} belongs to a checkpoint, but holds no weights: load the checkpoint's folder, file:{path.parent}."
            )
    if path.name == BEST and path.parent.name == CHECKPOINTS and is_run(path.parent.parent):
        return _best(path)
    return None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training."""
    config = _read(folder / CONFIG)
    return "pretrainps" not in config and {"loop", "optim"} <= set(config)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint of a training."""
    return all((folder / name).is_file() for name in (MODEL, STATE, MANIFEST))


def damage_of(path: Path, only: str | None = None) -> str | None:
    """Return what is wrong with a checkpoint; `None` if every file has its recorded size and sha256.

    Args:
        path: The checkpoint's folder.
        only: Check only this file.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, digest) in manifest.items() if only is None else [(only, manifest[only])]:
            found = (path / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if sha256_of(path / name) != digest:
                return f"{name} does not have its recorded sha256"
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        return str(error)
    return None


def _of_run(run: Path) -> RunWeights:
    """Return the result of a run; if the run has not ended, the best or the newest weights so far."""
    ended = _is_at_its_end(run)
    for name in RESULTS:
        folder = run / name
        config = _read(folder / CONFIG).get("pretrainps")
        if ended and (folder / WEIGHTS).is_file() and isinstance(config, Mapping):
            words = "what came out of a run that is at its end"
            return RunWeights(path=folder / WEIGHTS, name=str(folder), words=words, config=config)
    return _of_checkpoints(run / CHECKPOINTS) or _nothing(run)


def _of_checkpoints(folder: Path) -> RunWeights | None:
    if (folder / BEST).is_file():
        return _best(folder / BEST)
    for checkpoint in reversed(_checkpoints(folder)):
        if damage_of(checkpoint, _weights(checkpoint)) is None:
            return _of_checkpoint(checkpoint)
    return None


def _of_checkpoint(folder: Path, name: str | None = None) -> RunWeights:
    name = name or _weights(folder)
    damage = damage_of(folder, name)
    if damage is not None:
        others = [
            each.name for each in _checkpoints(folder.parent) if each != folder and damage_of(each, _weights(each)) is None
        ]
        remedy = f"{others[-1]} is whole: load that" if others else "No other checkpoint of the run is whole"
        raise IntegrityError(f"{folder} is damaged: {damage}. {remedy}.")
    position = _read(folder / STATE).get("position")
    step = position.get("step", "?") if isinstance(position, Mapping) else "?"
    what = "the running mean of the weights" if name == AVERAGED else "the weights"
    return _file(folder / name, f"{what} of a run's checkpoint at step {step}")


def _best(path: Path) -> RunWeights:
    step = read_metadata(path).get("step", "?")
    return _file(path, f"the best weights so far of a run, of step {step}")


def _file(path: Path, words: str) -> RunWeights:
    config = read_metadata(path).get("config")
    if not isinstance(config, Mapping):
        run = next((each for each in (path.parent.parent, path.parent.parent.parent) if is_run(each)), None)
        config = None if run is None else config_of_run(_read(run / CONFIG), _saved_at_its_end(run), _shapes(path))
    if config is not None and config.get("layout") == PRETRAINING:
        words += " (a pre-training: the backbone is loaded)"
    return RunWeights(path=path, name=str(path), words=words, config=config)


def _nothing(run: Path) -> RunWeights:
    damaged = _checkpoints(run / CHECKPOINTS)
    why = (
        f"its checkpoints are damaged ({damaged[-1].name}: {damage_of(damaged[-1])})" if damaged else "it has no checkpoint yet"
    )
    raise WeightsUnavailableError(
        f"{run} is the folder of a training without weights: {why}. Its model will be in {run / RESULTS[0]} or "
        f"{run / RESULTS[1]} when the training has ended; continue it (--resume)."
    )


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if path.is_dir())


def _weights(checkpoint: Path) -> str:
    """Return the file of a checkpoint's weights to use: the running mean, if there is one."""
    return AVERAGED if (checkpoint / AVERAGED).exists() else MODEL


def _is_at_its_end(run: Path) -> bool:
    """Whether the newest checkpoint is at the run's last step. A run that was resumed with more steps is not at its end."""
    loop = _read(run / CONFIG).get("loop")
    found = _checkpoints(run / CHECKPOINTS)
    position = _read(found[-1] / STATE).get("position") if found else None
    if not isinstance(loop, Mapping) or not isinstance(position, Mapping):
        return True  # the checkpoints were deleted after the end
    step, epoch, steps, epochs = position.get("step"), position.get("epoch"), loop.get("max_steps"), loop.get("epochs")
    by_steps = isinstance(step, int) and isinstance(steps, int) and step >= steps
    return by_steps or (isinstance(epoch, int) and isinstance(epochs, int) and epoch >= epochs)


def _saved_at_its_end(run: Path) -> Mapping[str, Any] | None:
    """Return the configuration of the result that the run saved at an earlier end."""
    found = [_read(run / name / CONFIG).get("pretrainps") for name in RESULTS]
    return next((each for each in found if isinstance(each, Mapping)), None)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        header = safetensors_header(path)
    except CheckpointFormatError:
        return {}
    return {key: tuple(entry["shape"]) for key, entry in header.items() if key != "__metadata__"}


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON record; empty if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
