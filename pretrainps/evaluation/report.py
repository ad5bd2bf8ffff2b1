"""Results as plain dictionaries, for JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from pretrainps.evaluation.coco import CocoResult
from pretrainps.evaluation.detection import DetectionResult
from pretrainps.evaluation.miss_rate import MissRateResult
from pretrainps.evaluation.reid import ReidResult
from pretrainps.evaluation.search import Ranking, SearchResult

EvaluationResult = SearchResult | ReidResult | DetectionResult | CocoResult | MissRateResult


def report(result: EvaluationResult, *, per_query: bool = False) -> dict[str, Any]:
    """Return a result as numbers, strings and lists, the protocol's words first.

    >>> from pretrainps.evaluation.detection import DetectionResult
    >>> report(DetectionResult(protocol="...", recall=1.0, ap=0.5, num_people=1, num_detections=2, found=1))["ap"]
    0.5

    Args:
        result: Of any evaluator.
        per_query: Whether arrays with a row a query go in too; without them, counts of skipped queries stand for their lists.
    """
    plain: dict[str, Any] = {}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Ranking):
            if per_query:
                plain[field.name] = {part.name: getattr(value, part.name).tolist() for part in fields(value)}
        elif not isinstance(value, np.ndarray):
            if value is not None:
                plain[field.name] = value
        elif per_query or field.name not in _PER_QUERY:
            plain[field.name] = len(value) if field.name in _SKIPPED and not per_query else value.tolist()
    return plain


_SKIPPED = frozenset({"without_match", "without_detection"})
_PER_QUERY = frozenset({"evaluated", "per_query_ap", "per_query_hits", "found", "occurrences", "first_places"})
