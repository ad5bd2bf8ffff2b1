"""Search protocols as data: what belongs to a query's gallery, what counts as found, and where query embeddings come from.

Published numbers of one data set come from several evaluators that differ in these points. A protocol states each of them, and
puts them into words for the reader of a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pretrainps.errors import ArgumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextMatching:
    """Context bipartite graph matching (CBGM): people in the same image help to find the person."""

    k1: int
    """In how many of the most similar detections' images people are matched."""
    k2: int
    """How many people of the query's image take part, the person searched for among them."""
    update: Literal["replace", "mean"] = "replace"
    """The person's match gets the best matched weight ("replace": Li and Miao, AAAI 2021), or its mean with the old
    similarity (Cao et al., CVPR 2022)."""

    def __post_init__(self) -> None:
        if self.k1 < 1 or self.k2 < 1:
            raise ArgumentError(f"k1 = {self.k1} and k2 = {self.k2} of context matching must be at least 1.")
        if self.update not in ("replace", "mean"):
            raise ArgumentError(f"update is 'replace' or 'mean', not {self.update!r}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchProtocol:
    """How a search is judged. The defaults are PRW's."""

    name: str
    """What results and the command call it."""
    gallery: int | Literal["frames", "full"] = "frames"
    """Each query's gallery: "frames", all gallery images but the query's own; a number, the protocol's list of that size; or
    "full", the list of size 50 (or the smallest there is) and all other gallery images but the query's own."""
    same_camera: Literal["keep", "drop"] = "keep"
    """Whether frames of the query's camera stay in the gallery; only for "frames"."""
    min_score: float = 0.5
    """Detections that score less do not take part; an equal score does."""
    query: Literal["annotated_box", "best_detection"] = "annotated_box"
    """The query embedding: of the annotated box, or of the detection that overlaps it most (AlignPS, PSTR)."""
    normalize: bool = False
    """Scale all embeddings to length 1 first. Off, lengths take part: those weighted by their scores stay weighted."""
    listed_twice: Literal["once", "twice"] = "once"
    """What an image that a list names twice contributes. Its person counts twice among those to be found either way."""
    full_repeats_lists: bool = False
    """With "full", let listed images take part a second time as wrong answers, as the code of Li and Miao does if its
    full set is made to run at all. A perfect search then scores about one half."""
    context: ContextMatching | None = None
    """Context matching, if it is part of the protocol."""

    def __post_init__(self) -> None:
        if self.gallery not in ("frames", "full") and not (isinstance(self.gallery, int) and self.gallery > 0):
            raise ArgumentError(f"gallery is 'frames', 'full' or a list's size, not {self.gallery!r}.")
        for field, value, known in (
            ("same_camera", self.same_camera, ("keep", "drop")),
            ("query", self.query, ("annotated_box", "best_detection")),
            ("listed_twice", self.listed_twice, ("once", "twice")),
        ):
            if value not in known:
                raise ArgumentError(f"{field} is {known[0]!r} or {known[1]!r}, not {value!r}.")
        if self.same_camera == "drop" and self.gallery != "frames":
            raise ArgumentError("same_camera='drop' is for galleries of frames: lists say themselves what belongs to them.")
        if self.context is not None and self.gallery == "full":
            raise ArgumentError("context matching is not defined for the full set. Use a list's size, or no context.")
        if self.context is not None and self.listed_twice == "twice":
            raise ArgumentError("context matching takes each image once: listed_twice='twice' does not go with it.")
        if self.listed_twice == "twice" and not isinstance(self.gallery, int):
            raise ArgumentError("listed_twice='twice' is for lists: everywhere else each image takes part once.")
        if self.full_repeats_lists and self.gallery != "full":
            raise ArgumentError("full_repeats_lists belongs to gallery='full'.")

    def words(self, kept_above: float | None = None) -> str:
        """Say in one sentence what is computed.

        Args:
            kept_above: The score above which the detector kept detections, if that is known.
        """
        if self.gallery == "frames":
            gallery = "all gallery images but the query's own"
            if self.same_camera == "drop":
                gallery += ", cross-camera only"
        elif self.gallery == "full":
            gallery = "the smallest list and all other gallery images but the query's own"
            if self.full_repeats_lists:
                gallery += ", listed images repeated as wrong answers"
        else:
            gallery = f"lists of {self.gallery} images"
            gallery += ", an image listed twice taken " + self.listed_twice
        source = "annotated box" if self.query == "annotated_box" else "detection that overlaps the annotated box most"
        words = [
            f"{self.name}: {gallery}",
            score_words(self.min_score, kept_above),
            f"query embedding of the {source}",
        ]
        if self.normalize:
            words.append("embeddings scaled to length 1")
        if self.context is not None:
            words.append(f"context matching with k1 = {self.context.k1}, k2 = {self.context.k2}, {self.context.update}")
        words.append("average precision as scikit-learn's, times the share of occurrences found")
        return "; ".join(words)


def score_words(min_score: float, kept_above: float | None) -> str:
    """Say which detections take part, if a protocol takes a minimum score and the detector kept those above another."""
    if kept_above is None or kept_above <= min_score:
        return f"detections of score {min_score:g} and above"
    wanted = f"the protocol's {min_score:g} and above" if min_score > 0 else "of any score"
    return f"detections of score above {kept_above:g}, for the detector kept no others (not {wanted})"


def kept_by_detector(kept_above: float | None) -> str:
    """Say, to be put behind the words of a measure that wants detections of any score, that a detector kept some only."""
    return f"; {score_words(0.0, kept_above)}" if kept_above else ""


CUHK_CONTEXT = ContextMatching(k1=10, k2=3)
"""The numbers of Li and Miao (AAAI 2021) for CUHK-SYSU."""
PRW_CONTEXT = ContextMatching(k1=30, k2=4)
"""The numbers of Li and Miao (AAAI 2021) for PRW."""

PROTOCOLS = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            SearchProtocol(name="cuhk-sysu", gallery=100),
            SearchProtocol(name="cuhk-sysu-cbgm", gallery=100, context=CUHK_CONTEXT),
            SearchProtocol(name="prw"),
            SearchProtocol(name="prw-cross-camera", same_camera="drop"),
            SearchProtocol(name="prw-cbgm", context=PRW_CONTEXT),
            SearchProtocol(name="posetrack21"),
            SearchProtocol(name="movienet-ps", gallery=2000),
            SearchProtocol(name="frames"),
            SearchProtocol(
                name="cuhk-sysu-alignps",
                gallery=100,
                min_score=0.2,
                query="best_detection",
                normalize=True,
                listed_twice="twice",
            ),
            SearchProtocol(name="prw-alignps", min_score=0.15, query="best_detection", normalize=True),
            SearchProtocol(
                name="cuhk-sysu-pstr",
                gallery=100,
                min_score=0.25,
                query="best_detection",
                normalize=True,
                listed_twice="twice",
            ),
            SearchProtocol(
                name="cuhk-sysu-pstr-cbgm",
                gallery=100,
                min_score=0.25,
                query="best_detection",
                normalize=True,
                context=ContextMatching(k1=30, k2=4, update="mean"),
            ),
            SearchProtocol(name="prw-pstr", min_score=0.3, query="best_detection", normalize=True),
            SearchProtocol(
                name="prw-pstr-cbgm",
                min_score=0.3,
                query="best_detection",
                normalize=True,
                context=ContextMatching(k1=30, k2=3, update="mean"),
            ),
        )
    }
)
"""The evaluators that published numbers come from, by name. `dataclasses.replace(PROTOCOLS["cuhk-sysu"], gallery=4000)` gives
another size. "frames" is PRW's, for people's own data."""


def protocol(name: str) -> SearchProtocol:
    """Return a protocol by its name.

    Raises:
        ArgumentError: there is none of that name; lists those there are.
    """
    if name not in PROTOCOLS:
        raise ArgumentError(f"there is no protocol {name!r}. There are {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
