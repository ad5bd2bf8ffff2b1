"""Does a written graph compute what the model computes?

A trained detector finds nobody in noise, and that two programs agree on nothing says little. So they are compared at a
threshold low enough for some people, and again at one that nobody passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pretrainps.errors import UnsupportedModelError
from pretrainps.export.graph.crops import BatchModel
from pretrainps.export.graph.formats import Precision
from pretrainps.export.graph.modules import Detector
from pretrainps.export.graph.running import Run
from pretrainps.images.pixels import Preprocess

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
BATCH_TOLERANCES: Mapping[Precision, float] = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest differences of an image's vector, scores or map, by its length. As cosines: 0.9999995, 0.9998 and 0.995."""
_BATCHES = ((1, 96, 64), (2, 90, 110), (5, 140, 70))
"""Numbers and sizes of the images that batches are compared on; one image is a case of its own to an exporter."""


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


def check_batches(
    model: BatchModel, preprocess: Preprocess, run: Run, names: Sequence[str], precision: Precision
) -> dict[str, float]:
    """Compare a graph for batches with its model, on batches of several numbers and sizes.

    Args:
        model: A crop model or a backbone, float32, in eval mode, on the CPU.
        preprocess: What its pictures go through.
        run: Runs the graph.
        names: What the graph returns.
        precision: What the graph computes in.

    Returns:
        The largest differences, by output, in the measure of `BATCH_TOLERANCES`.

    Raises:
        UnsupportedModelError: they are larger.
    """
    generator = torch.Generator().manual_seed(0)
    largest = dict.fromkeys(names, 0.0)
    for number, height, width in _BATCHES:
        # as unlike each other as pictures are: patches of colour, and noise on them
        patches = torch.rand(number, 3, 5, 3, generator=generator)
        images = torch.nn.functional.interpolate(patches, (height, width), mode="bilinear")
        images = 0.8 * images + 0.2 * torch.rand(images.shape, generator=generator)
        computed = model(torch.stack([preprocess(image) for image in images]))
        expected = dict(computed) if isinstance(computed, dict) else dict(zip(names, [computed], strict=True))
        found = dict(zip(names, run({"images": images}, None), strict=True))
        for name in names:
            largest[name] = _larger(largest[name], _relative(found[name], expected[name]))
    return _least(iter([largest]), dict.fromkeys(names, BATCH_TOLERANCES[precision]))


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of an image's numbers, by their length."""
    if found.shape != expected.shape or found.dtype != torch.float32:
        return math.inf
    return float(((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max())


def _larger(one: float, other: float) -> float:
    """Return the larger, and NaN before all, which is what half precision that overflows ends in."""
    return other if math.isnan(other) or other > one else one


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


def _least(tries: Iterator[dict[str, float]], tolerances: Mapping[str, float] = TOLERANCES) -> dict[str, float]:
    """Return the first differences that are small enough."""
    seen = []
    for differences in tries:
        if all(value <= tolerances[name] for name, value in differences.items()):  # and so not NaN
            return differences
        seen.append(", ".join(f"{name} {value:.2g}" for name, value in differences.items()))
    raise UnsupportedModelError(
        f"the written graph does not find what the model finds: in {len(seen)} probes, the largest differences were "
        f"{'; '.join(seen)}, and {dict(tolerances)} were allowed. Nothing was kept. Try another format, or "
        "float32 if it was half precision."
    )
