"""The base class of all backbones: named feature maps, a split into trunk and last stage, freezing and checkpointing.

Maps have their usual names: c2, c3, c4, c5 at strides 4, 8, 16, 32. A person-search detector of the C4 kind runs the
*trunk* (up to c4) once for each image, and the *last stage* (c4 to c5) once for each region.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pretrainps.backbones.measuring import require_measurable
from pretrainps.backbones.precision import matching
from pretrainps.errors import ArgumentError
from pretrainps.registry.specs import ModelSpec
from pretrainps.weights import Adapter, LoadReport


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """A feature map that a backbone returns."""

    name: str
    channels: int
    stride: int


class Backbone(nn.Module):
    """Base of all backbones: a chain of named segments, each a chain of modules.

    Attributes:
        arch: Name of the architecture: a key of `ARCHITECTURES`, or `timm:NAME`.
        family: The architectures that share key layouts (`pretrainps.backbones.registry.KEY_LAYOUTS`).
        feature_maps: The maps that `forward` returns, in order.
        segments: The names of each segment's modules, in order of computation. A segment with the name of a map ends in that
        map; "stem" ends in no map.
        dropped_keys: Shell patterns of the keys of the original model after the last stage (norm, classifier). A file may hold
            them;
        the backbone does not.
        adapter: Converts files of this architecture to its key names, where no key layout can.
        spec: The spec of the loaded weights; set by `pretrainps.load`.
        load_report: The report of the loading; set by `pretrainps.load`.
    """

    arch: str
    family: str
    feature_maps: tuple[FeatureInfo, ...]
    segments: Mapping[str, tuple[str, ...]]
    dropped_keys: tuple[str, ...] = ()
    adapter: Adapter | None = None
    spec: ModelSpec
    load_report: LoadReport

    def __init__(self, arch: str, family: str) -> None:
        super().__init__()
        self.arch = arch
        self.family = family
        self.gradient_checkpointing = False
        self._frozen_up_to: str | None = None
        self._frozen_batch_norm = False
        self._statistics_move = False

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each map, `{"c4": 1024, ...}`."""
        return {feature.name: feature.channels for feature in self.feature_maps}

    @property
    def strides(self) -> dict[str, int]:
        """Stride of each map in input pixels, `{"c4": 16, ...}`."""
        return {feature.name: feature.stride for feature in self.feature_maps}

    def options(self) -> dict[str, Any]:
        """Return the arguments of `build_backbone`, besides the architecture, that build this one again."""
        return {}

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return all feature maps.

        Args:
            images: (N, 3, H, W), preprocessed.

        Returns:
            name -> (N, C, about H / stride, about W / stride), from the finest to the coarsest.
        """
        self._require_images(images)
        if self.training:
            self._require_measurable(images)
        maps = self.trunk_maps(images)
        maps["c5"] = self.last_stage(maps["c4"])
        return maps

    def trunk_maps(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps up to stride 16. (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ...}."""
        self._require_images(images)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = images
        for name in self.segments:
            if name != "c5":
                x = self._run(name, x)
                if name in self.channels:
                    maps[name] = x
        return maps

    def trunk(self, images: Tensor) -> Tensor:
        """Return the stride-16 map. (N, 3, H, W) -> (N, channels["c4"], H / 16, W / 16)."""
        return self.trunk_maps(images)["c4"]

    def last_stage(self, c4: Tensor) -> Tensor:
        """Run the last stage on a stride-16 map, or on regions pooled from one.

        Args:
            c4: (N, channels["c4"], h, w).

        Returns:
            (N, channels["c5"], about h / 2, about w / 2).
        """
        return self._run("c5", c4)

    def split(self) -> tuple[Self, Self]:
        """Return the trunk and the last stage as two backbones with weights of their own.

        The first supports `trunk`, the second `last_stage`; each keeps its own keys. A C4 detector runs the first once for each
        image, and one or more copies of the second on its regions.
        """
        trunk, last = self._modules_by_half()
        return self._without(last), self._without(trunk)

    def _modules_by_half(self) -> tuple[list[str], list[str]]:
        """Return the paths of the modules that only the trunk uses, and of those that only the last stage uses."""
        trunk = [path for name, paths in self.segments.items() if name != "c5" for path in paths]
        return trunk, list(self.segments["c5"])

    def _without(self, paths: list[str]) -> Self:
        """Copy the backbone with some modules replaced by empty ones."""
        return copy.deepcopy(self, {id(self.get_submodule(path)): nn.Identity() for path in paths})

    def freeze(self, up_to: str | None = None, *, batch_norm: bool = False, statistics_move: bool = False) -> Self:
        """Freeze the first segments, batch norm, or both; undo it with `freeze()`.

        Frozen modules stay in eval mode whatever `train()` sets, so that their statistics do not change either.

        Args:
            up_to: The last segment to freeze ("stem", "c2", ...) with all before it. `None` freezes no segment.
            batch_norm: Whether to freeze all batch norms: statistics, scale and shift.
            statistics_move: Whether frozen modules stay in training mode: their parameters are fixed, but batch norm updates
                its
            statistics (as in the stem of NAE and SeqNet).

        Raises:
            ArgumentError: there is no segment of that name.
        """
        if up_to is not None and up_to not in self.segments:
            raise ArgumentError(f"{self.arch} has no segment {up_to!r} to freeze. It has: {', '.join(self.segments)}.")
        for module in self._frozen_modules():
            module.requires_grad_(True)
        self._frozen_up_to, self._frozen_batch_norm, self._statistics_move = up_to, batch_norm, statistics_move
        for module in self._frozen_modules():
            module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except for frozen modules."""
        super().train(mode)
        if not self._statistics_move:
            for module in self._frozen_modules():
                module.eval()
        return self

    def enable_gradient_checkpointing(self, enabled: bool = True) -> Self:
        """Recompute each segment in the backward pass instead of storing its activations: less memory, more time."""
        self.gradient_checkpointing = enabled
        return self

    def segment_modules(self, name: str) -> list[nn.Module]:
        """Return the modules of one segment, in order of computation."""
        return [self.get_submodule(path) for path in self.segments[name]]

    def _require_images(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise ArgumentError(
                f"expected images as one tensor, not {type(images).__name__}: torch.stack([transform(picture), ...]), where "
                "transform = pretrainps.preprocess(model)."
            )
        if images.ndim != 4 or images.shape[1] != 3:
            hint = " Channels come first: images.permute(0, 3, 1, 2)." if images.shape[-1] == 3 else ""
            raise ArgumentError(f"expected images (N, 3, height, width), not {tuple(images.shape)}.{hint}")
        if 0 in images.shape[2:]:
            raise ArgumentError(f"images of {images.shape[2]}x{images.shape[3]} are empty. Look at where they were cut out.")

    def _require_measurable(self, images: Tensor) -> None:
        """Check that a batch gives the coarsest map more than one position for batch norm."""
        height, width = images.shape[-2:]
        places = math.prod(math.ceil(side / self.feature_maps[-1].stride) for side in (height, width))
        remedy = "Give two or more, or larger ones, and leave out a last batch of one: DataLoader(..., drop_last=True)."
        require_measurable(len(images) * places, f"image of {height}x{width} with a last map of one pixel", remedy, self)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        if self._frozen_up_to is not None:
            for name in self.segments:
                yield from self.segment_modules(name)
                if name == self._frozen_up_to:
                    break
        if self._frozen_batch_norm:
            yield from (module for module in self.modules() if isinstance(module, _BatchNorm))

    def _compute(self, name: str, x: Tensor) -> Tensor:
        """Run one segment. Subclasses override this if their modules are not a simple chain."""
        for module in self.segment_modules(name):
            x = module(x)
        return x

    def _run(self, name: str, x: Tensor) -> Tensor:
        x = matching(x, self)
        if not (self.gradient_checkpointing and self.training):
            return self._compute(name, x)
        modules = self.segment_modules(name)
        result = checkpoint(
            self._compute,
            name,
            x,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), _statistics_held(modules)),
        )
        if not isinstance(result, Tensor):
            raise TypeError(f"segment {name} of {self.arch} returned {type(result).__name__}, not a tensor")
        return result


@contextlib.contextmanager
def _statistics_held(modules: list[nn.Module]) -> Iterator[None]:
    """Let batch norm run as in training, without an update of its statistics and its count of batches.

    Recomputation runs the forward pass twice; without this, every batch would count twice.
    """
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
    held = [(m, m.momentum, m.num_batches_tracked.clone()) for m in norms if m.num_batches_tracked is not None]
    for norm, _, _ in held:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in held:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
