"""Hierarchical timm models as backbones: their own modules and key names, in a chain that splits at stride 16.

The chain is derived from timm's `feature_info` and then *proven*: for one random image its maps must equal those of the
model's own `forward_features`. A model that is no simple chain of modules is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from pretrainps.backbones.base import Backbone, FeatureInfo
from pretrainps.backbones.timm_files import TimmFiles
from pretrainps.errors import UnknownModelError, UnsupportedModelError
from pretrainps.registry.specs import (
    FileFormat,
    HubSource,
    InputConvention,
    Licence,
    ModelSpec,
    Provenance,
)
from pretrainps.weights.key_layout import KeyLayout

KEY_LAYOUTS = (KeyLayout(name="timm", use="timm.create_model({arch!r}, num_classes=0, checkpoint_path={file!r})"),)
"""The names are timm's own; what the layout tells is how timm loads such a file."""
_NAMES = {4: "c2", 8: "c3", 16: "c4", 32: "c5"}
_PROBE = 64
"""Height and width of the image for the proof, in pixels."""


class TimmBackbone(Backbone):
    """A timm model without its head, split into trunk and last stage.

    Args:
        name: timm's model name, with or without a weights tag (`convnext_tiny.fb_in1k`). The network has random
        weights; use `pretrainps.load("timm:NAME")` for trained ones. Some (Swin) need sides divisible by 4.

    Raises:
        UnknownModelError: timm has no such model.
        UnsupportedModelError: the model has no maps at strides 4 to 32 (a plain ViT), or is no simple chain of modules.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"timm:{name}", "timm")
        model = _create(name)
        self._channels_last = getattr(model, "output_fmt", None) == "NHWC"
        taps = _taps(model, name)
        chain = list(_chain(model, [path for path, _ in taps.values()]))
        self.feature_maps = tuple(FeatureInfo(key, taps[key][1], stride) for stride, key in _NAMES.items() if key in taps)
        self.segments = _segments(chain, {key: path for key, (path, _) in taps.items()})
        _prove(model, self.segments, name)
        used = {path.partition(".")[0] for path in chain}
        tail = []
        for child, module in model.named_children():
            if child not in used:
                tail.append(f"{child}.*")
            elif hasattr(self, child):
                raise UnsupportedModelError(f"timm's {name} has a module {child!r}, a name that this class uses itself.")
            else:
                self.add_module(child, module)
        self.dropped_keys = tuple(tail)
        self.adapter = TimmFiles(name, {key: tuple(value.shape) for key, value in self.state_dict().items()})

    def _compute(self, name: str, x: Tensor) -> Tensor:
        if self._channels_last and name != next(iter(self.segments)):
            x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        x = super()._compute(name, x)
        if self._channels_last:
            x = x.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        return x


def timm_spec(name: str) -> ModelSpec:
    """Return the spec of a timm model's default or tagged weights, from timm's own metadata.

    Raises:
        UnknownModelError: timm has no such model, or no weights for it.
    """
    import timm

    _require(name)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # timm has the model, but not the tag
        config = None
    if config is None or not config.hf_hub_id:
        tags = ", ".join(timm.list_pretrained(name.split(".")[0] + "*")[:5])
        raise UnknownModelError(f"timm has no weights on the Hub for {name!r}. It has: {tags or 'none for this model'}.")
    full_name = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    repo = config.hf_hub_id if not config.hf_hub_id.endswith("/") else config.hf_hub_id + full_name
    return ModelSpec(
        name=f"timm:{full_name}",
        title=f"timm {full_name}",
        arch=f"timm:{full_name}",
        summary="Weights of the timm collection.",
        sources=(HubSource(repo=repo, file="model.safetensors"),),
        file=FileFormat(layout="timm"),
        input=InputConvention(
            colour="rgb",
            mean=_triple(config.mean),
            std=_triple(config.std),
            interpolation="bicubic" if config.interpolation == "bicubic" else "bilinear",
            status="documented",
            evidence="timm's pretrained_cfg; crops keep the package's 256x128",
        ),
        licence=Licence(id=config.license or "other", stated_in="timm's pretrained_cfg"),
        provenance=Provenance(
            authors="see the model's page",
            paper=", ".join(_texts(config.paper_ids)) or "see the model's page",
            url=config.origin_url or f"https://huggingface.co/{repo}",
        ),
    )


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    r, g, b = values
    return r, g, b


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value] if isinstance(value, list | tuple) else []


def _require(name: str) -> None:
    import timm

    base = name.partition(".")[0]
    if not timm.is_model(base):
        import difflib

        near = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(f'timm:{n}' for n in near)}?" if near else ""
        raise UnknownModelError(f"timm has no model {base!r}.{hint}", suggestions=tuple(near))


def _create(name: str) -> nn.Module:
    import timm

    _require(name)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    if "strict_img_size" in inspect.signature(type(model).__init__).parameters:
        # scenes have any size, so turn off the size check of models that have one (Swin)
        model = timm.create_model(name, pretrained=False, num_classes=0, strict_img_size=False)
    return model


def _taps(model: nn.Module, name: str) -> dict[str, tuple[str, int]]:
    """Return map name -> (module path, channels): the last module at each of the strides 4, 8, 16, 32."""
    taps: dict[str, tuple[str, int]] = {}
    for info in getattr(model, "feature_info", []):
        if info["reduction"] in _NAMES:
            taps[_NAMES[info["reduction"]]] = (info["module"], info["num_chs"])
    if not {"c4", "c5"} <= taps.keys():
        raise UnsupportedModelError(
            f"timm's {name} has no feature maps at strides 16 and 32, so it cannot be split for a detector. "
            "Use a hierarchical model: ResNet, ConvNeXt, Swin, MobileNet, RegNet, ..."
        )
    return taps


def _chain(model: nn.Module, taps: list[str], prefix: str = "") -> Iterator[str]:
    """Yield the model's modules in order, up to the last tap. A container is opened only if a tap is inside it."""
    for child, module in model.named_children():
        path = prefix + child
        if any(tap.startswith(path + ".") for tap in taps):
            yield from _chain(module, taps, path + ".")
        else:
            yield path
        if taps[-1] == path or taps[-1].startswith(path + "."):
            return


def _segments(chain: list[str], taps: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Cut the chain after each tap."""
    ordered = sorted(taps, key=lambda key: chain.index(taps[key]) if taps[key] in chain else -1)
    ends = [0, *(chain.index(taps[key]) + 1 if taps[key] in chain else 0 for key in ordered)]
    return {key: tuple(chain[start:end]) for key, (start, end) in zip(ordered, pairwise(ends), strict=True)}


@torch.no_grad()
def _prove(model: nn.Module, segments: dict[str, tuple[str, ...]], name: str) -> None:
    """Check on one image that the chain gives the same c4 and c5 as the model itself."""
    seen: dict[str, Tensor] = {}
    # cloned, because the next in-place ReLU may write into a module's output
    hooks = [
        model.get_submodule(segments[key][-1]).register_forward_hook(
            lambda _, __, output, key=key: seen.__setitem__(key, output.clone())
        )
        for key in ("c4", "c5")
    ]
    state = torch.get_rng_state()
    probe = torch.randn(2, 3, _PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
    try:
        model.eval()
        model.forward_features(probe)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        x, chained = probe, {}
        for key, paths in segments.items():
            for path in paths:
                x = model.get_submodule(path)(x)
            chained[key] = x.clone()
        same = all(torch.allclose(seen[key], chained[key], rtol=1e-4, atol=1e-5) for key in ("c4", "c5"))
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        LookupError,
        AttributeError,
        NotImplementedError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedModelError(f"timm's {name} cannot be run as a chain of modules ({reason}). Choose another.") from error
    finally:
        torch.set_rng_state(state)
        for hook in hooks:
            hook.remove()
        model.train()
    if not same:
        raise UnsupportedModelError(f"timm's {name} is not a simple chain of modules, so it cannot be split. Choose another.")
