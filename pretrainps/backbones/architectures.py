"""The architectures by name, and building one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from pretrainps.backbones.base import Backbone
from pretrainps.backbones.resnet import resnet18, resnet50
from pretrainps.backbones.shufflenet_v1 import shufflenetv1
from pretrainps.backbones.solider_swin import solider_swin_base, solider_swin_small, solider_swin_tiny
from pretrainps.backbones.timm_adapter import TimmBackbone
from pretrainps.errors import ArgumentError, UnknownModelError

ARCHITECTURES: Mapping[str, Callable[..., Backbone]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "shufflenetv1": shufflenetv1,
    "solider_swin_tiny": solider_swin_tiny,
    "solider_swin_small": solider_swin_small,
    "solider_swin_base": solider_swin_base,
}
"""Built by the package itself; every other name is `timm:NAME`."""

_META_SAFE = {"resnet18", "resnet50", "shufflenetv1"}
"""Architectures all of whose tensors are in their state dict, so that none is lost when they are built without memory."""


def build_backbone(arch: str, options: Mapping[str, Any] | None = None, *, empty: bool = False) -> Backbone:
    """Build a backbone with random weights.

    Args:
        arch: A key of `ARCHITECTURES`, or `timm:NAME`.
        options: Keyword arguments of that architecture's function.
        empty: Build on the meta device where the architecture allows it: no memory and no random numbers are spent on
            weights that a checkpoint is about to replace.

    Raises:
        UnknownModelError: no such architecture.
        ArgumentError: an option that the architecture does not have.
        UnsupportedModelError: a timm model that cannot be split.
    """
    build: Callable[..., Backbone]
    if arch.startswith("timm:"):
        name = arch.removeprefix("timm:")
        build = lambda **kwargs: TimmBackbone(name, **kwargs)  # noqa: E731
    elif arch in ARCHITECTURES:
        build = ARCHITECTURES[arch]
    else:
        near = difflib.get_close_matches(arch, ARCHITECTURES, n=2)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise UnknownModelError(
            f"unknown architecture {arch!r}. {hint}It must be timm:NAME or one of {', '.join(ARCHITECTURES)}."
        )
    try:
        with torch.device("meta" if empty and arch in _META_SAFE else torch.get_default_device()):
            return build(**(options or {}))
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ArgumentError(f"architecture {arch}: {error}. Correct its arch_options.") from error
