"""Which model a gallery belongs to. Embeddings of different models cannot be compared, however similar their names are."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, GalleryError
from pretrainps.gallery.storage.header import ModelMark
from pretrainps.inference.fingerprint import fingerprint_of_model
from pretrainps.inference.runner import Precision
from pretrainps.weights.unwrap import unwrap

_Versions = tuple[str, tuple[tuple[int, int], ...]]
"""Settings, and for each tensor its address and how often it was changed."""
_known: WeakKeyDictionary[nn.Module, tuple[_Versions, str]] = WeakKeyDictionary()
"""Fingerprints of models in memory. To hash 200 MB for each query would take most of its time."""


def model_mark(model: PersonSearchDetector[Any], precision: Precision = "float32") -> ModelMark:
    """Return what a gallery remembers of a model.

    Raises:
        ArgumentError: It is not a detector, is in training mode, or is an optimized copy.
    """
    model = require_detector(model)
    spec = getattr(model, "spec", None)
    return ModelMark(
        name=spec.name if spec is not None else model.kind,
        fingerprint=fingerprint(model),
        kind=model.kind,
        dim=model.embedding_dim,
        precision=precision,
        weighted=model.config.score_weighting,
    )


def require_detector(model: object) -> PersonSearchDetector[Any]:
    """Return a detector that can fill or search a gallery, out of its wrapper if it has one.

    Raises:
        ArgumentError: It is not a detector, is in training mode, or is an optimized copy.
    """
    model = unwrap(model)
    if not isinstance(model, PersonSearchDetector):
        raise ArgumentError(
            f"a gallery needs a model that detects people and embeds them; {type(model).__name__} does not. "
            "See `pretrainps list --task detector`."
        )
    if model.training:
        raise ArgumentError("the model is in training mode: call model.eval() first.")
    if model.optimized:
        raise ArgumentError("give the model as it was loaded: optimized copies have other tensors, and indexing makes its own.")
    return model


def require_same(mark: ModelMark, model: PersonSearchDetector[Any]) -> None:
    """Check that a model is the one that a gallery was made with.

    Raises:
        GalleryError: It is another one. The message says which, and what to do.
        ArgumentError: It is not a model that fills galleries.
    """
    other = model_mark(model)
    if other.fingerprint == mark.fingerprint:
        return
    if other.name == mark.name:
        how = f"it has the same name, {mark.name}, but other weights or settings"
    else:
        how = f"the gallery was made with {mark.name}, and this is {other.name}"
    raise GalleryError(
        f"this model cannot search this gallery: {how} ({other.fingerprint[:12]}, not {mark.fingerprint[:12]}). Vectors of "
        "different models do not compare. Load the one it was made with, with the same settings (config=, on the command line "
        "--set), or index the images again with this one."
    )


def fingerprint(model: PersonSearchDetector[Any]) -> str:
    """Return the hash of a detector's tensors and settings. It is computed once, as long as nothing changes."""
    model = unwrap(model)
    try:
        tensors = tuple((tensor.data_ptr(), tensor._version) for tensor in model.state_dict().values())
    except RuntimeError:  # tensors made in inference mode do not count their changes
        return _computed(model)
    versions = json.dumps(_settings(model), sort_keys=True), tensors
    known = _known.get(model)
    if known is None or known[0] != versions:
        known = (versions, _computed(model))
        _known[model] = known
    return known[1]


def _computed(model: PersonSearchDetector[Any]) -> str:
    return fingerprint_of_model(model, _settings(model))


def _settings(model: PersonSearchDetector[Any]) -> dict[str, str]:
    config = json.dumps(model.config.fingerprint_fields(), sort_keys=True)
    return {"kind": model.kind, "config": config, "input": str(model.convention)}
