"""Batches of several data sets of one sub-task, checked and joined: one data set after the other, in the settings' order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrainps.detectors.validation import check_boxes, check_images, check_targets
from pretrainps.errors import ArgumentError
from pretrainps.images.pixels import require_fractions
from pretrainps.losses.oim import UNLABELLED

Scenes = tuple[Sequence[Tensor], Sequence[Mapping[str, Any]]]
"""Images and targets, as `pretrainps.data.loading.scenes_together` gives them."""
Crops = tuple[Tensor, Tensor, Tensor]
"""Crops, ids and cameras, as `pretrainps.data.loading.crops_together` gives them."""


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """Scenes of all data sets."""

    images: list[Tensor]
    """For each scene (3, H, W) in 0..1."""
    targets: list[dict[str, Tensor]]
    """`boxes` (P, 4), `ids` (P,) of -1 only, for identities play no part, and `ignore` (M, 4), in pixels of the image."""
    counts: list[int]
    """Number of items of each data set."""

    @classmethod
    def join(cls, batches: Mapping[str, Scenes], sets: Sequence[str], max_size: int) -> SceneBatch:
        """Check and join.

        Args:
            batches: By name of the data set. A data set that is absent has no scenes in this batch.
            sets: All names, in order.
            max_size: Largest length of the longer side that scenes are resized to.

        Raises:
            ArgumentError: an unknown data set, or images or targets that are not valid; names the data set.
        """
        _require_known(batches, sets, "detection")
        images: list[Tensor] = []
        targets: list[dict[str, Tensor]] = []
        counts = []
        for name in sets:
            pictures, wanted = batches.get(name, ((), ()))
            if pictures:
                try:
                    check_images(pictures, max_size)
                    targets += _checked(pictures, wanted)
                except ArgumentError as error:
                    raise ArgumentError(f"detection data set {name!r}: {error}") from error
            images += pictures
            counts.append(len(pictures))
        return cls(images, targets, counts)


@dataclass(frozen=True, slots=True)
class CropBatch:
    """Crops of all data sets."""

    images: Tensor
    """(N, 3, h, w) in 0..1."""
    ids: Tensor
    """(N,) in each data set's own numbering, -1 for a person without a label."""
    counts: list[int]
    """Number of items of each data set."""

    @classmethod
    def join(cls, batches: Mapping[str, Crops], people: Mapping[str, int], device: torch.device) -> CropBatch:
        """Check and join.

        Args:
            batches: By name of the data set. A data set that is absent has no crops in this batch.
            people: Number of identities of each data set, in order.
            device: Device of an empty batch.

        Raises:
            ArgumentError: an unknown data set, crops of another shape, or an id that its data set does not have.
        """
        _require_known(batches, people, "re-ID")
        present = {name: batches[name] for name in people if name in batches and len(batches[name][0])}
        for name, (crops, ids, _) in present.items():
            _check_crops(crops, ids, people[name], f"re-ID data set {name!r}")
        sizes = {name: tuple(crops.shape[2:]) for name, (crops, _, _) in present.items()}
        if len(set(sizes.values())) > 1:
            raise ArgumentError(f"re-ID crops differ in size: {sizes}. Resize them all alike (`crop_transform`).")
        nothing = torch.zeros(0, 3, *next(iter(sizes.values()), (1, 1)), device=device)
        return cls(
            torch.cat([nothing, *(crops for crops, _, _ in present.values())]),
            torch.cat([nothing.new_zeros(0, dtype=torch.int64), *(ids for _, ids, _ in present.values())]),
            [len(present[name][0]) if name in present else 0 for name in people],
        )

    def emptied(self) -> CropBatch:
        """Return the batch without its crops."""
        return CropBatch(self.images[:0], self.ids[:0], [0] * len(self.counts))


def which_set(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return the data set of each row, by number: from the rows of each data set to (sum,)."""
    return torch.arange(len(counts), device=device).repeat_interleave(torch.tensor(list(counts), device=device))


def _require_known(batches: Iterable[str], sets: Iterable[str], task: str) -> None:
    known = list(sets)
    for name in batches:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ArgumentError(
                f"a batch of the {task} data set {name!r}, but the model was built for {', '.join(known) or 'none'}.{hint}"
            )


def _checked(images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
    unlabelled = [
        {**target, "ids": torch.full((len(target.get("boxes", ())),), UNLABELLED)} if isinstance(target, Mapping) else target
        for target in targets
    ]
    checked = check_targets(unlabelled, images, 1)
    for index, (target, image) in enumerate(zip(targets, images, strict=True)):
        ignore = target.get("ignore")
        checked[index]["ignore"] = (
            image.new_zeros(0, 4) if ignore is None else check_boxes(ignore, f"image {index}: ignore").to(image.device)
        )
    return checked


def _check_crops(crops: Tensor, ids: Tensor, people: int, where: str) -> None:
    if crops.ndim != 4 or crops.shape[1] != 3 or not crops.is_floating_point():
        raise ArgumentError(f"{where}: expected float crops (N, 3, h, w) in 0..1, not {tuple(crops.shape)} {crops.dtype}.")
    require_fractions([crops], f"{where}: a batch of crops")
    if tuple(ids.shape) != (len(crops),) or ids.is_floating_point():
        raise ArgumentError(f"{where}: expected ({len(crops)},) whole numbers as ids, not {tuple(ids.shape)} {ids.dtype}.")
    wrong = (ids < UNLABELLED) | (ids >= people)
    if bool(wrong.any()):
        raise ArgumentError(
            f"{where}: id {int(ids[wrong][0])}; expected 0 .. {people - 1}, or -1 for a person without a label. The model was "
            f"built for {people} people."
        )
