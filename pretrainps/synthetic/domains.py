"""Domains of the synthetic world: nine invented data sets.

Three are for detection and have only boxes, three are for re-ID and have only crops, and three are for person search. They
share no camera and no person. They differ as real data sets do: in clothing, in the density of people, and in the placement
and the response of the cameras.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pretrainps.data.records import Task
from pretrainps.errors import ArgumentError
from pretrainps.synthetic.identity import MIXED, SUMMER, WINTER, Style

Span = tuple[float, float]
"""Lower and upper bound of a uniform distribution."""

_DRAWN_AT = 320
"""The frame height to which lengths in pixels refer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """The common properties of one data set's images. Lengths are in frame heights, if no other unit is given."""

    name: str
    task: Task
    """The task that it is meant for. Every domain can be drawn for every task."""
    style: Style
    cameras: int
    size: tuple[int, int] = (320, 480)
    """Height and width of a frame in pixels."""
    horizon: Span = (0.18, 0.38)
    """Distance of the horizon from the upper edge."""
    pitch: Span = (0.06, 0.24)
    """Downward angle of the cameras, in radians."""
    nearest: Span = (0.47, 0.72)
    """Height of a person with feet at the lower edge."""
    people: Span = (3, 8)
    """Number of people in a scene."""
    company: float = 0.3
    """Probability that a person has a companion next to them."""
    smallest: float = 0.11
    """Height of the farthest people; people who are drawn smaller are not annotated."""
    cast: float = 1.0
    """Difference in colour and light between cameras, as a factor."""
    tone: float = 1.0
    """Difference of all its cameras from those of other domains."""
    blur: Span = (0.0, 0.9)
    """Standard deviation of the blur, in pixels of a frame 320 pixels high."""
    noise: Span = (1, 6)
    """Standard deviation of the noise in grey levels."""
    jpeg: Span = (45, 95)
    """JPEG quality of the images."""
    tells_cameras: bool = True
    """Whether the annotation names the camera of an image."""

    def __post_init__(self) -> None:
        height, width = self.size
        if height < 96 or width < 96:
            raise ArgumentError(f"{self.name}: frames of {height} x {width} pixels are too small for people; take 96 or more.")

    @property
    def unit(self) -> float:
        """The size of one pixel of a frame 320 pixels high, in pixels of this domain's frame."""
        return self.size[0] / _DRAWN_AT


_ALL = (
    Domain(
        name="det_street",
        task="detection",
        style=MIXED,
        cameras=24,
        horizon=(0.34, 0.46),
        pitch=(0.0, 0.06),
        nearest=(0.59, 0.81),
        people=(2, 9),
        company=0.35,
        smallest=0.0625,
        cast=0.5,
        blur=(0.0, 0.5),
        noise=(0.5, 2.5),
        jpeg=(75, 96),
    ),
    Domain(
        name="det_crowd",
        task="detection",
        style=SUMMER,
        cameras=24,
        horizon=(0.02, 0.22),
        pitch=(0.05, 0.3),
        nearest=(0.53, 0.87),
        people=(12, 26),
        company=0.6,
        smallest=0.094,
        cast=0.9,
        blur=(0.0, 0.8),
        noise=(1, 5),
        jpeg=(55, 95),
    ),
    Domain(
        name="det_yard",
        task="detection",
        style=WINTER,
        cameras=12,
        horizon=(0.10, 0.22),
        pitch=(0.2, 0.42),
        nearest=(0.34, 0.47),
        people=(2, 8),
        company=0.2,
        smallest=0.0875,
        cast=1.3,
        blur=(0.4, 1.2),
        noise=(4, 10),
        jpeg=(30, 60),
    ),
    Domain(
        name="reid_market",
        task="reid",
        style=SUMMER,
        cameras=6,
        cast=0.7,
        blur=(0.2, 0.9),
        noise=(1, 4),
        jpeg=(60, 92),
    ),
    Domain(
        name="reid_hall",
        task="reid",
        style=WINTER,
        cameras=4,
        pitch=(0.15, 0.35),
        blur=(0.2, 1.1),
        noise=(3, 9),
        jpeg=(40, 80),
    ),
    Domain(
        name="reid_city",
        task="reid",
        style=MIXED,
        cameras=12,
        cast=1.1,
        blur=(0.0, 1.0),
        noise=(1, 7),
    ),
    Domain(
        name="search_campus",
        task="search",
        style=MIXED,
        cameras=6,
        people=(4, 9),
        smallest=0.106,
        cast=0.8,
        blur=(0.1, 0.9),
        jpeg=(45, 90),
    ),
    Domain(
        name="search_station",  # harder than the campus: its cameras differ more in colour
        task="search",
        style=MIXED,
        cameras=6,
        people=(4, 9),
        smallest=0.106,
        cast=1.3,
        blur=(0.1, 0.9),
        jpeg=(45, 90),
    ),
    Domain(
        name="search_album",
        task="search",
        style=SUMMER,
        cameras=40,
        horizon=(0.1, 0.42),
        nearest=(0.44, 0.84),
        cast=0.8,
        noise=(1, 5),
        jpeg=(50, 95),
        tells_cameras=False,
    ),
)

DOMAINS = {domain.name: domain for domain in _ALL}
"""Name -> domain."""


def find_domain(name: str) -> Domain:
    """Return a domain by name.

    Raises:
        ArgumentError: there is no domain of that name.
    """
    if name in DOMAINS:
        return DOMAINS[name]
    near = difflib.get_close_matches(name, DOMAINS, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(DOMAINS)}."
    raise ArgumentError(f"the synthetic world has no domain {name!r}. {hint}")
