"""A detector as a function of one image of any size, in operations that `torch.export` can follow.

The computation is the detector's own. Written anew is only what asks a tensor's size in Python: how large an image becomes,
and the resizing itself for runtimes that place pixels differently.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes

from pretrainps.detectors import PersonSearchDetector
from pretrainps.detectors.config import DetectorConfig
from pretrainps.detectors.transform import DIVISOR
from pretrainps.export.graph.signature import Free, Graph, Slot

Size = tuple[int, int]
Detector = PersonSearchDetector[Any]

_IMAGE = Slot((3, Free("height", "H", 2, 60), Free("width", "W", 2, 90)), "float32 RGB in 0..1")
_FOUND, _ASKED = Free("people", "K"), Free("people", "N")
_BOXES = "x1, y1, x2, y2 in the image's pixels"


class Resize(Protocol):
    """Resizes a picture bilinearly. (3, H, W), (height, width) -> (3, height, width)."""

    def __call__(self, image: Tensor, size: Size) -> Tensor: ...  # noqa: D102


def interpolated(image: Tensor, size: Size) -> Tensor:
    """Resize with PyTorch's own operation, as the detector does."""
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def gathered(image: Tensor, size: Size) -> Tensor:
    """Resize by weighing pixels, with PyTorch's arithmetic written out.

    Other runtimes round where a pixel lies differently: in a picture 1500 wide by some 1e-4 of a pixel, and a detector's boxes
    would show it.
    """
    for dim, target in ((2, size[1]), (1, size[0])):
        length = image.shape[dim]
        step = torch.scalar_tensor(length, dtype=torch.float32) / torch.scalar_tensor(target, dtype=torch.float32)
        place = ((torch.arange(target) + 0.5) * step - 0.5).clamp(min=0)  # (target,) in the source's pixels
        low = place.floor()
        share = place - low if dim == 2 else (place - low)[:, None]
        first = low.long()
        second = (first + 1).clamp(max=length - 1)
        image = image.index_select(dim, first) * (1 - share) + image.index_select(dim, second) * share
    return image


def resized_sides(height: int, width: int, min_size: int, max_size: int) -> Tensor:
    """Return the height and width (2,) that torchvision's rule gives, rounded as Python would round them.

    In tensors, because a graph knows its sides only when it runs; in double precision, because a float32 would be off by one
    pixel for every tenth size.
    """
    sides = torch.stack([torch.scalar_tensor(side, dtype=torch.float64) for side in (height, width)])
    least = torch.full_like(sides, min_size) / sides
    most = torch.full_like(sides, max_size) / sides
    scale = torch.minimum(least.amax(dim=0), most.amin(dim=0))
    return (sides * scale).floor().to(torch.int64)


class SceneGraph(Graph):
    """What graphs for detecting and for embedding share.

    Args:
        detector: In eval mode; its modules are shared, not changed.
        resize: How pictures are resized.
        unused: Modules of the detector that the graph has no use for.
    """

    operators = ("torchvision",)

    def __init__(self, detector: Detector, resize: Resize, unused: tuple[str, ...] = ()) -> None:
        super().__init__()
        kept = {id(module): nn.Identity() if name in unused else module for name, module in detector.named_children()}
        self.detector: Detector = copy.deepcopy(detector, kept)
        self.resize = resize

    def _prepare(self, image: Tensor) -> tuple[Tensor, Size]:
        """Normalize, resize and pad: (3, H, W) -> (1, 3, a multiple of 32, another), and the size before padding."""
        transform, config = self.detector.transform, self.detector.config
        sides = resized_sides(image.shape[1], image.shape[2], config.min_size, config.max_size)
        blocks = torch.div(sides + (DIVISOR - 1), DIVISOR, rounding_mode="floor")
        height, width, rows, columns = (int_of(each) for each in (*sides.unbind(), *blocks.unbind()))
        torch._check(height <= DIVISOR * rows)
        torch._check(width <= DIVISOR * columns)
        resized = self.resize(transform.normalize(image), (height, width))[None]
        return F.pad(resized, (0, DIVISOR * columns - width, 0, DIVISOR * rows - height)), (height, width)


class DetectGraph(SceneGraph):
    """Image -> boxes, scores, embeddings.

    Attributes:
        score_threshold: A detection must score higher. A buffer, so that a written file's can still be moved.
    """

    inputs: Mapping[str, Slot] = {"image": _IMAGE}
    outputs: Mapping[str, Slot] = {
        "boxes": Slot((_FOUND, 4), _BOXES),
        "scores": Slot((_FOUND,)),
        "embeddings": Slot((_FOUND, "dim")),
    }
    score_threshold: Tensor

    def __init__(self, detector: Detector, resize: Resize) -> None:
        super().__init__(detector, resize)
        self.register_buffer("score_threshold", torch.tensor(detector.config.score_threshold))
        self.detector._config = _Settings(detector.config, self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect everyone. (3, H, W) RGB in 0..1 -> (K, 4) in its pixels, (K,), (K, dim)."""
        detector = self.detector
        pixels, size = self._prepare(image)
        (found,) = detector._detect_batch(ImageList(pixels, [size]), None)
        assert found.embeddings is not None
        return resize_boxes(found.boxes, size, _size(image)), found.scores, found.embeddings  # type: ignore[arg-type]


class EmbedGraph(SceneGraph):
    """Image and boxes of people in it -> their query embeddings."""

    inputs: Mapping[str, Slot] = {"image": _IMAGE, "boxes": Slot((_ASKED, 4), _BOXES)}
    outputs: Mapping[str, Slot] = {"embeddings": Slot((_ASKED, "dim"))}

    def __init__(self, detector: Detector, resize: Resize) -> None:
        super().__init__(detector, resize, detector.unused_by_embed)

    def forward(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Embed people. (3, H, W) RGB in 0..1, (N, 4) in its pixels -> (N, dim)."""
        pixels, size = self._prepare(image)
        scaled = resize_boxes(boxes, _size(image), size)  # type: ignore[arg-type]
        return self.detector._embed_batch(ImageList(pixels, [size]), [scaled])


def int_of(value: Tensor) -> int:
    """Return a count of at least one that is known only when the graph runs."""
    number = value.item()
    torch._check(number >= 1)
    return number  # type: ignore[return-value]


def _size(image: Tensor) -> Size:
    return image.shape[1], image.shape[2]


class _Settings:
    """A detector's config, but for the threshold, which is the graph's."""

    def __init__(self, config: DetectorConfig, graph: DetectGraph) -> None:
        self._config = config
        self._graph = graph

    @property
    def score_threshold(self) -> Tensor:
        return self._graph.score_threshold

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)
