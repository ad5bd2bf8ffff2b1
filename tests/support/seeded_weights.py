"""Weights that follow from a checkpoint key and a shape alone, the same bits everywhere: those behind the golden numbers.

Pure numpy, no torch, none of the package's own code. A splitmix64 counter stream gives 24-bit integers k, and everything after
that is exact integer arithmetic followed by a fixed short sequence of IEEE double operations and one rounding to float32.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

VERSION = "ppsfill-1"
SPECIAL = (
    ("rpn.head.cls_logits.weight", 2.0, 0.0),
    ("rpn.head.bbox_pred.weight", 0.35, 0.0),
    ("faster_rcnn_predictor.cls_score.weight", 1.5, 0.0),
    ("rescaler.weight", 1.3, 0.0),
    ("rescaler.running_mean", 1.0, 13.0),
    ("rescaler.running_var", 1.0, 13.0),
)
"""End of a key, factor, summand: applied last, in double precision. Chosen once so that scores lie around the thresholds."""

Array = np.ndarray[Any, Any]


def fill(name: str, shape: tuple[int, ...]) -> Array:
    """Return a tensor: float32, or int64 zeros for a batch counter."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    k = _stream(name, int(np.prod(shape))) * 2 - (2**24 - 1)  # odd integers in (-2**24, 2**24), symmetric
    if leaf in ("lut", "cq"):  # OIM tables: rows of length 1
        k = k.reshape(shape)
        x = k / np.sqrt((k * k).sum(1, keepdims=True).astype(np.float64))
    elif leaf in ("running_mean", "bias"):
        x = 0.05 * (k / 2.0**24)
    elif leaf == "running_var":
        x = 1.0 + 0.2 * (k / 2.0**24)
    elif leaf == "weight" and len(shape) == 1:  # a batch norm's scale
        x = 1.0 + 0.1 * (k / 2.0**24)
        if name.endswith("bn3.weight"):  # end of a residual branch
            x = 0.5 * x
    elif leaf == "weight":  # convolution, linear: uniform with He's deviation, each filter's sum zero
        k = k.reshape(shape[0], -1)
        fan_in = k.shape[1]
        x = np.sqrt(6.0 / fan_in) * ((k - k.sum(1, keepdims=True) / float(fan_in)) / 2.0**24)
    else:
        raise KeyError(f"no rule for {name} {shape}")
    factor, summand = next((special[1:] for special in SPECIAL if name.endswith(special[0])), (1.0, 0.0))
    return (x.reshape(shape) * factor + summand).astype(np.float32)


def _stream(name: str, count: int) -> Array:
    """Return integers in [0, 2**24): splitmix64 seeded with the crc32 of version and name."""
    seed = np.uint64(zlib.crc32(f"{VERSION}:{name}".encode()))
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + (seed << np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.int64)
