"""Checkpoints: everything that a training needs to be resumed. Each is complete or not there, and loading it runs no code.

A checkpoint is a folder with

- `model.safetensors`: parameters and buffers, so look-up tables and queues too; its header says what the model is, so that
  `pretrainps.load` takes the file alone;
- `averaged.safetensors`: the same with the weights' running mean, if there is one;
- `training.pt`: optimizer, gradient scaler and each process's random number generators, read by torch's restricted unpickler;
- `state.json`: step, epoch, batches used, best measure, length of the log;
- `manifest.json`: size and sha256 of each of these.

It is written under another name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import CheckpointFormatError, StateDictMismatchError, UnknownModelError
from pretrainps.files import disk_errors, flush_names, flush_to_disk, new_file, write_text
from pretrainps.heads import CropModel
from pretrainps.hub.publish import saved_config
from pretrainps.hub.runs import AVERAGED as AVERAGED
from pretrainps.hub.runs import BEST as BEST
from pretrainps.hub.runs import MANIFEST as MANIFEST
from pretrainps.hub.runs import MODEL as MODEL
from pretrainps.hub.runs import STATE as STATE
from pretrainps.hub.runs import TRAINING as TRAINING
from pretrainps.hub.runs import damage_of as damage_of
from pretrainps.weights.read import read_object, read_tensors
from pretrainps.weights.unwrap import unwrap
from pretrainps.weights.write import METADATA_KEY

log = logging.getLogger("pretrainps")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of a checkpoint."""

    model: Mapping[str, Tensor]
    """Parameters and buffers."""
    averaged: Mapping[str, Tensor] | None
    """The same with the running mean of the weights, if there is one."""
    training: Mapping[str, Any]
    """State of the optimizer, the scaler and the generators: tensors, numbers, strings and containers only."""
    state: Mapping[str, Any]
    """The position in the training, ready for JSON."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """The headers of the weights' files, ready for JSON."""


@runtime_checkable
class DescribedModel(Protocol):
    """A model that says what its checkpoints are loaded as."""

    def checkpoint_config(self) -> dict[str, Any]:
        """Return what `save_pretrained` would write into `config.json`."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: The folder that holds them.
        keep: How many are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, snapshot: Snapshot, *, evaluated: bool = False) -> Path:
        """Write a checkpoint and delete the oldest ones.

        Args:
            step: Steps taken. Names of later checkpoints sort behind those of earlier ones.
            snapshot: The content.
            evaluated: Whether the step was evaluated. Its name then sorts behind that of the checkpoint before the evaluation.

        Raises:
            CacheError: no space, or not writable; nothing incomplete is left, and those before are as they were.
        """
        name = f"step_{step:09d}" + ("_evaluated" if evaluated else "")
        final = self.folder / name
        temporary = self.folder / f".{name}.tmp"
        before = self.newest()
        hint = f"{before.name} is whole: resume the run from it." if before else "No checkpoint was written yet."
        with disk_errors(final, hint):
            try:
                self._write(temporary, snapshot)
                shutil.rmtree(final, ignore_errors=True)  # a damaged one that was passed over on resuming
                temporary.rename(final)
                flush_names(self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self._prune()
        return final

    def save_best(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> Path:
        """Write the best weights so far, in place of those before.

        Raises:
            CacheError: no space, or not writable; those before are as they were.
        """
        final = self.folder / BEST
        with new_file(final) as temporary:
            temporary.write_bytes(_safetensors(tensors, notes))
        return final

    def newest(self) -> Path | None:
        """Return the last checkpoint, whether it is whole or not."""
        found = self._all()
        return found[-1] if found else None

    def newest_whole(self) -> Path | None:
        """Return the last checkpoint that is undamaged. Give a warning for each damaged one after it."""
        for path in reversed(self._all()):
            damage = damage_of(path)
            if damage is None:
                return path
            log.warning("%s is damaged (%s); going back to the checkpoint before it.", path, damage)
        return None

    def clear_remains(self) -> None:
        """Delete incomplete files that a killed process left."""
        for path in self.folder.glob(".*.tmp"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step_*") if path.is_dir())

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        written = {MODEL: _write_file(folder / MODEL, _safetensors(snapshot.model, snapshot.notes))}
        if snapshot.averaged is not None:
            written[AVERAGED] = _write_file(folder / AVERAGED, _safetensors(snapshot.averaged, snapshot.notes))
        packed = io.BytesIO()
        torch.save(dict(snapshot.training), packed)
        written[TRAINING] = _write_file(folder / TRAINING, packed.getbuffer())
        written[STATE] = _write_file(folder / STATE, json.dumps(snapshot.state, indent=1).encode())
        _write_file(folder / MANIFEST, json.dumps(written, indent=1).encode())
        flush_names(folder)

    def _prune(self) -> None:
        """Keep the last checkpoints; of each step only the one after its evaluation."""
        newest = {path.name.removesuffix("_evaluated"): path for path in self._all()}
        kept = [newest[step] for step in sorted(newest)[-self.keep :]]
        for path in self._all():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def load_snapshot(path: Path) -> Snapshot:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointFormatError: damaged, or not written by this package.
        OSError: a file is missing.
    """
    training = read_object(path / TRAINING, mapped=False, plain=True)
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    if not isinstance(training, dict) or not isinstance(state, dict):
        raise CheckpointFormatError(f"{path}: not a checkpoint of a pretrainps training.")
    averaged = path / AVERAGED
    return Snapshot(
        model=read_tensors(path / MODEL, mapped=False),
        averaged=read_tensors(averaged, mapped=False) if averaged.exists() else None,
        training=training,
        state=state,
    )


def weights_file(path: Path) -> Path:
    """Return a checkpoint's weights to use: the mean, if there is one."""
    return path / AVERAGED if (path / AVERAGED).exists() else path / MODEL


def checkpoint_notes(model: nn.Module) -> dict[str, Any]:
    """Return what the header of a checkpoint says, so that it loads by itself; nothing for a model of another package.

    Args:
        model: The model that is trained. A model of another kind can say itself what its checkpoints are loaded as, by a method
            `checkpoint_config`.
    """
    model = unwrap(model)
    if isinstance(model, DescribedModel):
        return {"config": model.checkpoint_config()}
    if not isinstance(model, Backbone | CropModel | PersonSearchDetector) or not hasattr(model, "spec"):
        return {}
    try:
        return {"config": saved_config(model)}
    except (StateDictMismatchError, UnknownModelError) as error:
        log.warning("The checkpoints of this run can be resumed, but not loaded by themselves: %s", error)
        return {}


def _safetensors(tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> bytes:
    # copies, for the format takes neither tensors that share memory nor strided ones
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in sorted(tensors.items())}
    return safetensors.torch.save(copies, {METADATA_KEY: json.dumps(notes, sort_keys=True)} if notes else None)


def _write_file(path: Path, content: bytes | memoryview) -> tuple[int, str]:
    """Write a file, wait for the disk, and return size and sha256.

    The writers of torch and safetensors fail with their own errors when the disk is full. Python's error gives the reason.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        flush_to_disk(file.fileno())
    return len(content), hashlib.sha256(content).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write a small record that people and programs can read."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
