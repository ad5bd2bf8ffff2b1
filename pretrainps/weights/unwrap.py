"""Take a model out of the wrappers of compilers, trainers and averaging.

A wrapper is another module with the model inside: its state dict has other keys (`_orig_mod.`, `module.`), and it is no
instance of the model's class. Wrappers are recognized by name, without any import. An unlisted module is never unwrapped,
because its own computation around the model (for example another scaling of the pixels) would be lost.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pretrainps.errors import ArgumentError

_HOLDS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEma": "ema",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
}
"""The attribute of each wrapper that holds the model."""
_SHARDING = "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel"
_GATHER = (
    "its tensors are spread over processes (FSDP). Gather them on all processes, with "
    "torch.distributed.checkpoint.state_dict.get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)), and "
    "load them into a model of this package that is not sharded (load_state_dict)."
)


def unwrap(model: Any) -> Any:
    """Return the model inside torch.compile, DistributedDataParallel, DataParallel and AveragedModel, in any nesting.

    Args:
        model: A module, wrapped or not. Any other object is returned unchanged.

    Raises:
        ArgumentError: it is sharded (FullyShardedDataParallel), so no process has all of its weights.
    """
    while isinstance(model, nn.Module) and (attribute := _attribute(model)):
        model = getattr(model, attribute)
    return model


def bare_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict with its keys without wrappers, whether these are around the model or inside it.

    Raises:
        ArgumentError: it is sharded, as a whole or in parts.
    """
    model = unwrap(model)
    inner = {path: attribute for path, module in model.named_modules() if (attribute := _attribute(module))}
    state: dict[str, Tensor] = model.state_dict()
    for path, attribute in sorted(inner.items(), reverse=True):  # the innermost first
        state = {_without(key, f"{path}.", attribute): value for key, value in state.items()}
    if any(hasattr(value, "full_tensor") for value in state.values()):  # a DTensor, of fully_shard
        raise ArgumentError(f"this {type(model).__name__} cannot be read as a whole: {_GATHER}")
    return state


def _attribute(module: nn.Module) -> str | None:
    """Return the attribute that holds a wrapper's model; `None` if it is no wrapper."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__]
    if _SHARDING in names:
        raise ArgumentError(f"this {type(module).__name__} cannot be unwrapped: {_GATHER}")
    return next((_HOLDS[name] for name in names if name in _HOLDS), None)


def _without(key: str, before: str, attribute: str) -> str:
    return before + key.removeprefix(f"{before}{attribute}.") if key.startswith(f"{before}{attribute}.") else key
