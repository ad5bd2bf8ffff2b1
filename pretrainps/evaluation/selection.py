"""What is evaluated and how: the data set of a folder, and the protocol that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pretrainps.data.layouts import layout_named, recognize_layout
from pretrainps.data.records import SearchSet, Split, Task
from pretrainps.errors import ArgumentError
from pretrainps.evaluation import protocols
from pretrainps.evaluation.miss_rate import Variant
from pretrainps.evaluation.protocols import SearchProtocol

_PROTOCOLS = {"cuhk_sysu": "cuhk-sysu", "prw": "prw", "posetrack21": "posetrack21", "movienet_ps": "movienet-ps"}
"""The protocol that papers use on a layout; all others are searched frame by frame."""
_CUHK_CONTEXTS = ("cuhk_sysu", "movienet_ps")
"""Layouts with the context matching of CUHK-SYSU; all others have PRW's."""
_MISS_RATES: dict[str, tuple[Variant, str]] = {
    "citypersons": ("citypersons", "reasonable"),
    "eurocity_persons": ("eurocity", "reasonable"),
}
"""The miss rate and setup that belong to a layout; all others have CrowdHuman's."""
_IGNORED_FROM = {"posetrack21": 0.1}
"""The overlap from which a layout's own code leaves out wrong detections on regions to ignore."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReidSet:
    """What re-identification is tested on: crops to search with, and crops to find."""

    query: Split
    """One crop a query."""
    gallery: Split
    """The crops that are searched."""


EvaluationSet = SearchSet | Split | ReidSet
"""A set for person search, for detection, or for re-ID."""


def read_evaluation_set(
    root: Path | str, *, layout: str | None = None, split: str | None = None, force: bool = False
) -> EvaluationSet:
    """Read what a data set is tested on.

    Args:
        root: The data set's folder.
        layout: What the data set is; `None` recognizes it.
        split: For detection: which split; `None` takes the last.
        force: Read a data set that its owners have withdrawn.

    Raises:
        ArgumentError: no such layout or split, or a split of a set for search or re-ID.
        DatasetError: the folder is not as its layout wants it.
    """
    recognized = layout_named(layout) if layout else recognize_layout(Path(root))
    if split is not None:
        require_task("split", recognized.task, "detection", recognized.title)
    if recognized.task == "search":
        return recognized.read_search(root, force=force)
    if recognized.task == "reid":
        query, gallery = (recognized.read(root, part, force=force) for part in ("query", "gallery"))
        return ReidSet(query=query, gallery=gallery)
    return recognized.read(root, split or recognized.main_splits[-1], force=force)


def task_of(data: EvaluationSet) -> Task:
    """Return what a set tests.

    Raises:
        ArgumentError: a split that is no detection set: a search needs queries, and re-ID needs two splits.
    """
    if isinstance(data, SearchSet):
        return "search"
    if isinstance(data, ReidSet):
        return "reid"
    if not isinstance(data, Split):
        raise ArgumentError(f"expected a folder, a SearchSet, a Split or a ReidSet, not {type(data).__name__}.")
    if data.task == "reid":
        raise ArgumentError("re-ID is tested on two splits. Give ReidSet(query=..., gallery=...).")
    return "detection"


def dataset_of(data: EvaluationSet) -> str:
    """Return the name of the layout that a set was read from."""
    return (data if isinstance(data, Split) else data.gallery).dataset


def first_of(data: EvaluationSet, limit: int) -> tuple[EvaluationSet, str | None]:
    """Return a set with its first queries (search, re-ID) or images (detection) only, and a note about it.

    The gallery stays whole.

    Raises:
        ArgumentError: a limit below 1.
    """
    if limit < 1:
        raise ArgumentError(f"limit={limit}: it must be 1 or more.")
    if isinstance(data, SearchSet):
        count, what = len(data.queries), "queries"
        lists = {size: entries[:limit] for size, entries in data.lists.items()}
        limited: EvaluationSet = replace(data, queries=data.queries[:limit], lists=lists)
    elif isinstance(data, ReidSet):
        count, what = len(data.query), "queries"
        limited = replace(data, query=replace(data.query, samples=data.query.samples[:limit]))
    else:
        count, what = len(data), "images"
        limited = replace(data, samples=data.samples[:limit])
    return (data, None) if count <= limit else (limited, f"only the first {limit} of {count} {what} are evaluated")


def protocol_for(
    search_set: SearchSet,
    protocol: SearchProtocol | str | None = None,
    *,
    gallery: int | Literal["full"] | None = None,
    cbgm: bool = False,
) -> tuple[SearchProtocol, str | None]:
    """Return the protocol to judge a search by, and a note if it is not the usual one.

    Args:
        search_set: What is searched.
        protocol: A protocol, or its name; `None` takes the one that papers use on the data set, with the smallest lists if
            there are none of the usual size.
        gallery: Another size of each query's gallery, or "full".
        cbgm: Add context matching, with the numbers that are published for the data set.

    Raises:
        ArgumentError: no such protocol, or a gallery that it cannot have.
    """
    dataset, note = search_set.gallery.dataset, None
    if isinstance(protocol, SearchProtocol):
        chosen = protocol
    else:
        chosen = protocols.protocol(protocol or _PROTOCOLS.get(dataset, "frames"))
    if gallery is not None:
        chosen = replace(chosen, gallery=gallery)
    elif protocol is None:
        chosen = with_available_lists(chosen, search_set)
        if chosen.gallery != protocols.protocol(chosen.name).gallery:
            note = f"there are no lists of the usual size; those of {chosen.gallery} images are taken"
    if cbgm and chosen.context is None:
        context = protocols.CUHK_CONTEXT if dataset in _CUHK_CONTEXTS else protocols.PRW_CONTEXT
        chosen = replace(chosen, name=f"{chosen.name}-cbgm", context=context)
    return chosen, note


def with_available_lists(protocol: SearchProtocol, search_set: SearchSet) -> SearchProtocol:
    """Return a protocol of lists with the smallest lists there are, if a set has none of its size."""
    if not isinstance(protocol.gallery, int) or protocol.gallery in search_set.lists or not search_set.lists:
        return protocol
    return replace(protocol, gallery=min(search_set.lists))


def miss_rate_of(dataset: str) -> tuple[Variant, str]:
    """Return the variant of the miss rate that belongs to a layout, and its setup."""
    return _MISS_RATES.get(dataset, ("crowdhuman", "all"))


def ignore_iou_of(dataset: str) -> float | None:
    """Return the overlap from which a layout's own code leaves out wrong detections on regions to ignore, if it does."""
    return _IGNORED_FROM.get(dataset)


def require_task(option: str, task: Task, wanted: Task, what: str) -> None:
    """See that an option is of use to a task.

    Raises:
        ArgumentError: it is not.
    """
    if task != wanted:
        raise ArgumentError(
            f"option {option}= or --{option.replace('_', '-')} is for {wanted}; {what} is for {task}. Leave the option out."
        )
