"""The registry of backbone architectures, and a function to build one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pretrainps.backbones import resnet, shufflenet_v1, solider_swin, timm_adapter
from pretrainps.backbones.base import Backbone
from pretrainps.backbones.timm_adapter import TimmBackbone
from pretrainps.errors import ArgumentError, UnknownModelError
from pretrainps.weights.key_layout import KeyLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """How to build and to recognize an architecture."""

    build: Callable[..., Backbone]
    family: str
    """The architectures that share key layouts (`KEY_LAYOUTS`)."""
    meta_safe: bool = False
    """Whether every tensor is in the state dict, so that none is lost when the model is built on the meta device."""
    signature_key: str = ""
    """A part of a key that every file of it has, in any layout. So it need not be built for a comparison with other files."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet18": Architecture(build=resnet.resnet18, family="resnet", meta_safe=True),
    "resnet50": Architecture(build=resnet.resnet50, family="resnet", meta_safe=True),
    "resnet_tiny": Architecture(build=resnet.resnet_tiny, family="resnet", meta_safe=True),
    "shufflenetv1": Architecture(build=shufflenet_v1.shufflenetv1, family="shufflenet_v1", meta_safe=True),
    "solider_swin_tiny": Architecture(
        build=solider_swin.solider_swin_tiny, family="solider_swin", signature_key="semantic_embed_w"
    ),
    "solider_swin_small": Architecture(
        build=solider_swin.solider_swin_small, family="solider_swin", signature_key="semantic_embed_w"
    ),
    "solider_swin_base": Architecture(
        build=solider_swin.solider_swin_base, family="solider_swin", signature_key="semantic_embed_w"
    ),
}
"""The package's own architectures; every other name is `timm:NAME`."""

KEY_LAYOUTS: Mapping[str, tuple[KeyLayout, ...]] = {
    "resnet": resnet.KEY_LAYOUTS,
    "shufflenet_v1": shufflenet_v1.KEY_LAYOUTS,
    "solider_swin": solider_swin.KEY_LAYOUTS,
    "timm": timm_adapter.KEY_LAYOUTS,
}
"""The key layouts that each family of backbones knows, except its own names."""


def build_backbone(arch: str, options: Mapping[str, Any] | None = None, *, empty: bool = False) -> Backbone:
    """Build a backbone with random weights.

    Args:
        arch: A key of `ARCHITECTURES`, or `timm:NAME`.
        options: Keyword arguments of that architecture's function.
        empty: Whether to build on the meta device, if the architecture allows it. This saves memory and random numbers for
        weights that a checkpoint will replace.

    Raises:
        UnknownModelError: there is no such architecture.
        ArgumentError: the architecture does not have an option.
        UnsupportedModelError: the timm model cannot be split.
    """
    build: Callable[..., Backbone]
    if arch.startswith("timm:"):
        build, meta = partial(TimmBackbone, arch.removeprefix("timm:")), False
    elif arch in ARCHITECTURES:
        build, meta = ARCHITECTURES[arch].build, empty and ARCHITECTURES[arch].meta_safe
    else:
        near = difflib.get_close_matches(arch, ARCHITECTURES, n=2)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UnknownModelError(
            f"unknown architecture {arch!r}. {hint}It must be timm:NAME or one of {', '.join(ARCHITECTURES)}."
        )
    try:
        with torch.device("meta") if meta else contextlib.nullcontext():
            return build(**(options or {}))
    except TypeError as error:
        if not options:
            raise
        raise ArgumentError(f"architecture {arch}: {error}. Correct its arch_options.") from error
