"""The log of a run: one JSON object a line. A resumed run continues it from where its checkpoint was made."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pretrainps.errors import MissingPackageError, TrainingError
from pretrainps.files import disk_errors, flush_to_disk, write_text

_HINT = "Then resume the run: it continues from its last checkpoint."


@dataclass(slots=True)
class Meter:
    """Sums over the steps since the last line of the log."""

    steps: int = 0
    """Number of steps."""
    images: int = 0
    """Number of images."""
    seconds: float = 0.0
    """Duration of the steps."""
    waiting: float = 0.0
    """Seconds of these in which the next batch was not there yet."""
    grad_norm: float = 0.0
    """Sum of the gradients' norms."""
    losses: dict[str, float] = field(default_factory=dict)
    """Sum of each loss."""

    def add(self, losses: Mapping[str, float], *, grad_norm: float, images: int, seconds: float, waiting: float) -> None:
        """Count one step."""
        self.steps += 1
        self.images += images
        self.seconds += seconds
        self.waiting += waiting
        self.grad_norm += grad_norm
        for name, value in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value

    def means(self) -> dict[str, Any]:
        """Return the means over the steps, for a line of the log."""
        seconds = max(self.seconds, 1e-9)
        losses = {name: total / self.steps for name, total in self.losses.items()}
        return {
            "loss": sum(losses.values()),
            "losses": losses,
            "grad_norm": self.grad_norm / self.steps,
            "seconds": self.seconds / self.steps,
            "waiting": self.waiting / seconds,
            "images_per_second": self.images / seconds,
        }

    def state(self) -> dict[str, Any]:
        """Return the state; `Meter(**state)` continues from it."""
        return asdict(self)


class RunLog:
    """Writes the log. Without a path it writes nothing: only the main process has one.

    Args:
        path: The file.
        lines: Number of lines to keep. Later lines were written after the checkpoint from which the run is resumed.
        tensorboard: A folder for TensorBoard's files, or `None`.
        step: The step from which the run is resumed. TensorBoard drops what it has of later steps.

    Raises:
        MissingPackageError: TensorBoard is asked for, and not installed.
        CacheError: the file cannot be written, here or later.
    """

    def __init__(self, path: Path | None, *, lines: int = 0, tensorboard: Path | None = None, step: int = 0) -> None:
        self.lines = 0
        self._file = None
        self._board = _tensorboard(tensorboard, step) if path and tensorboard else None
        if path is not None:
            self._path = path
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if path.exists() else []
            write_text(path, "".join(kept))
            self.lines = len(kept)
            self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write a line.

        Args:
            kind: "start", "train" or "evaluation".
            step: Steps taken.
            values: Ready for JSON; numbers that are not finite become null.
        """
        if self._file is None:
            return
        with disk_errors(self._path, _HINT):
            self._file.write(json.dumps(_finite({"kind": kind, "step": step, **values}), ensure_ascii=False) + "\n")
            self._file.flush()
        self.lines += 1
        if self._board is not None:
            for name, value in _numbers(values):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def to_disk(self) -> None:
        """Wait until all lines are on the disk: a checkpoint relies on them."""
        if self._file is not None:
            with disk_errors(self._path, _HINT):
                flush_to_disk(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # the disk is full, which was reported before
                self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without an incomplete last line that a killed process left.

    Raises:
        TrainingError: there is no log, or a line is no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror}). Give the folder of a run.") from error
    found = []
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise TrainingError(f"{path}: line {number} is no JSON. Remove the line, or the file.") from error
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}/{inner}", number) for inner, number in _numbers(value)]
        elif isinstance(value, int | float):
            found.append((name, float(value)))
    return found


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError(
            "TensorBoard is not installed: pip install 'pretrainps[train]', or leave loop.tensorboard off."
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
