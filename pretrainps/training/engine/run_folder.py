"""The folder of a run: its settings, its environment, and a draft of the model's card."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from pretrainps._version import __version__
from pretrainps.errors import CacheError, TrainingError
from pretrainps.files import new_file, write_text
from pretrainps.training.engine.checkpoints import Checkpoints, write_json
from pretrainps.training.engine.log import read_log
from pretrainps.training.engine.renamed import current_name

CONFIG, ENVIRONMENT, LOG, CARD = "config.json", "environment.json", "log.jsonl", "README.md"
HARMLESS = (
    "loop.epochs",
    "loop.max_steps",
    "loop.checkpoint_*",
    "loop.keep",
    "loop.evaluate_every",
    "loop.log_every",
    "loop.tensorboard",
    "loop.gradient_checkpointing",
    "loop.find_unused_parameters",
)
"""Settings that may differ in a resumed run: they change how long it runs and what is kept, but not what it learns."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's files."""

    path: Path
    """The folder."""

    @property
    def log(self) -> Path:
        """The log."""
        return self.path / LOG

    def checkpoints(self, keep: int) -> Checkpoints:
        """Return the run's checkpoints."""
        return Checkpoints(self.path / "checkpoints", keep)

    def claim(self, config: Mapping[str, Any], *, resume: bool, may_differ: Collection[str]) -> list[str]:
        """Record the settings of a run in the folder, after comparing them with those that it holds.

        Args:
            config: All settings, nested, ready for JSON.
            resume: Whether the run in the folder is to be resumed.
            may_differ: Patterns of dotted names of settings that may differ from those of the run.

        Returns:
            The differences, one line a setting.

        Raises:
            TrainingError: a new run, but the folder holds one; or a run to resume, but the folder holds none or another one.
            CacheError: the folder cannot be written to.
        """
        self._probe()
        begun = self._has_steps()
        if begun and not resume:
            raise TrainingError(f"{self.path} holds a run already. Resume it (--resume), or choose another folder.")
        if resume and not (self.path / CONFIG).exists():
            raise TrainingError(f"{self.path} holds no run to resume: there is no {CONFIG}. Start it without --resume.")
        differences = self._differences(config, may_differ) if begun else []
        self.checkpoints(1).clear_remains()
        write_json(self.path / CONFIG, config)
        return differences

    def _has_steps(self) -> bool:
        """Return whether anything was trained here. After a start that failed there is nothing to lose."""
        logged = read_log(self.log) if self.log.exists() else []
        return self.checkpoints(1).newest() is not None or any(line["kind"] == "train" for line in logged)

    def _differences(self, config: Mapping[str, Any], may_differ: Collection[str]) -> list[str]:
        recorded = flat(json.loads((self.path / CONFIG).read_text(encoding="utf-8")))
        before = {current_name(name): value for name, value in recorded.items()}
        now = flat(json.loads(json.dumps(config)))
        changed = [name for name in {**before, **now} if before.get(name, _Absent) != now.get(name, _Absent)]
        lines = {name: f"{name}: {_shown(before, name)} -> {_shown(now, name)}" for name in changed}
        harmful = [name for name in changed if not any(fnmatchcase(name, pattern) for pattern in may_differ)]
        if harmful:
            raise TrainingError(
                f"{self.path} was begun with other settings:\n  "
                + "\n  ".join(lines[name] for name in harmful)
                + "\nResume it with those it had, or start a new run in another folder."
            )
        return list(lines.values())

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Add the environment of this part of the run to those of earlier parts."""
        starts = self.path / ENVIRONMENT
        before = json.loads(starts.read_text(encoding="utf-8")) if starts.exists() else []
        write_json(starts, [*before, environment])

    def require_space(self, model: nn.Module, *, copies: int) -> None:
        """Refuse to begin a run whose checkpoints do not fit on the disk.

        Args:
            model: The model that is saved.
            copies: How many times its size is needed.

        Raises:
            CacheError: the disk has less space.
        """
        tensors = [*model.parameters(), *model.buffers()]
        needed = copies * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise CacheError(
                f"{self.path}: the checkpoints of this run need about {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free. "
                "Free some space, choose another place, or keep fewer (loop.keep)."
            )

    def write_card(self, config: Mapping[str, Any], *, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the draft of the model's card."""
        results = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
        settings = "\n".join(f"- `{name}`: {value}" for name, value in flat(config).items())
        write_text(
            self.path / CARD,
            "---\nlibrary_name: pretrainps\ntags:\n- person-search\n---\n\n"
            f"# {self.path.name} (draft)\n\n"
            f"Trained with pretrainps {__version__}: {step} steps, {epoch} whole epochs.\n\n"
            "## Results\n\n"
            + (f"| metric | value |\n|---|---|\n{results}\n\n" if results else "Not measured yet.\n\n")
            + f"`{LOG}` holds the course of losses and measures.\n\n"
            f"## Training\n\nOn what it ran: `{ENVIRONMENT}`.\n\n"
            f"{settings}\n\n"
            "## To be written\n\n"
            "Licence and origin of the data and of the weights it started from; what it is meant for, and what not.\n",
        )

    def _probe(self) -> None:
        """Write and delete a file, so that a folder that cannot be written to is noticed before the training."""
        with new_file(self.path / ".probe") as temporary:
            temporary.write_bytes(b"pretrainps")
        (self.path / ".probe").unlink()


def environment_of(*, device: str, processes: int, seed: int, step: int) -> dict[str, Any]:
    """Return versions, machine and start time of a run, ready for JSON."""
    packages = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": step,
        "pretrainps": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "device": device,
        "processes": processes,
        "seed": seed,
    }


class _Absent:
    """Stands for a setting that is absent, because `None` is a value."""


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "(not there)"


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
