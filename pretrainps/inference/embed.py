"""Embed image files with a crop model and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.errors import ArgumentError, ImageError
from pretrainps.files import new_file
from pretrainps.heads import CropModel
from pretrainps.images.read import read_image
from pretrainps.inference.runner import READERS, ImageFailure, ImageInput, ModelRunner, read_ahead, with_progress
from pretrainps.weights import write_safetensors
from pretrainps.weights.unwrap import unwrap


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit vectors of images, one row each, and the images that could not be read."""

    paths: tuple[Path, ...]
    vectors: Tensor
    """(N, D) float32, rows of length 1."""
    failures: tuple[tuple[Path, str], ...] = ()

    @property
    def similarity(self) -> Tensor:
        """(N, N) cosine similarities."""
        return self.vectors @ self.vectors.T

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "images": [str(path) for path in self.paths],
            "vectors": self.vectors.tolist(),
            "similarity": self.similarity.tolist(),
            "failures": [{"image": str(path), "reason": reason} for path, reason in self.failures],
        }

    def save(self, path: Path) -> None:
        """Write the vectors to a file that is never seen half-written.

        Args:
            path: FILE.safetensors, with the images' names in its metadata, or FILE.npy.

        Raises:
            ArgumentError: another ending.
            CacheError: the folder cannot be written to, or the disk is full.
        """
        if path.suffix == ".safetensors":
            write_safetensors({"vectors": self.vectors}, path, {"images": [str(each) for each in self.paths]})
        elif path.suffix == ".npy":
            with new_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, self.vectors.numpy())
        else:
            raise ArgumentError(f"{path}: the ending says the format; use .safetensors or .npy.")

    def table(self, most: int = 12) -> str:
        """Return the similarities as text: a square for a few images, each one's nearest for many."""
        unique = len({path.name for path in self.paths}) == len(self.paths)
        names = [path.name if unique else str(path) for path in self.paths]
        names = [name if len(name) <= 32 else "..." + name[-29:] for name in names]
        width = max(map(len, names), default=0)
        if len(names) > most:
            return self._nearest(names, width)
        head = " " * (width + 2) + "".join(f"{index:>7}" for index in range(1, len(names) + 1))
        rows = [
            f"{name:<{width}}  " + "".join(f"{value:7.3f}" for value in row)
            for name, row in zip(names, self.similarity.tolist(), strict=True)
        ]
        return "\n".join([head, *rows])

    def _nearest(self, names: list[str], width: int) -> str:
        others = self.similarity - 4 * torch.eye(len(names))
        values, indices = others.max(dim=1)
        rows = [
            f"{name:<{width}}  {value:6.3f}  {names[index]}"
            for name, value, index in zip(names, values.tolist(), indices.tolist(), strict=True)
        ]
        return "\n".join([f"{'image':<{width}}  nearest", *rows])


def embed(
    model: CropModel,
    images: Sequence[Path],
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> Embeddings:
    """Embed image files. Files that cannot be read are reported in the result, and the others embedded.

    Args:
        model: From `pretrainps.load(name, head="embedding")`.
        images: Image files; each whole image is taken as one crop.
        batch_size: Images a forward pass.
        progress: Show a progress bar.

    Raises:
        ArgumentError: the model has no embedding head, or is in training mode.
        ImageError: not one of the images can be read.
    """
    model = unwrap(model)
    if not isinstance(model, CropModel) or model.head_spec.kind != "embedding":
        raise ArgumentError("this model gives no embeddings. Load it with head='embedding'.")
    runner = ModelRunner(model, batch_size=batch_size)
    answers = runner.embed(read_ahead(_read, images, ahead=batch_size + READERS))
    paths: list[Path] = []
    rows: list[Tensor] = []
    failures: list[tuple[Path, str]] = []
    for answer in with_progress(answers, total=len(images), what="embedding", show=progress):
        if isinstance(answer, ImageFailure):
            failures.append((answer.key, answer.reason))
        else:
            paths.append(answer.key)
            rows.append(torch.from_numpy(answer.detections.embeddings))
    if not rows:
        reasons = "\n".join(f"  {reason}" for _, reason in failures)
        raise ImageError(f"none of the {len(images)} images can be read:\n{reasons}")
    vectors = torch.nn.functional.normalize(torch.cat(rows), dim=1)  # half precision misses length 1
    return Embeddings(tuple(paths), vectors, tuple(failures))


def _read(path: Path) -> ImageInput[Path] | ImageFailure[Path]:
    try:
        return ImageInput(key=path, pixels=pil_to_tensor(read_image(path)))
    except ImageError as error:
        return ImageFailure(key=path, error=error)
