"""Log-average miss rate (MR^-2) of pedestrian detection: the three computations behind the published numbers, each by name.

All match greedily at an overlap of 0.5, forgive what lies in ignored regions, and take the geometric mean of the share of
people missed at nine points from 0.01 to 1 false positives an image, evenly spaced in their logarithm. They differ:

- "citypersons" (`eval_MR_multisetup.py` of CityPersons): people outside the setup's height or visibility are ignored regions;
  so detections far outside its height do not take part. At each point the last miss rate with no more false positives is read.
- "eurocity" (EuroCity Persons): boxes are cut to the image, people outside the setup are forgiven by IoU instead of coverage,
  the points are exact powers of ten, and no miss rate counts as less than 1e-10.
- "crowdhuman" (CrowdDet): boxes are cut to the image, an overlap of exactly 0.5 is not enough, and at each point the first miss
  rate with at least as many false positives is read.

Where the originals' data has what `Sample` does not hold, the setups are derived from it: visibility is the visible box's share
of the whole one's area, and 1 without visible boxes. EuroCity's tags (occluded or truncated by more than 10, 40, 80 %) can be
given as `visibility`. Regions to be ignored are forgiven by coverage, the share of the detection they cover, in all three.
EuroCity's own code does so for groups, and forgives riders by IoU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretrainps.data.records import Split
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.matching import descending_order, greedy, highest_scoring, ignored_of, people_of, require_same_images
from pretrainps.evaluation.overlaps import pairs
from pretrainps.evaluation.protocols import kept_by_detector
from pretrainps.images.boxes import F64, area, coverage, iou
from pretrainps.inference.detections import Detections

Variant = Literal["citypersons", "eurocity", "crowdhuman"]

_IOU = 0.5
_EXPANSION = 1.25
"""Detections may be this much shorter or taller than the people of a setup."""
_ROUNDED = np.array([0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0])
_EXACT = 10.0 ** np.linspace(-2, 0, 9)
_MOST = 1000
"""Detections of an image that take part, by CityPersons."""
_ECP_SIZE = (1024, 1920)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Which people have to be found."""

    height: tuple[float, float] = (0.0, np.inf)
    """Pixels, both ends included."""
    visibility: tuple[float, float] = (0.0, np.inf)
    """Visible share; the upper end is included, the lower by CityPersons only."""


SETUPS: Mapping[Variant, Mapping[str, Setup]] = MappingProxyType(
    {
        "citypersons": MappingProxyType(
            {
                "reasonable": Setup(height=(50, np.inf), visibility=(0.65, np.inf)),
                "small": Setup(height=(50, 75), visibility=(0.65, np.inf)),
                "heavy": Setup(height=(50, np.inf), visibility=(0.2, 0.65)),
                "all": Setup(height=(20, np.inf), visibility=(0.2, np.inf)),
            }
        ),
        "eurocity": MappingProxyType(
            {
                "reasonable": Setup(height=(40, np.inf), visibility=(0.6, np.inf)),
                "small": Setup(height=(30, 60), visibility=(0.6, np.inf)),
                "occluded": Setup(height=(40, np.inf), visibility=(0.2, 0.6)),
                "all": Setup(height=(20, np.inf), visibility=(0.2, np.inf)),
            }
        ),
        "crowdhuman": MappingProxyType({"all": Setup()}),
    }
)
"""Variant and setup by name. EuroCity's limits are its tags': less than 40 % occluded is more than 60 % visible."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MissRateResult:
    """What `evaluate_miss_rate` found."""

    protocol: str
    """In words, what was computed."""
    miss_rate: float
    """MR^-2 in 0..1, less is better; 1 without detections, and also without people."""
    false_positives: F64
    """(9,) false positives an image at which the miss rate was read."""
    miss_rates: F64
    """(9,) what was read there."""
    num_people: int
    """People that have to be found."""
    num_ignored: int
    """People outside the setup, and ignored regions."""
    num_detections: int
    """Detections that were counted as right or wrong."""


def evaluate_miss_rate(
    split: Split,
    detections: Detections,
    *,
    variant: Variant,
    setup: str = "reasonable",
    visibility: Sequence[ArrayLike] | None = None,
) -> MissRateResult:
    """Compute MR^-2.

    Args:
        split: The images, the people in them, and the regions to ignore.
        detections: What was found in each image, in order, before any threshold.
        variant: Which computation; `SETUPS` lists them.
        setup: Which people count; "crowdhuman" has "all" only.
        visibility: For each image (N,) the visible shares of its people in 0..1, instead of those of their visible boxes.

    Raises:
        ArgumentError: an unknown variant or setup, results or visibilities that do not fit the images, or an image of unknown
            size where boxes are cut to it.
    """
    limits = _setup(variant, setup)
    require_same_images(split, detections)
    people, regions = people_of(split), ignored_of(split)
    boxes, ignore = people.boxes.astype(np.float64), regions.boxes.astype(np.float64)
    found = detections.boxes.astype(np.float64)
    if variant != "citypersons":
        sizes = _sizes(split, variant)
        boxes = _cut(boxes, np.repeat(sizes, people.counts, axis=0), variant)
        ignore = _cut(ignore, np.repeat(sizes, regions.counts, axis=0), variant)
        found = _cut(found, sizes[detections.images], variant)
    wanted = _wanted(boxes, _visibility(split, visibility), limits, variant)
    part = _takes_part(detections, found, limits, variant)
    table, found = detections.rows(part), found[part]

    one, other = pairs(table.counts, people.counts)
    overlaps = iou(found[one], boxes[other])
    enough = overlaps > _IOU if variant == "crowdhuman" else overlaps >= _IOU
    match = enough & wanted[other]
    right = greedy(one[match], other[match], overlaps[match], table.scores, len(boxes), last_wins=variant != "crowdhuman")
    forgiven = np.zeros(len(table), dtype=bool)
    outside = ~wanted[other]
    if variant == "citypersons":
        forgiven[one[outside & (coverage(found[one], boxes[other]) >= _IOU)]] = True
    else:
        forgiven[one[outside & enough]] = True
    one, other = pairs(table.counts, regions.counts)
    covered = coverage(found[one], ignore[other])
    forgiven[one[covered > _IOU if variant == "crowdhuman" else covered >= _IOU]] = True

    counted = descending_order(table.scores)
    counted = counted[(right | ~forgiven)[counted]]
    num_people = int(np.count_nonzero(wanted))
    points = _EXACT if variant == "eurocity" else _ROUNDED
    missed = _read(right[counted], num_people, len(split), points, variant)
    return MissRateResult(
        protocol=_words(variant, setup, limits) + kept_by_detector(detections.kept_above),
        miss_rate=_log_average(missed, variant),
        false_positives=points,
        miss_rates=missed,
        num_people=num_people,
        num_ignored=len(boxes) - num_people + len(ignore),
        num_detections=len(counted),
    )


def _setup(variant: str, setup: str) -> Setup:
    for known, setups in SETUPS.items():
        if variant == known:
            if setup not in setups:
                raise ArgumentError(f"{variant!r} has no setup {setup!r}. It has {', '.join(setups)}.")
            return setups[setup]
    raise ArgumentError(f"there is no miss rate {variant!r}. There are {', '.join(SETUPS)}.")


def _visibility(split: Split, given: Sequence[ArrayLike] | None) -> F64:
    """Return the visible share of everyone, (N,)."""
    if given is not None:
        shares = [np.asarray(each, dtype=np.float64) for each in given]
        if len(shares) != len(split):
            raise ArgumentError(f"visibilities of {len(shares)} images for a split of {len(split)}.")
    else:
        shares = [
            np.ones(len(sample.boxes))
            if sample.visible is None
            else area(sample.visible) / np.maximum(area(sample.boxes), 1e-12)
            for sample in split.samples
        ]
    for index, (sample, share) in enumerate(zip(split.samples, shares, strict=True)):
        if share.shape != (len(sample.boxes),):
            raise ArgumentError(f"image {index} ({sample.name}): visibilities {share.shape} for {len(sample.boxes)} people.")
    return np.concatenate(shares or [np.zeros(0)])


def _sizes(split: Split, variant: Variant) -> NDArray[np.float64]:
    """Return height and width of each image, (I, 2)."""
    sizes = []
    for index, sample in enumerate(split.samples):
        size = sample.size or (_ECP_SIZE if variant == "eurocity" else None)
        if size is None:
            raise ArgumentError(
                f"image {index} ({sample.name}): {variant!r} cuts boxes to the image, whose size is not known. Set Sample.size."
            )
        sizes.append(size)
    return np.array(sizes, dtype=np.float64).reshape(-1, 2)


def _cut(boxes: F64, sizes: NDArray[np.float64], variant: Variant) -> F64:
    """Cut boxes to their images; CrowdDet leaves a pixel to those that begin beyond the edge. (N, 4), (N, 2) -> (N, 4)."""
    far = sizes[:, ::-1]  # height, width -> x, y
    low, high = np.maximum(boxes[:, :2], 0.0), np.minimum(boxes[:, 2:], far)
    if variant == "crowdhuman":
        low, high = np.minimum(low, far - 1.0), np.maximum(high, 0.0)
    return np.hstack([low, high])


def _wanted(boxes: F64, visible: F64, setup: Setup, variant: Variant) -> NDArray[np.bool_]:
    height = boxes[:, 3] - boxes[:, 1]
    tall = (height >= setup.height[0]) & (height <= setup.height[1])
    if variant == "citypersons":
        return tall & (visible >= setup.visibility[0]) & (visible <= setup.visibility[1])
    if variant == "crowdhuman":
        return np.ones(len(boxes), dtype=bool)
    return tall & (visible > setup.visibility[0]) & (visible <= setup.visibility[1])


def _takes_part(detections: Detections, boxes: F64, setup: Setup, variant: Variant) -> NDArray[np.bool_]:
    height = boxes[:, 3] - boxes[:, 1]
    low, high = setup.height[0] / _EXPANSION, setup.height[1] * _EXPANSION
    if variant == "citypersons":
        return highest_scoring(detections, _MOST) & (height >= low) & (height < high)
    if variant == "eurocity":
        return (height > low) & (height < high)
    return np.ones(len(boxes), dtype=bool)


def _read(right: NDArray[np.bool_], num_people: int, num_images: int, points: F64, variant: Variant) -> F64:
    """Read the miss rate at numbers of false positives an image. (N,) ranked -> (9,)."""
    if len(right) == 0 or num_people == 0:
        return np.ones(len(points))
    missed = 1.0 - np.cumsum(right) / num_people
    wrong = np.cumsum(~right) / num_images
    if variant == "crowdhuman":
        return missed[np.minimum(np.searchsorted(wrong, points, side="left"), len(wrong) - 1)]
    place = np.searchsorted(wrong, points, side="right") - 1
    return np.where(place >= 0, missed[place], 1.0)  # the first detection is already one false positive too many


def _log_average(missed: F64, variant: Variant) -> float:
    floor = 1e-10 if variant == "eurocity" else 0.0
    with np.errstate(divide="ignore"):  # no one missed: log 0, and the mean is 0
        return float(np.exp(np.log(np.maximum(missed, floor)).mean()))


def _words(variant: Variant, setup: str, limits: Setup) -> str:
    who = "everyone"
    if variant != "crowdhuman":
        (low, high), (least, most) = limits.height, limits.visibility
        who = f"heights {low:g} to {high:g}, visible {least:g} to {most:g}"
    return f"MR^-2 as {variant} computes it, setup {setup!r} ({who}), IoU {_IOU:g}, nine points from 0.01 to 1 false positives"
