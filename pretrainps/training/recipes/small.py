"""Settings for the synthetic world on a CPU, shared by pre-training and fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pretrainps.training.engine.settings import LoopSettings, OptimSettings

TO_BE_COUNTED = 1
"""Stands for the number of identities until the training split is read."""
SMALL_DETECTOR: Mapping[str, Any] = MappingProxyType(
    {
        "rpn_candidates_train": 1000,
        "rpn_candidates": 500,
        "rpn_proposals_train": 200,
        "rpn_proposals": 60,
        "region_size": 8,
        "region_samples": 32,
        "anchor_sizes": (16, 32, 64, 128, 256),
        "pooling": "average",  # identities are learned faster
        "min_size": 416,  # the scenes have 320: on the larger maps, small people are easier to tell apart
        "max_size": 624,
    }
)
"""Settings of detectors. A detector takes those that its config has."""
SMALL_OPTIM = OptimSettings(kind="adamw", lr=1e-3, weight_decay=0.05, decay="matrices", schedule="cosine", warmup_steps=50)
SMALL_LOOP = LoopSettings(epochs=3, precision="bfloat16", channels_last=True)
