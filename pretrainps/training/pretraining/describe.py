"""What is known of a pre-trained backbone: what it started from, and what it was trained on."""

from __future__ import annotations

from dataclasses import replace

from pretrainps.backbones import Backbone
from pretrainps.registry.specs import InputConvention, Licence, LocalSource, ModelSpec, Provenance
from pretrainps.training.pretraining.settings import HybridSettings


def describe_backbone(
    backbone: Backbone, settings: HybridSettings, convention: InputConvention, origin: ModelSpec | None
) -> ModelSpec:
    """Return the spec of a pre-trained backbone.

    Args:
        backbone: The backbone, or its trunk alone.
        settings: The settings of the pre-training.
        convention: How pixels go in.
        origin: What the pre-training started from, if that was loaded.
    """
    provenance = origin.provenance if origin else Provenance(authors="unknown", paper="unknown", url="unknown")
    sets = ", ".join((*settings.detection_sets, *settings.reid_sets))
    note = training_note(settings, origin)
    return ModelSpec(
        name=f"{backbone.arch}-pretrained",
        title=f"{backbone.arch} pre-trained on {sets}",
        arch=backbone.arch,
        arch_options=backbone.options(),
        summary=f"A backbone pre-trained for person search on {sets}.",
        input=convention,
        licence=origin.licence if origin else Licence(id="other", stated_in="nowhere: its weights were never published"),
        provenance=replace(provenance, note=" ".join(filter(None, (provenance.note, note)))),
        sources=origin.sources if origin else (LocalSource(path="(in memory)"),),
    )


def training_note(settings: HybridSettings, origin: ModelSpec | None) -> str:
    """Return what a backbone was pre-trained on, and how.

    A run records this text and compares it when it is resumed: other words would make older runs another training.
    """
    start = f"Started from {origin.title}" if origin else "Started at random"
    learned = [f"detection ({', '.join(settings.detection_sets)})"] if settings.detection_sets else []
    learned += [f"re-ID ({', '.join(settings.reid_sets)}; {settings.identity.loss})"] if settings.reid_sets else []
    return f"{start}, then trained by pretrainps on {' and '.join(learned)}, alignment: {settings.alignment.kind}."
