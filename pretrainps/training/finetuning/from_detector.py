"""Train a trained detector further: on another data set with other people, or on the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pretrainps.backbones import build_backbone
from pretrainps.detectors import DetectorConfig, PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.hub.build import build_detector
from pretrainps.weights import LoadReport, compare, require_complete
from pretrainps.weights.unwrap import unwrap


def continue_detector(
    trained: PersonSearchDetector[Any],
    *,
    num_identities: int,
    same_people: bool = False,
    kind: str | None = None,
    config: DetectorConfig | Mapping[str, Any] | None = None,
) -> PersonSearchDetector[Any]:
    """Build a detector that starts from the weights of a trained one, usually without its identity tables.

    Args:
        trained: The detector; it stays as it is.
        num_identities: People with identities in the new training set.
        same_people: The training set has the people of the old one, in the same order: keep the tables too.
        kind: The kind that the detector must have; it must be that of the trained one.
        config: The new config, or some of its fields; by default that of the trained detector.

    Returns:
        The detector in training mode. `str(detector.load_report)` says what was taken over.

    Raises:
        ArgumentError: the trained detector is of another kind.
        StateDictMismatchError: a config that its weights do not fit.
    """
    trained = unwrap(trained)
    if not isinstance(trained, PersonSearchDetector):
        raise ArgumentError(
            f"a {type(trained).__name__} is no detector that was trained. Give one that pretrainps.load returns."
        )
    if kind not in (None, trained.kind):
        raise ArgumentError(
            f"{trained.spec.name} is a {type(trained).__name__}, and the recipe is for {kind!r}. Take a recipe for "
            f"{trained.kind!r}, or start from a backbone."
        )
    if config is None or not isinstance(config, DetectorConfig):
        config = {**trained.config.non_defaults(), **(config or {}), "num_identities": num_identities}
    backbone = build_backbone(trained.backbone.arch, trained.backbone.options())
    backbone.load_state_dict(trained.backbone_state())
    convention = trained.convention
    detector = build_detector(
        trained.kind, backbone=backbone, num_identities=num_identities, config=config, convention=convention
    )
    # what only losses need, the identity tables among it, is about the people of one data set, who do not occur in another
    anew = () if same_people else tuple(f"{module}." for module in detector.training_only)
    taken = {key: value for key, value in trained.state_dict().items() if not key.startswith(anew)}
    state = detector.state_dict()
    new = [key for key in state if key.startswith(anew)]
    require_complete(compare(detector, taken, name=trained.spec.name, expected_missing=new), trained.spec.name)
    detector.load_state_dict({**state, **taken}, strict=True)
    learned = sum(parameter.numel() for parameter in detector.parameters())
    detector.load_report = LoadReport(
        name=detector.spec.name, matched=tuple(taken), new=tuple(new), parameters_loaded=learned, parameters=learned
    )
    tables = "its identity tables too" if same_people else "with new identity tables"
    note = f"{trained.spec.provenance.note} Started from {trained.spec.title}, {tables}.".strip()
    origin = trained.spec
    provenance = replace(origin.provenance, note=note)
    detector.spec = replace(detector.spec, provenance=provenance, licence=origin.licence, sources=origin.sources)
    return detector
