"""Recognise a whole detector in the originals' key layouts, from keys and shapes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pretrainps.backbones import build_backbone
from pretrainps.checkpoint.layouts import layout_of
from pretrainps.detectors import assemble
from pretrainps.errors import ArgumentError, LayoutError
from pretrainps.recognition import PREFIXES, Recognition, Shape
from pretrainps.registry.specs import ASSUMED_INPUT, FileFormat

_ARCHITECTURES = ("resnet50", "resnet18")
_BATCH_COUNT = "num_batches_tracked"
_OURS_ALONE = "oim_loss.cursor"


def recognise_detector(shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = ()) -> Recognition | None:
    """Return the detector that a file is of, with every tensor of it there and none left over; `None` if there is no such.

    The sizes of the lookup table, the queue and the embedding are read off the file. Of two settings that leave no trace in
    it (thresholds, image size) the defaults are taken.

    Args:
        shapes: The file's keys and shapes.
        wrapper: Where in the file they were found.
    """
    for prefix in PREFIXES:
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        if "roi_heads.reid_loss.lut" not in inside or len(inside) != len(shapes):
            continue
        for kind, layout_name in _suggested(inside):
            for arch in _ARCHITECTURES:
                found = _compared(kind, arch, layout_name, inside, prefix, wrapper)
                if found is not None:
                    return found
    return None


def _suggested(shapes: Mapping[str, Shape]) -> Iterator[tuple[str, str]]:
    """Yield the detectors and layouts that a telltale key speaks for."""
    if "roi_heads.faster_rcnn_predictor.cls_score.weight" in shapes:
        yield "seqnet", "seqnet"
    if "roi_heads.box_predictor.cls_score.weight" in shapes:
        pixelwise = len(shapes.get("roi_heads.embedding_head.projectors.feat_res5.0.weight", ())) == 4
        yield ("nae+" if pixelwise else "nae"), "nae"


def _compared(
    kind: str, arch: str, layout_name: str, shapes: Mapping[str, Shape], prefix: str, wrapper: tuple[str, ...]
) -> Recognition | None:
    backbone = build_backbone(arch, empty=True)
    layout = layout_of(f"{kind}-{backbone.family}", layout_name)
    foreign = {key for key in shapes if any(key.startswith(pattern.removesuffix("*")) for pattern in layout.foreign)}
    try:
        own = {key: torch.empty(shape, device="meta") for key, shape in shapes.items() if key not in foreign}
        native = {key: tuple(value.shape) for key, value in layout.to_native(own).items()}
    except (RuntimeError, LayoutError):  # a tensor of another shape, or two keys that become one: not this layout
        return None
    table, queue = native.get("oim_loss.lookup_table", ()), native.get("oim_loss.queue", ())
    if len(table) != 2 or len(queue) != 2:
        return None
    config: dict[str, Any] = {"num_identities": table[0], "embedding_dim": table[1], "queue_size": queue[0]}
    if kind == "nae+":
        config["fuse_c4"] = "embedding_head.projectors.c4.0.weight" in native
    try:
        with torch.device("meta"):
            model = assemble(kind, backbone, config, ASSUMED_INPUT)
    except (ArgumentError, RuntimeError):  # a table without rows, or longer than any tensor
        return None
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    absent = [key for key in wanted if key not in native]
    if any(wanted.get(key) != shape for key, shape in native.items()):
        return None
    if any(not key.endswith(_BATCH_COUNT) and key != _OURS_ALONE for key in absent):
        return None
    patterns = [_OURS_ALONE] + ([f"*{_BATCH_COUNT}"] if any(key.endswith(_BATCH_COUNT) for key in absent) else [])
    return Recognition(
        arch=arch,
        detector=model.detector_spec(),
        file=FileFormat(
            layout=layout_name,
            wrapper=wrapper,
            prefix=prefix,
            expected_missing=tuple(patterns),
            tensors=len(native),
        ),
        matched=len(native),
        foreign=tuple(prefix + key for key in shapes if key in foreign),
    )
