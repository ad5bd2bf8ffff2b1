"""The tensors of a model to save, with a check in advance that the file will load again.

This package can read every file that it writes. Before anything is written, the model is built again from its spec, on the meta
device, and its tensors are compared with the tensors to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.errors import ArgumentError, StateDictMismatchError
from pretrainps.heads import CropModel
from pretrainps.hub.load import Model
from pretrainps.weights import LoadReport, compare
from pretrainps.weights.unwrap import bare_state, unwrap

_OWN = (Backbone, CropModel, PersonSearchDetector)
_REMEDIES = (
    (
        (".parametrizations.",),
        "A parametrization (weight_norm, spectral_norm) computes weights from these: "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight') writes the result back.",
    ),
    (("weight_mask", "bias_mask"), "It is pruned: torch.nn.utils.prune.remove(module, 'weight') makes that permanent."),
    (("weight_g",), "torch.nn.utils.remove_weight_norm(module) writes the normed weights back."),
    (("weight_u",), "torch.nn.utils.remove_spectral_norm(module) writes the normed weights back."),
    (
        ("lora_", ".base_layer.", "adapter"),
        "These are adapters: merge them into the weights first (peft: merge_and_unload), and save the plain model.",
    ),
    (
        ("_packed_params", "scale", "zero_point", ".qweight"),
        "It was quantized: save the model before that, and quantize what is loaded.",
    ),
)
"""Parts of keys that show a change of the model, with the advice to undo it."""


def own_model(model: object) -> Model:
    """Return the model of this package inside any wrapper.

    Raises:
        ArgumentError: it is not a model of this package; or it is sharded over processes.
    """
    found = unwrap(model)
    if isinstance(found, _OWN):
        return found
    inside = [name for name, child in found.named_children() if isinstance(unwrap(child), _OWN)] if _is_plain(found) else []
    whole = [name for name in inside if all(key.startswith(f"{name}.") for key in found.state_dict())]
    hint = f"Give the model inside of it: its attribute {whole[0]!r}." if whole else getattr(found, "saved_by", None)
    raise ArgumentError(
        f"a {type(found).__name__} is no model of pretrainps (a backbone, a model of crops or a detector). "
        + (hint or "Give what pretrainps.load or pretrainps.build_detector returned.")
    )


def state_to_save(model: Model) -> dict[str, Tensor]:
    """Return a model's tensors under the keys of a saved file.

    Raises:
        ArgumentError: the model is a copy optimized for inference, is on the meta device, or is sharded over processes.
        StateDictMismatchError: it has other tensors than its spec, or some that are NaN or infinite.
    """
    if isinstance(model, PersonSearchDetector) and model.optimized:
        raise ArgumentError("this copy was optimized for inference and is no longer what was trained; save the original.")
    state = bare_state(model)
    built = _built_again(model)
    name = f"this {type(built).__name__} on {_backbone(built).arch}"
    if any(isinstance(value, Tensor) and value.is_meta for value in state.values()):
        raise ArgumentError(f"{name} is on the meta device: its weights have no values. Load it, and save it then.")
    plain = {key: value for key, value in state.items() if _is_stored(value)}
    report = compare(built, plain, name=name, unprefixed=[key for key in state if key not in plain])
    # a model without parameters has nothing to fill
    if report.missing or report.unexpected or report.wrong_shape or report.wrong_kind:
        raise StateDictMismatchError(_refusal(report), report)
    broken = [key for key, value in plain.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise StateDictMismatchError(
            f"{name} cannot be saved: {len(broken)} of its tensors hold NaN or infinity ({', '.join(broken[:4])}). Its "
            "training went wrong: go back to an earlier checkpoint.",
            report,
        )
    return plain


def backbone_of(model: Model, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone's part of a model's tensors, under the backbone's own keys.

    Args:
        model: The model.
        state: The result of `state_to_save`.
    """
    if isinstance(model, Backbone):
        return dict(state)
    if isinstance(model, PersonSearchDetector):
        return model.backbone_part(state)
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}


def _built_again(model: Model) -> Model:
    """Build the model that a saved copy would be loaded into, on the meta device if the architecture allows it."""
    with torch.random.fork_rng(devices=[]):  # these unused weights must not change the random numbers of a run
        own = _backbone(model)
        backbone = build_backbone(own.arch, own.options(), empty=True)
        with torch.device("meta"):
            if isinstance(model, CropModel):
                return CropModel(backbone, model.head_spec)
            if isinstance(model, PersonSearchDetector):
                return assemble(model.kind, backbone, model.config.non_defaults(), model.convention)
    return backbone


def _backbone(model: Model) -> Backbone:
    found: Backbone = unwrap(model.backbone) if isinstance(model, CropModel | PersonSearchDetector) else model
    return found


def _refusal(report: LoadReport) -> str:
    odd = report.unexpected
    parts = [
        f"it has {len(odd)} tensors that such a model does not have ({_some(odd)})" if odd else "",
        f"it lacks {len(report.missing)} ({_some(report.missing)})" if report.missing else "",
        *(f"{key} is {list(found)} instead of {list(wanted)}" for key, found, wanted in report.wrong_shape[:3]),
        *(f"{key} is of {kind} instead of {wanted}" for key, kind, wanted in report.wrong_kind[:3]),
    ]
    remedies = [remedy for pieces, remedy in _REMEDIES if any(piece in key for piece in pieces for key in odd)]
    remedy = remedies[0] if remedies else "Save a model that was not changed in its parts."
    return (
        f"{report.name} cannot be saved, because it would not load again: {'; '.join(part for part in parts if part)}. "
        f"{remedy} Nothing was written."
    )


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")


def _is_plain(module: Any) -> bool:
    return isinstance(module, nn.Module) and not isinstance(module, torch.jit.ScriptModule)


def _is_stored(value: object) -> bool:
    """Whether a file can hold it as plain numbers; a quantized tensor is more than that."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
