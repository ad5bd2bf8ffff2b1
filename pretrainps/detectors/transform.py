"""From images of any size to what the network wants, and boxes there and back.

Resizing, padding and box scaling are torchvision's (`GeneralizedRCNNTransform`); colour order and scale are the weights'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from pretrainps.ops.precision import to_float32
from pretrainps.registry.specs import InputConvention

DIVISOR = 32
"""Padded sides are multiples of this, so that every stride up to 32 divides them."""
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Images that have the same size once they are resized and padded."""

    members: tuple[int, ...]
    """Their places in the list that was given."""
    batch: ImageList
    """(n, 3, H, W), with each image's size before padding."""
    original_sizes: tuple[Size, ...]
    """Each image's height and width as given."""

    def to_network(self, member: int, boxes: Tensor) -> Tensor:
        """Scale boxes (N, 4) of one of the images to the resized one."""
        return resize_boxes(boxes, self.original_sizes[member], self.batch.image_sizes[member])  # type: ignore[arg-type]

    def to_image(self, member: int, boxes: Tensor) -> Tensor:
        """Scale boxes (N, 4) in one of the resized images back."""
        return resize_boxes(boxes, self.batch.image_sizes[member], self.original_sizes[member])  # type: ignore[arg-type]


class SceneTransform(GeneralizedRCNNTransform):
    """Normalize, resize and batch whole images.

    Args:
        convention: How the backbone's weights want their pixels.
        min_size: Length the shorter side is resized to, in pixels,
        max_size: unless the longer side would then be longer than this.
    """

    def __init__(self, convention: InputConvention, min_size: int, max_size: int) -> None:
        mean = [value / convention.scale for value in convention.mean]
        std = [value / convention.scale for value in convention.std]
        super().__init__(min_size, max_size, mean, std, size_divisible=DIVISOR)
        self.colour = convention.colour

    def configure(self, min_size: int, max_size: int) -> None:
        """Resize to other lengths; see the class."""
        self.min_size, self.max_size = (min_size,), max_size  # type: ignore[assignment]  # torchvision keeps a tuple

    def normalize(self, image: Tensor) -> Tensor:
        """(3, H, W), or (N, 3, H, W), RGB in 0..1 -> the network's colour order, mean and deviation."""
        image = to_float32(image)  # a resized picture's pixels would be rounded twice otherwise
        return super().normalize(image.flip(-3) if self.colour == "bgr" else image)

    def groups(self, images: Sequence[Tensor]) -> Iterator[Group]:
        """Batch only images that come out equally large.

        A convolution sees the padding that a larger neighbour would bring, if only by the bias behind it. Images that keep to
        their own kind give the same in a batch as alone.
        """
        resized = [self.resize(self.normalize(image))[0] for image in images]
        kinds: dict[Size, list[int]] = {}
        for index, image in enumerate(resized):
            height, width = image.shape[-2:]
            kinds.setdefault((-height // DIVISOR, -width // DIVISOR), []).append(index)
        for members in kinds.values():
            pixels = [resized[index] for index in members]
            yield Group(
                tuple(members),
                ImageList(self.batch_images(pixels, DIVISOR), [_size(image) for image in pixels]),
                tuple(_size(images[index]) for index in members),
            )


def _size(image: Tensor) -> Size:
    height, width = image.shape[-2:]
    return int(height), int(width)
