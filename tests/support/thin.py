"""Weight files of full-size networks that are small: every tensor is a view of the same few thousand numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrainps.weights import torch_file

_NUMBERS = 0.5 + torch.rand(60_000, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def _as_much_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small file stand for a large one; that such files are refused has tests of its own."""
    monkeypatch.setattr(torch_file, "_SOME_BYTES", 1 << 34)


def thin_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return tensors of these shapes; no two are alike, and values differ along each axis, so that a permutation shows."""
    return {key: torch.tensor(7) if _counts(key) else _view(shape, place) for place, (key, shape) in enumerate(shapes.items())}


def _counts(key: str) -> bool:
    return key.endswith(("num_batches_tracked", "oim_loss.cursor"))


def _view(shape: tuple[int, ...], place: int) -> Tensor:
    # the product of a few lengths would be far more numbers than there are; steps of 1, 3, 5 ... stay among them
    steps = [2 * axis + 1 for axis in range(len(shape))][::-1]
    return _NUMBERS.as_strided(shape, steps, 13 * place)


def write(path: Path, tensors: Mapping[str, Tensor], wrapper: tuple[str, ...] = ()) -> Path:
    """Write a torch file with the tensors where a wrapper says."""
    content: Any = dict(tensors)
    for key in reversed(wrapper):
        content = {key: content, "epoch": 3}
    torch.save(content, path)
    return path
