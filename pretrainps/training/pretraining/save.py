"""Save what a pre-training learned: a folder with the backbone, and a file with the heads next to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pretrainps.files import WEIGHTS, sha256_of
from pretrainps.hub.publish import save_pretrained
from pretrainps.registry.specs import Licence, Provenance
from pretrainps.training.pretraining.describe import training_note
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.weights import write_safetensors
from pretrainps.weights.unwrap import unwrap

HEADS = "heads.safetensors"
"""Name of the file with the heads, next to the backbone's."""


def save_backbone(
    model: HybridModel,
    folder: Path | str,
    *,
    title: str | None = None,
    provenance: Provenance | None = None,
    licence: Licence | None = None,
) -> Path:
    """Write the pre-trained backbone, its configuration, its card and the heads into a folder.

    `pretrainps.load(f"file:{folder}")` gives the backbone back. `start_detector` takes the backbone and the heads.

    Args:
        model: The pre-trained model.
        folder: Made if it does not exist; files of the same names are replaced, each in one step.
        title: Title of the model; by default its architecture and data sets.
        provenance: Who trained it and where it is described; by default what is known of the weights that it started from.
        licence: Terms of use; by default those of the weights that it started from.

    Returns:
        The folder.

    Raises:
        CacheError: the folder cannot be written to, or the disk is full.
    """
    folder, model = Path(folder).expanduser(), unwrap(model)
    spec = model.backbone_spec()
    if provenance is not None:
        note = f"{provenance.note} {training_note(model.settings, model.origin)}".strip()
        spec = replace(spec, provenance=replace(provenance, note=note))
    spec = replace(spec, title=title or spec.title, licence=licence or spec.licence)
    save_pretrained(model.plain_backbone(), folder, spec=spec)
    notes = {"detector": model.settings.detector.non_defaults(), "backbone": sha256_of(folder / WEIGHTS)}
    write_safetensors(model.heads_state(), folder / HEADS, notes)
    return folder
