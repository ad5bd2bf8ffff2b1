"""Are these images, boxes and targets what a detector can work with? If not, say which image and which field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pretrainps.errors import ArgumentError
from pretrainps.images.pixels import require_fractions

PERSON = 1
"""The only label there is; 0 would be background, as in torchvision."""


_FARTHEST = 1e7
"""Pixels from an image within which a box can lie. A box that reaches further is a mistake, and its width may overflow."""


def check_images(images: Sequence[Tensor], max_size: int, device: torch.device | None = None) -> None:
    """Check images by type, shape, place, and what is in them.

    Args:
        images: What was given.
        max_size: The longer side that they are resized to at most.
        device: Where they must lie; by default anywhere together.

    Raises:
        ArgumentError: not a list of (3, H, W) float tensors of RGB in 0..1; or an image so thin that nothing would be left of
            it; or one that lies elsewhere.
    """
    check_shapes(images, max_size)
    for index, image in enumerate(images):
        place = device or images[0].device
        if image.device != place:
            raise ArgumentError(
                f"image {index} lies on {image.device}, but the {'model' if device else 'first one'} on {place}. Move it: "
                f"image.to({str(place)!r})."
            )
    require_fractions(images, "image {}")


def check_precision(weight: Tensor, *, training: bool) -> None:
    """See that the kind of number of a model's weights goes with what is done.

    Raises:
        ArgumentError: training in half precision, or autocast around weights that are in half precision already.
    """
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return
    if training:
        raise ArgumentError(
            f"this model's weights are {weight.dtype}, in which steps of training are lost. Train in float32 "
            "(model.float()), and compute in half precision under torch.autocast, or by loop.precision in a recipe."
        )
    if torch.is_autocast_enabled(weight.device.type):
        raise ArgumentError(f"this model's weights are {weight.dtype} already: leave torch.autocast off.")


def check_shapes(images: Sequence[Tensor], max_size: int) -> None:
    """Check images by type, shape and kind of number; see `check_images`."""
    _check_list(images, "images", "(3, H, W) tensors")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise ArgumentError(f"images: expected a list of (3, H, W) tensors, not one tensor {tuple(images.shape)}.")
    for index, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ArgumentError(
                f"image {index}: expected a (3, H, W) float tensor, not {type(image).__name__}. "
                "`pretrainps.images.pixels.to_tensor` makes one of a path, PIL image or array."
            )
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ArgumentError(f"image {index}: expected (3, height, width), not {tuple(image.shape)}.{_hint(image)}")
        if not image.is_floating_point():
            raise ArgumentError(f"image {index}: expected float pixels in 0..1, not {image.dtype}; divide by 255.")
        if max(image.shape[1:]) > max_size * min(image.shape[1:]):
            raise ArgumentError(
                f"image {index}: {image.shape[1]}x{image.shape[2]} is so thin that its shorter side would be resized to "
                "nothing."
            )


def _hint(image: Tensor) -> str:
    """Say what probably has to be done to an image of another shape."""
    if image.ndim == 3 and image.shape[2] == 3:
        return " Channels come first: image.permute(2, 0, 1)."
    return " Leave the opacity out: image[:3]." if image.ndim == 3 and image.shape[0] == 4 else ""


def _check_list(given: object, name: str, of: str) -> None:
    if not isinstance(given, Sequence | Tensor):
        raise ArgumentError(f"{name}: expected a list of {of}, one an image, not {type(given).__name__}.")


def check_boxes(boxes: object, where: str) -> Tensor:
    """Return boxes as float32.

    Args:
        boxes: (N, 4) x1, y1, x2, y2 in pixels, of any kind of number. They may leave the image.
        where: Which boxes, for the message.

    Raises:
        ArgumentError: another shape, NaN or infinity, or a box without width or height.
    """
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        found = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        raise ArgumentError(f"{where}: expected (N, 4) x1, y1, x2, y2, not {found}.")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise ArgumentError(f"{where}: expected numbers, not {boxes.dtype}.")
    boxes = boxes.detach().to(torch.float32)
    wild = ~(boxes.abs() <= _FARTHEST).all(dim=1)  # NaN too
    if bool(wild.any()):
        row = int(wild.nonzero()[0])
        what = "is too far from any image" if bool(boxes[row].isfinite().all()) else "is not finite"
        raise ArgumentError(f"{where}: row {row} {what}: {boxes[row].tolist()}.")
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1)
    if bool(flat.any()):
        row = int(flat.nonzero()[0])
        raise ArgumentError(
            f"{where}: row {row} has no positive width and height: {boxes[row].tolist()}. Boxes are x1, y1, x2, y2 "
            "(a box given as x, y, width, height looks like this too)."
        )
    return boxes


def check_query_boxes(boxes: Sequence[Tensor], images: Sequence[Tensor], *, one_each: bool = False) -> list[Tensor]:
    """Return one float32 box tensor an image, on the image's device.

    Args:
        boxes: For each image (N, 4).
        images: The images.
        one_each: Whether it must be one box an image, which may then come as (4,) too.

    Raises:
        ArgumentError: not one tensor an image, or boxes that cannot be.
    """
    _check_list(boxes, "boxes", "(N, 4) tensors")
    if len(boxes) != len(images):
        raise ArgumentError(f"boxes: expected one tensor for each of the {len(images)} images, not {len(boxes)}.")
    checked = []
    for index, (given, image) in enumerate(zip(boxes, images, strict=True)):
        where = f"image {index}: boxes"
        single = one_each and isinstance(given, Tensor) and given.ndim == 1
        found = check_boxes(given[None] if single else given, where)
        if one_each and len(found) != 1:
            raise ArgumentError(f"{where}: expected the one person searched for, not {len(found)}.")
        checked.append(found.to(image.device))
    return checked


def check_targets(
    targets: Sequence[Mapping[str, Any]] | None, images: Sequence[Tensor], ids_end: int
) -> list[dict[str, Tensor]]:
    """Return targets as tensors of the right kinds, on their images' devices.

    Args:
        targets: One mapping an image: `boxes` (P, 4); `ids` (P,) in -1 .. ids_end - 1, -1 for a person without a label;
            and perhaps `labels` (P,), all 1.
        images: The images.
        ids_end: The first identity that cannot be.

    Raises:
        ArgumentError: naming the image and the field.
    """
    if targets is None:
        raise ArgumentError("targets are missing: training needs one mapping with boxes and ids an image.")
    _check_list(targets, "targets", "mappings")
    if len(targets) != len(images):
        raise ArgumentError(f"targets: expected one for each of the {len(images)} images, not {len(targets)}.")
    if not len(images):
        raise ArgumentError("images: training needs at least one.")
    checked = []
    for index, (target, image) in enumerate(zip(targets, images, strict=True)):
        where = f"image {index}"
        if not isinstance(target, Mapping):
            raise ArgumentError(f"{where}: its target must be a mapping, not {type(target).__name__}.")
        for field in ("boxes", "ids"):
            if field not in target:
                raise ArgumentError(
                    f"{where}: its target has no {field!r}; it has {', '.join(map(repr, target)) or 'nothing'}."
                )
        boxes = check_boxes(target["boxes"], f"{where}: boxes")
        ids = _check_ids(target["ids"], len(boxes), ids_end, f"{where}: ids")
        labels = target.get("labels")
        if labels is not None and not (
            isinstance(labels, Tensor) and labels.shape == ids.shape and bool((labels == PERSON).all())
        ):
            raise ArgumentError(
                f"{where}: labels: expected {len(boxes)} times {PERSON} (a person), for there is no other class."
            )
        checked.append({"boxes": boxes.to(image.device), "ids": ids.to(image.device)})
    return checked


def _check_ids(ids: object, people: int, end: int, where: str) -> Tensor:
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool or tuple(ids.shape) != (people,):
        found = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ArgumentError(f"{where}: expected ({people},) whole numbers, one a box, not {found}.")
    ids = ids.to(torch.int64)
    wrong = (ids < -1) | (ids >= end)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ArgumentError(
            f"{where}: row {row} is {int(ids[row])}; expected 0 .. {end - 1}, or -1 for a person without a label. "
            "Number the identities of the training set from 0, or build the detector with more."
        )
    return ids
