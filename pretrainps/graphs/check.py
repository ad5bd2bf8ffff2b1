"""Does a written graph find what the detector finds?

A trained detector finds nobody in noise, and that two programs agree on nothing says little. So they are compared at a
threshold low enough for some people, and again at one that nobody passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pretrainps.errors import UnsupportedModelError
from pretrainps.graphs.running import Run
from pretrainps.graphs.scenes import Detector

TOLERANCES: Mapping[str, float] = {"boxes": 1e-4, "scores": 1e-3, "embeddings": 1e-3}
"""Largest differences: of a box's side, measured by the image's longer side; of a score; of an embedding, by its length."""
_PROBE = (3, 30, 400)
"""So long that little of it is left when it is resized: the check should not take longer than the export."""
_PROBES = 3
"""Tries. In noise, proposals overlap to all degrees and score alike: where two programs round differently, one proposal may
take another's place, and one detection then differs entirely. A wrong graph is wrong every time."""
_RANKS = slice(4, 24)
"""Where among the scores the threshold is put: at the widest gap, so that rounding moves nobody across."""
_UNREACHABLE = 1.0
"""No score is higher."""


def check_detecting(detector: Detector, run: Run) -> dict[str, float]:
    """Compare a graph that detects with its detector.

    Args:
        detector: In eval mode, on the CPU.
        run: Runs the graph.

    Returns:
        The largest differences, by output, in the measures of `TOLERANCES`.

    Raises:
        UnsupportedModelError: they are larger.
    """
    everyone = detector.configured(score_threshold=0.0)
    names = ("boxes", "scores", "embeddings")

    def differences(probe: Tensor) -> dict[str, float]:
        expected = everyone([probe])[0]
        threshold = _threshold(expected["scores"])
        some = expected["scores"] > threshold
        found = dict(zip(names, run({"image": probe}, threshold), strict=True))
        nobody = run({"image": probe}, _UNREACHABLE)
        if any(len(each) for each in nobody):
            return dict.fromkeys(names, math.inf)
        return _differences({name: expected[name][some] for name in names}, found, max(probe.shape))

    return _least(differences(probe) for probe in _probes())


def check_embedding(detector: Detector, run: Run) -> dict[str, float]:
    """Compare a graph that embeds with its detector; see `check_detecting`."""

    def differences(probe: Tensor) -> dict[str, float]:
        height, width = probe.shape[1:]
        boxes = torch.tensor([[0.0, 0.0, width / 8, height], [width / 4, height / 4, width / 3, height * 0.9]])
        (found,) = run({"image": probe, "boxes": boxes}, None)
        return _differences({"embeddings": detector.embed([probe], [boxes])[0]}, {"embeddings": found}, width)

    return _least(differences(probe) for probe in _probes())


def _probes() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(_PROBE, generator=generator) for _ in range(_PROBES))


def _threshold(scores: Tensor) -> float:
    """Return what some score above, not the first few and not all. (N,), the best first."""
    ranked = scores[_RANKS] if len(scores) > _RANKS.start + 1 else scores
    if len(ranked) < 2:
        return 0.0
    gap = int((ranked[:-1] - ranked[1:]).argmax())
    return float(ranked[gap : gap + 2].mean())


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], longer_side: int) -> dict[str, float]:
    largest = {}
    for name, value in expected.items():
        if found[name].shape != value.shape:
            largest[name] = math.inf
            continue
        difference = (found[name] - value).abs()
        if name == "boxes":
            difference = difference / longer_side
        elif name == "embeddings":
            difference = difference.norm(dim=1) / value.norm(dim=1)
        largest[name] = float(difference.max()) if len(difference) else 0.0
    return largest


def _least(tries: Iterator[dict[str, float]]) -> dict[str, float]:
    """Return the first differences that are small enough."""
    seen = []
    for differences in tries:
        if all(value <= TOLERANCES[name] for name, value in differences.items()):  # and so not NaN
            return differences
        seen.append(", ".join(f"{name} {value:.2g}" for name, value in differences.items()))
    raise UnsupportedModelError(
        f"the written graph does not find what the model finds: in {len(seen)} probes, the largest differences were "
        f"{'; '.join(seen)}, and {TOLERANCES} were allowed. Nothing was kept. Try another format."
    )
