"""From pre-training to fine-tuning: save what was pre-trained, and start a detector from it.

A saved hybrid is a folder that `pretrainps.load("file:FOLDER")` loads as the backbone it is, and beside it a file with the
heads. A detector takes the backbone alone, or the heads too that it has itself: the proposal network, the softmax box head, and
the projections of its embedding. What it took and what starts anew is in its `load_report`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pretrainps.backbones import Backbone
from pretrainps.detectors import DetectorConfig, PersonSearchDetector
from pretrainps.detectors.region import RegionConfig
from pretrainps.detectors.registry import detector_entry
from pretrainps.errors import (
    ArgumentError,
    IntegrityError,
    StateDictMismatchError,
    UnknownModelError,
    UnsupportedModelError,
    WeightsUnavailableError,
)
from pretrainps.files import WEIGHTS, sha256_of
from pretrainps.heads import CropModel
from pretrainps.hub.build import build_detector
from pretrainps.hub.load import load
from pretrainps.hub.publish import save_pretrained, saved_config
from pretrainps.registry.specs import PRETRAINING, Licence, LocalSource, ModelSpec, Provenance
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.weights import LoadReport, compare, read_metadata, read_tensors, require_complete, write_safetensors
from pretrainps.weights.unwrap import unwrap

log = logging.getLogger("pretrainps")
HEADS = "heads.safetensors"
"""What the file with the heads is called, beside the backbone's."""
_PLACES: Mapping[str, Mapping[str, str]] = {
    "oim": {"rpn": "rpn", "box_head": "box_head", "embedding_head": "embedding_head"},
    "nae": {"rpn": "rpn", "embedding_head": "embedding_head"},
    "nae+": {"rpn": "rpn", "embedding_head": "embedding_head"},
    "seqnet": {"rpn": "rpn", "box_head": "proposal_head", "embedding_head": "embedding_head"},
}
"""For each detector, where each head goes. NAE's box head has a batch norm and no classes, and is another one."""
_STAGES = ("backbone.", "box_stage.", "reid_stage.")
"""Where a detector has the backbone's two halves."""
_SHARED = ("embedding_dim", "anchor_sizes", "anchor_ratios", "region_size", "region_sampling", "pooling")
"""Fields of the config without which the heads do not fit, or do not mean what they did. NAE+ embeds every cell of a map: what
it pools is for its own box head, so its pooling is its own."""


@dataclass(frozen=True, slots=True)
class HybridWeights:
    """What a detector can start from."""

    backbone: Backbone
    """Whole, with a `spec`."""
    heads: dict[str, Tensor]
    """`rpn.*`, `box_head.*`, `embedding_head.*`, as far as they were learned."""
    detector: RegionConfig
    """The settings that pre-training shared with detectors."""

    @classmethod
    def of(cls, source: HybridModel | Path | str) -> HybridWeights:
        """Take them from a model, or from a folder that `save_backbone` wrote.

        Raises:
            WeightsUnavailableError: no such folder, or one that holds no heads.
            IntegrityError: the heads are not those of the backbone.
        """
        source = unwrap(source)
        if isinstance(source, HybridModel):
            backbone = source.plain_backbone()
            backbone.spec = _spec(source)
            return cls(backbone, _heads(source), source.settings.detector)
        folder = Path(source).expanduser()
        if not (folder / HEADS).is_file():
            raise WeightsUnavailableError(
                f"{folder} has no {HEADS}. Give a folder that save_backbone wrote; of any other backbone, take "
                "pretrainps.build_detector."
            )
        loaded = load(folder)
        if not isinstance(loaded, Backbone):
            raise UnsupportedModelError(f"{folder} holds no bare backbone but a {type(loaded).__name__}.")
        notes = read_metadata(folder / HEADS)
        if notes.get("backbone") != sha256_of(folder / WEIGHTS):
            raise IntegrityError(
                f"{folder}: {HEADS} is not of the same pre-training as {WEIGHTS}; perhaps saving was cut short. Save again."
            )
        return cls(loaded, read_tensors(folder / HEADS, mapped=False), RegionConfig.from_mapping(notes["detector"]))


def start_detector(
    kind: str,
    source: HybridModel | Path | str,
    *,
    num_identities: int,
    with_heads: bool,
    config: DetectorConfig | Mapping[str, Any] | None = None,
) -> PersonSearchDetector[Any]:
    """Build a detector that starts from hybrid pre-training.

    Args:
        kind: "oim", "nae", "nae+" or "seqnet".
        source: The model, or a folder that `save_backbone` wrote.
        num_identities: People with identities in the training set.
        with_heads: Start from the pre-trained heads too, as far as the detector has them. What they depend on (anchors, region
            size, pooling, length of the embedding) is then as it was in pre-training, unless `config` says otherwise.
        config: The detector's config, or some of its fields; the papers' values by default.

    Returns:
        The detector in training mode. `str(detector.load_report)` says what was taken over, what of the heads was not used
        ("ignored"), and what starts at random ("new").

    Raises:
        UnknownModelError: no such detector.
        WeightsUnavailableError: the folder is not there, or holds no heads.
        ArgumentError: `with_heads` and a config that the heads do not fit; names the field.
        StateDictMismatchError: a head lacks a tensor or has one of another shape.

    Example:
        >>> detector = start_detector("seqnet", "runs/hybrid/best", num_identities=5532, with_heads=True)  # doctest: +SKIP
        >>> print(detector.load_report)                                                                    # doctest: +SKIP
    """
    config_name = detector_entry(kind).config.__name__
    weights = HybridWeights.of(source)
    if with_heads:
        config = _shared(kind, config, weights.detector, config_name)
    detector = build_detector(kind, backbone=weights.backbone, num_identities=num_identities, config=config)
    taken = _placed(detector, weights.heads) if with_heads else {}
    _require_fit(detector, taken)
    detector.load_state_dict({**detector.state_dict(), **taken}, strict=True)
    detector.load_report = _report(detector, taken, weights.heads)
    if taken:
        told = detector.spec.provenance
        note = told.note.replace("heads at random.", "heads from the same pre-training where it has them, others at random.")
        detector.spec = replace(detector.spec, provenance=replace(told, note=note))
    return detector


def save_backbone(
    model: HybridModel,
    folder: Path | str,
    *,
    title: str | None = None,
    provenance: Provenance | None = None,
    licence: Licence | None = None,
) -> Path:
    """Write the pre-trained backbone, its configuration, its card and the heads into a folder.

    `pretrainps.load(f"file:{folder}")` gives the backbone back, `start_detector` takes both.

    Args:
        model: What was pre-trained.
        folder: Made if it does not exist; files of the same names are replaced, each in one step.
        title: What it is called; by default after its architecture and data sets.
        provenance: Who trained it and where it is described; by default what is known of the weights that it started from.
        licence: Terms of use; by default those of the weights that it started from.

    Returns:
        The folder.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    folder, model = Path(folder).expanduser(), unwrap(model)
    told = _spec(model)
    if provenance is not None:
        told = replace(told, provenance=replace(provenance, note=f"{provenance.note} {_note(model)}".strip()))
    spec = replace(told, title=title or told.title, licence=licence or told.licence)
    save_pretrained(model.plain_backbone(), folder, spec=spec)
    notes = {"detector": model.settings.detector.non_defaults(), "backbone": sha256_of(folder / WEIGHTS)}
    write_safetensors(_heads(model), folder / HEADS, notes)
    return folder


def checkpoint_notes(model: nn.Module) -> dict[str, Any]:
    """Return what the header of a checkpoint says, so that it loads by itself; of a model that is none of ours, nothing.

    Args:
        model: What is trained. Of a pre-training the backbone is what is loaded.
    """
    model = unwrap(model)
    if isinstance(model, HybridModel):
        return {"config": {**saved_config(model.plain_backbone(), _spec(model)), "layout": PRETRAINING}}
    if not isinstance(model, Backbone | CropModel | PersonSearchDetector) or not hasattr(model, "spec"):
        return {}
    try:
        return {"config": saved_config(model)}
    except (StateDictMismatchError, UnknownModelError) as error:
        log.warning("The checkpoints of this run can be resumed, but not loaded by themselves: %s", error)
        return {}


def _heads(model: HybridModel) -> dict[str, Tensor]:
    return {**model.detection_state(), **model.embedding_state()}


def _spec(model: HybridModel) -> ModelSpec:
    """Describe the pre-trained backbone by what is known."""
    arch, origin = model.backbone.arch, model.origin
    told = origin.provenance if origin else Provenance(authors="unknown", paper="unknown", url="unknown")
    sets = ", ".join((*model.settings.detection_sets, *model.settings.reid_sets))
    return ModelSpec(
        name=f"{arch}-pretrained",
        title=f"{arch} pre-trained on {sets}",
        arch=arch,
        arch_options=model.backbone.options(),
        summary=f"A backbone pre-trained for person search on {sets}.",
        input=model.convention,
        licence=origin.licence if origin else Licence(id="other", stated_in="nowhere: its weights were never published"),
        provenance=replace(told, note=" ".join(filter(None, (told.note, _note(model))))),
        sources=origin.sources if origin else (LocalSource(path="(in memory)"),),
    )


def _note(model: HybridModel) -> str:
    """Say what it was pre-trained on, and how."""
    settings = model.settings
    start = f"Started from {model.origin.title}" if model.origin else "Started at random"
    learned = [f"detection ({', '.join(settings.detection_sets)})"] if settings.detection_sets else []
    learned += [f"re-ID ({', '.join(settings.reid_sets)}; {settings.identity.loss})"] if settings.reid_sets else []
    return f"{start}, then trained by pretrainps on {' and '.join(learned)}, alignment: {settings.alignment.kind}."


def _shared(
    kind: str, config: DetectorConfig | Mapping[str, Any] | None, hybrid: RegionConfig, name: str
) -> DetectorConfig | dict[str, Any]:
    """Fill in what the heads depend on, and refuse what they do not fit."""
    shared = [field for field in _SHARED if not (kind == "nae+" and field == "pooling")]
    given = {field: getattr(config, field) for field in shared} if isinstance(config, DetectorConfig) else dict(config or {})
    for field in shared:
        value = getattr(hybrid, field)
        found = given.get(field, value)
        if (tuple(found) if isinstance(found, list) else found) != value:
            raise ArgumentError(
                f"{name}.{field} is {found}, but the heads were pre-trained with {value}. Leave it at that, or start without "
                "heads (with_heads=False)."
            )
    if isinstance(config, DetectorConfig):
        return config
    return {**{field: getattr(hybrid, field) for field in shared}, **given}


def _placed(detector: PersonSearchDetector[Any], heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those heads that the detector has, under its names."""
    places = _PLACES[detector.kind]
    placed = {}
    for key, value in heads.items():
        head, _, rest = key.partition(".")
        if head in places:
            # NAE+ projects every pixel: the same matrix, as a 1x1 convolution
            pixelwise = detector.kind == "nae+" and head == "embedding_head" and value.ndim == 2
            placed[f"{places[head]}.{rest}"] = value[:, :, None, None] if pixelwise else value
    return placed


def _require_fit(detector: PersonSearchDetector[Any], taken: Mapping[str, Tensor]) -> None:
    """Refuse heads that lack a tensor, have one too many, or one of another shape.

    Raises:
        StateDictMismatchError: with the report.
    """
    heads = {key.partition(".")[0] for key in taken}
    # the norm of a vector meant nothing in pre-training, so what rescales it was not there
    excused = [key for key in detector.state_dict() if key.partition(".")[0] not in heads or ".rescaler." in key]
    report = compare(detector, taken, name=detector.spec.name, expected_missing=excused)
    if taken:
        require_complete(report, "the pre-trained heads (with_heads=False starts without them)")


def _report(detector: PersonSearchDetector[Any], taken: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> LoadReport:
    """Say what the detector took over, what of the heads it left, and what starts at random."""
    state = detector.state_dict()
    matched = tuple(key for key in state if key.startswith(_STAGES) or key in taken)
    used = set(_PLACES[detector.kind]) if taken else set()
    learned = {key: parameter.numel() for key, parameter in detector.named_parameters()}
    return LoadReport(
        name=detector.spec.name,
        matched=matched,
        ignored=tuple(key for key in heads if key.partition(".")[0] not in used),
        new=tuple(key for key in state if key not in matched),
        parameters_loaded=sum(learned.get(key, 0) for key in matched),
        parameters=sum(learned.values()),
    )
