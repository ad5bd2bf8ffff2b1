"""NAE+: norm-aware embeddings at every pixel of a region, so that what covers a person counts less.

Chen et al., "Norm-Aware Embedding for Efficient Person Search", CVPR 2020, section 3.4; formulas of
github.com/dichen-cd/NAE4PS (lib/model/faster_rcnn_pixel_wise_norm_aware.py) at ec43d1e.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.detectors.region.nae import NAE4PS_LAYOUT
from pretrainps.detectors.region.parallel_heads import ParallelHeadsConfig, ParallelHeadsDetector, RegionReadings
from pretrainps.detectors.region.recognition import SIGNATURE_KEYS, TABLES, sizes_of_tables
from pretrainps.detectors.region.roi_stage import RegionMaps, Samples, pool
from pretrainps.detectors.registry import DetectorEntry, FinetuneDefaults, Shape, register_detector
from pretrainps.heads.boxes import BatchNormBoxHead
from pretrainps.heads.norm_aware import PixelNormAwareEmbedding
from pretrainps.registry.specs import InputConvention

_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NAEPlusConfig(ParallelHeadsConfig):
    """NAE+'s settings."""

    in_weights: ClassVar[frozenset[str]] = ParallelHeadsConfig.in_weights | {"fuse_c4"}

    pooling: Literal["max", "average"] = "average"
    """How a region's map becomes the vector that its box is read off; embeddings are not pooled before they are read."""
    fuse_c4: bool = True
    """Embed both maps of a region, as the released recipe does, or the last one alone."""
    pixel_labels: Literal["original", "overlap"] = "original"
    """Which pixels of a region are a person's. `overlap`: those inside the matched person's box. `original` agrees on people,
    but the original's slices of a negative length also mark pixels of background to the right of or below the first person."""
    focal: bool = False
    """Weigh hard pixels more (alpha 0.25, gamma 2)."""


class NAEPlus(ParallelHeadsDetector[NAEPlusConfig]):
    """Pixel-wise norm-aware embeddings.

    A score is the mean over pixels, divided by the best score of the *image*; the original divides by the best of the batch,
    which is the same for batches of one. A query's embedding is not scaled to length 1, as in the original.

    Losses as `NAE`'s.
    """

    kind = "nae+"

    def __init__(self, backbone: Backbone, config: NAEPlusConfig, convention: InputConvention) -> None:
        super().__init__(backbone, config, convention)
        channels = backbone.channels
        maps = ("c4", "c5") if config.fuse_c4 else ("c5",)
        self.box_head = BatchNormBoxHead(channels["c5"])
        self.embedding_head = PixelNormAwareEmbedding({name: channels[name] for name in maps}, config.embedding_dim)

    def _read(self, maps: RegionMaps) -> RegionReadings:
        embeddings, logits = self.embedding_head({"c4": maps.c4, "c5": maps.c5})
        return RegionReadings(logits, self.box_head(pool(maps.c5, self.config.pooling)), embeddings)

    def _scores(self, logits: Tensor, counts: list[int]) -> Tensor:
        scores = logits.sigmoid().mean(dim=(1, 2)).split(counts)
        return torch.cat([each / each.amax(dim=0) if each.shape[0] else each for each in scores])

    def _gallery_embeddings(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=1)

    def _classification_loss(self, logits: Tensor, samples: Samples, targets: list[dict[str, Tensor]]) -> Tensor:
        wrap = self.config.pixel_labels == "original"
        labels = []
        for boxes, people, target in zip(samples.boxes, samples.people, targets, strict=True):
            if len(target["boxes"]) == 0:
                labels.append(logits.new_zeros(len(boxes), *logits.shape[1:]))
            else:
                labels.append(person_pixels(boxes, people, logits.shape[1:], wrap=wrap))
        loss = F.binary_cross_entropy_with_logits(logits, torch.cat(labels), reduction="none")
        if self.config.focal:
            loss = _FOCAL_ALPHA * (1 - torch.exp(-loss)) ** _FOCAL_GAMMA * loss
        return loss.mean()


def person_pixels(boxes: Tensor, people: Tensor, size: tuple[int, ...] | torch.Size, *, wrap: bool) -> Tensor:
    """Return how much of each cell of each region is a person.

    The person's box is drawn into the region's pixels, from the floor of its start to the ceiling of its end and one more, and
    that picture of zeros and ones is resized bilinearly. Rows and columns are independent of each other, so each axis is
    drawn and resized alone, for all regions at once.

    Args:
        boxes: (R, 4) regions, in pixels.
        people: (R, 4) the person matched to each.
        size: Height h and width w of a region's map.
        wrap: Let an end before the region's start count from the region's end, as a Python slice does.

    Returns:
        (R, h, w) in 0..1.
    """
    height, width = size
    rows = _covered(boxes[:, 1], boxes[:, 3], people[:, 1], people[:, 3], height, wrap)
    columns = _covered(boxes[:, 0], boxes[:, 2], people[:, 0], people[:, 2], width, wrap)
    return rows[:, :, None] * columns[:, None, :]


def _covered(start: Tensor, stop: Tensor, person_start: Tensor, person_stop: Tensor, cells: int, wrap: bool) -> Tensor:
    """Return one axis of `person_pixels`: (R,) each -> (R, cells)."""
    length = (stop - start).ceil()[:, None]
    first = (start.maximum(person_start) - start).floor()[:, None]
    end = (stop.minimum(person_stop) - start).ceil()[:, None] + 1
    if wrap:
        end = torch.where(end < 0, end + length, end)
    # where each cell's centre lies among the region's pixels, as bilinear resizing without aligned corners has it
    centres = torch.arange(cells, device=start.device, dtype=start.dtype) + 0.5
    source = (centres * (length / cells) - 0.5).clamp(min=0)  # (R, cells)
    low = source.floor()
    high = (low + 1).minimum((length - 1).clamp(min=0))
    inside = [((pixel >= first) & (pixel < end)).to(start.dtype) for pixel in (low, high)]
    return torch.lerp(inside[0], inside[1], source - low)


def _as_convolution(key: str, value: Tensor) -> Tensor:
    """Turn the matrix that projects a pooled map into the same projection of every cell, a 1x1 convolution."""
    return value[:, :, None, None] if key.startswith("embedding_head.") and value.ndim == 2 else value


def _sizes(found: Mapping[str, Shape], variant: Mapping[str, Any]) -> dict[str, Any]:
    return sizes_of_tables(found, variant, maps=("c4", "c5") if variant.get("fuse_c4", True) else ("c5",))


register_detector(
    DetectorEntry(
        name="nae+",
        model=NAEPlus,
        config=NAEPlusConfig,
        key_layouts={"resnet": (NAE4PS_LAYOUT,)},
        signature_keys=SIGNATURE_KEYS,
        sizes=_sizes,
        tables=TABLES,
        variants=({}, {"fuse_c4": False}),
        adapt_head=_as_convolution,
        own_settings=("pooling",),  # what it pools is for its box head alone; it embeds every cell of a map
        pretrained_heads={"rpn": "rpn", "embedding_head": "embedding_head"},
        recipes={
            "naeplus_cuhk": FinetuneDefaults(
                summary="NAE+ on CUHK-SYSU, with NAE's settings.",
                protocol="cuhk-sysu",
                config={"queue_size": 5000},
                epochs=22,
                decay="no_biases",
            ),
        },
    )
)
