"""Models for crops, and bare backbones, as functions of a batch with any number of images.

What `pretrainps.preprocess` does to one picture lies inside, so that a program without this package cannot do it wrongly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.errors import UnsupportedModelError
from pretrainps.export.graph.signature import Free, Graph, Slot
from pretrainps.heads import CropModel
from pretrainps.images.pixels import Preprocess
from pretrainps.registry.specs import Interpolation

BatchModel = CropModel | Backbone
LEAST_SIDE = 64
"""Of images that keep their own size, in pixels. Below it some networks' last map has one pixel, which is a case of its own."""
_BATCH = Free("batch", "N")
_PIXELS = "float32 RGB in 0..1"


class BatchGraph(Graph):
    """Images -> unit vectors, class scores or feature maps.

    Args:
        model: A crop model or a backbone, float32 and in eval mode. Its backbone becomes of the type `dtype`.
        preprocess: What is done to a picture before the model sees it. Without a size, images keep theirs.
        dtype: What the backbone computes in. Preparing pixels and the head stay in float32, and so do inputs and outputs.

    Raises:
        UnsupportedModelError: images of any size, and a network that cannot be recorded so.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: BatchModel, preprocess: Preprocess, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone: Backbone = model.backbone if isinstance(model, CropModel) else model
        self.head: nn.Module | None = model.head if isinstance(model, CropModel) else None
        self.size, self.convention, self.dtype = preprocess.size, preprocess.convention, dtype
        if self.size is None:
            _require_any_size(self.backbone)
        self.backbone.to(dtype)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(self.convention, name)).view(3, 1, 1))
        least, example = (2, 60) if self.size else (LEAST_SIDE, LEAST_SIDE + 32)
        sides = (Free("height", "H", least, example), Free("width", "W", least, example + 30))
        limit = f", resized to {self.size[0]}x{self.size[1]} inside" if self.size else f", H and W at least {LEAST_SIDE}"
        self.inputs = {"images": Slot((_BATCH, 3, *sides), _PIXELS + limit)}
        self.outputs = _outputs(model, self.size)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run everything. (N, 3, H, W) RGB in 0..1 -> float32, a row or a map for each image."""
        maps = self.backbone(self._prepared(images).to(self.dtype))
        if self.head is not None:
            return self.head(maps["c5"].float())  # type: ignore[no-any-return]
        return tuple(each.float() for each in maps.values())

    def _prepared(self, images: Tensor) -> Tensor:
        """Do what `Preprocess` does, for a whole batch."""
        if self.size is not None:
            images = resampled(images, self.size, self.convention.interpolation)
        if self.convention.colour == "bgr":
            images = images.flip(1)
        return (images * self.convention.scale - self.mean) / self.std


def resampled(images: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Resize antialiased, as PyTorch's own operation does: (N, 3, H, W) in 0..1 -> (N, 3, *size) in 0..1.

    Written out as two products of matrices: no exporter follows PyTorch's operation for sizes that it does not know, and
    runtimes have antialiased resizing of their own kinds. For images that have the size already, the matrices are ones.
    """
    rows, columns = (_weights(images, dim, target, interpolation) for dim, target in zip((2, 3), size, strict=True))
    return (rows @ (images @ columns.T)).clamp(0, 1)


def _weights(images: Tensor, dim: int, target: int, interpolation: Interpolation) -> Tensor:
    """Return how much of each pixel along a side goes into each new one, (target, length), rows of sum 1."""
    length = images.shape[dim]
    # counted by sums of ones, because a range would be made on the device of the recording, wherever the images lie
    places, centres = (images.new_ones(number).cumsum(0) - 0.5 for number in (length, target))
    step = images.new_ones(length).sum() / target
    distance = (places - (centres * step)[:, None]).abs() / step.clamp(min=1)
    if interpolation == "bicubic":  # Keys' kernel with a = -0.5
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    else:
        weights = (1 - distance).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _outputs(model: BatchModel, size: tuple[int, int] | None) -> dict[str, Slot]:
    if isinstance(model, Backbone):
        maps = {}
        for each in model.feature_maps:
            sides = (Free(f"{each.name}_{side}", f"~{side[0].upper()}/{each.stride}") for side in ("height", "width"))
            maps[each.name] = Slot((_BATCH, each.channels, *sides))
        return maps
    if model.head_spec.kind == "classifier":
        assert model.head_spec.num_classes is not None
        return {"scores": Slot((_BATCH, model.head_spec.num_classes), "logits")}
    return {"embeddings": Slot((_BATCH, model.head.dim), "unit vectors")}  # type: ignore[arg-type]


def _require_any_size(backbone: Backbone) -> None:
    """Refuse what PyTorch's exporter would reason about for hours: sizes rounded up to whole windows or strides."""
    for module in backbone.modules():
        if hasattr(module, "window_size") or type(module).__name__.endswith("Same"):
            raise UnsupportedModelError(
                f"{backbone.arch} cannot be written for images of any size, because its {type(module).__name__} pads them "
                "by their size. Give the size that images are resized to: --size crop or --size HEIGHTxWIDTH "
                "(size='crop' or (height, width) in Python)."
            )
