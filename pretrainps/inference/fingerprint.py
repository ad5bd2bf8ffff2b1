"""The fingerprint of a model: a hash of everything that its answers depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pretrainps.weights.unwrap import bare_state

FORMAT = 1
"""Part of every fingerprint. A higher number makes older features void, when what they depend on is computed otherwise."""


def fingerprint_of_model(model: nn.Module, settings: Mapping[str, Any]) -> str:
    """Return a hash of everything that a model's answers depend on: names and values of its tensors, and settings."""
    digest = hashlib.sha256(repr((FORMAT, sorted(settings.items()))).encode())
    for name, tensor in bare_state(model).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
