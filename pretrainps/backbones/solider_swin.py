"""SOLIDER's Swin: a Swin Transformer with stages that are modulated by a semantic weight.

Chen et al., "Beyond Appearance", CVPR 2023; original: swin_transformer.py of github.com/tinyvision/SOLIDER. The modules
are timm's. Two things follow the original instead of timm: windows are shifted even on the smallest map, and a map is padded
to whole windows *before* it is rolled. Between two stages comes `x * softplus(W [s, 1 - s]) + b`, where s is the semantic
weight: 1 means only semantics, 0 only appearance.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, window_partition
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones.base import Backbone, FeatureInfo
from pretrainps.errors import ArgumentError
from pretrainps.weights.key_layout import KeyLayout, Tensors, rename, renumbered

SEMANTIC_WEIGHT = 0.6
"""The semantic weight in the fine-tuning of SOLIDER-PersonSearch (its run.sh); SOLIDER's own demo uses 1."""


class SoliderSwin(Backbone):
    """Swin-T/S/B with SOLIDER's semantic modulation; every map is layer-normalized.

    `forward` computes the output of SOLIDER's own backbone: each stage starts from the *unnormalized* output of the stage
    before. `last_stage` starts from the normalized c4 instead, as SOLIDER-PersonSearch does on regions. So for this backbone
    only, `last_stage(trunk(x))` is not `forward(x)["c5"]`.

    Args:
        arch: Name of the architecture.
        width: Channels of the first stage.
        depths: Blocks in each stage.
        heads: Attention heads in each stage.
        semantic_weight: s in 0..1; the attribute of the same name may be changed at any time.

    Raises:
        ArgumentError: the semantic weight is outside 0..1.
    """

    def __init__(
        self,
        arch: str,
        *,
        width: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        semantic_weight: float = SEMANTIC_WEIGHT,
    ) -> None:
        super().__init__(arch, "solider_swin")
        if not isinstance(semantic_weight, int | float) or not 0.0 <= semantic_weight <= 1.0:
            raise ArgumentError(f"semantic_weight must be a number in 0..1, not {semantic_weight!r}.")
        self.semantic_weight = semantic_weight
        swin = SwinTransformer(
            embed_dim=width,
            depths=depths,
            num_heads=heads,
            window_size=7,
            num_classes=0,
            drop_path_rate=0.0,
            always_partition=True,
            strict_img_size=False,
        )
        self.patch_embed = swin.patch_embed
        self.layers = swin.layers
        widths = [width << stage for stage in range(4)]
        for stage, channels in enumerate(widths):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        # the checkpoints have a fourth pair, but it does not affect any output of the original
        modulated = [*widths[1:], widths[-1]]
        self.semantic_embed_w = nn.ModuleList(nn.Linear(2, channels) for channels in modulated)
        self.semantic_embed_b = nn.ModuleList(nn.Linear(2, channels) for channels in modulated)
        self.feature_maps = tuple(FeatureInfo(f"c{stage + 2}", widths[stage], 4 << stage) for stage in range(4))
        self.segments = {
            "stem": ("patch_embed",),
            **{f"c{stage + 2}": (f"layers.{stage}", f"norm{stage}") for stage in range(4)},
        }

    def options(self) -> dict[str, Any]:
        """Return the current semantic weight."""
        return {"semantic_weight": self.semantic_weight}

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return all feature maps. (N, 3, H, W) -> {"c2": ..., ..., "c5": (N, C, H / 32, W / 32)}."""
        return self._maps(images, ("c2", "c3", "c4", "c5"))

    def trunk_maps(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the normalized maps up to stride 16."""
        return self._maps(images, ("c2", "c3", "c4"))

    def last_stage(self, c4: Tensor) -> Tensor:
        """Run patch merging, modulation and the last stage on a normalized stride-16 map, or on regions of one."""
        return self._normalized("c5", self._run("c5", c4.permute(0, 2, 3, 1)))

    def _modules_by_half(self) -> tuple[list[str], list[str]]:
        """Return the modules of each part: a stage's modulation belongs to its part. The fourth one modulates nothing."""
        trunk, last = super()._modules_by_half()
        both = ("semantic_embed_w", "semantic_embed_b")
        return [*trunk, *(f"{name}.{i}" for name in both for i in (0, 1))], [
            *last,
            *(f"{name}.{i}" for name in both for i in (2, 3)),
        ]

    def _maps(self, images: Tensor, names: tuple[str, ...]) -> OrderedDict[str, Tensor]:
        self._require_images(images)
        x = self._run("stem", images)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name in names:
            x = self._run(name, x)  # (N, H / stride, W / stride, C), not normalized
            maps[name] = self._normalized(name, x)
        return maps

    def _compute(self, name: str, x: Tensor) -> Tensor:
        """Run one stage without its norm; channels last."""
        if name == "stem":
            height, width = x.shape[-2:]
            return self.patch_embed(F.pad(x, (0, -width % 4, 0, -height % 4)))  # type: ignore[no-any-return]
        index = int(name[1]) - 2
        stage = self.layers[index]
        x = stage.downsample(x)  # type: ignore[operator]
        if index > 0:
            s = x.new_tensor([self.semantic_weight, 1.0 - self.semantic_weight])
            scale = F.softplus(self.semantic_embed_w[index - 1](s))
            x = x * scale + self.semantic_embed_b[index - 1](s)
        for block in stage.blocks:  # type: ignore[union-attr]
            x = x + _windowed_attention(block, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        return x

    def _normalized(self, name: str, x: Tensor) -> Tensor:
        """(N, H, W, C) -> layer-normalized (N, C, H, W)."""
        norm = self.get_submodule(self.segments[name][-1])
        return norm(x).permute(0, 3, 1, 2).contiguous()  # type: ignore[no-any-return]


def _windowed_attention(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Attend within (shifted) windows: pad to whole windows, roll, attend, roll back, crop. (N, H, W, C) -> the same."""
    number, height, width, channels = x.shape
    window, shift = block.window_size, block.shift_size
    # computed from the number of windows, so that an exporter sees that the padded map consists of whole windows
    rows, columns = (height + window[0] - 1) // window[0], (width + window[1] - 1) // window[1]
    padded_height, padded_width = rows * window[0], columns * window[1]
    x = F.pad(x, (0, 0, 0, padded_width - width, 0, padded_height - height))
    x = x.roll((-shift[0], -shift[1]), (1, 2))
    windows = window_partition(x, window).view(-1, window[0] * window[1], channels)  # (N * windows, 49, C)
    windows = block.attn(windows, mask=block.get_attn_mask(x))
    tiles = windows.view(number, rows, columns, *window, channels).transpose(2, 3)
    x = tiles.reshape(number, padded_height, padded_width, channels)
    return x.roll(shift, (1, 2))[:, :height, :width].contiguous()


def solider_swin_tiny(semantic_weight: float = SEMANTIC_WEIGHT) -> SoliderSwin:
    """Build SOLIDER's Swin-T: maps of 96, 192, 384, 768 channels."""
    return SoliderSwin(
        "solider_swin_tiny", width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), semantic_weight=semantic_weight
    )


def solider_swin_small(semantic_weight: float = SEMANTIC_WEIGHT) -> SoliderSwin:
    """Build SOLIDER's Swin-S: maps of 96, 192, 384, 768 channels."""
    return SoliderSwin(
        "solider_swin_small", width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), semantic_weight=semantic_weight
    )


def solider_swin_base(semantic_weight: float = SEMANTIC_WEIGHT) -> SoliderSwin:
    """Build SOLIDER's Swin-B: maps of 128, 256, 512, 1024 channels."""
    return SoliderSwin(
        "solider_swin_base", width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), semantic_weight=semantic_weight
    )


# SOLIDER's code has mmdetection's Swin names, with patch merging as an nn.Unfold, against timm's here.

_SWIN_NAMES = (
    ("patch_embed.projection.", "patch_embed.proj."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
)


def _from_solider(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            *((re.escape(theirs), ours) for theirs, ours in _SWIN_NAMES),
            # the original has a patch merging in the stage before it, timm in the stage after it
            (r"^stages\.(\d)(?=\.downsample)", renumbered("layers.", +1)),
            (r"^stages\.", "layers."),
        ),
    )
    # the file's name decides: under native names the same tensors are in timm's order already
    theirs = {new for old, new in zip(tensors, renamed, strict=True) if old.startswith("stages.") and ".downsample." in old}
    return {key: _unfold_to_timm(value) if key in theirs else value for key, value in renamed.items()}


def _to_solider(tensors: Tensors) -> Tensors:
    renamed = rename(
        tensors,
        (
            (r"^layers\.(\d)(?=\.downsample)", renumbered("stages.", -1)),
            (r"^layers\.", "stages."),
            *((re.escape(ours), theirs) for theirs, ours in _SWIN_NAMES),
        ),
    )
    ours = {new for old, new in zip(tensors, renamed, strict=True) if old.startswith("layers.") and ".downsample." in old}
    return {key: _timm_to_unfold(value) if key in ours else value for key, value in renamed.items()}


def _unfold_to_timm(value: Tensor) -> Tensor:
    """Reorder the last axis of 4C merged channels from nn.Unfold's (C, row, column) to timm's (column, row, C)."""
    lead = value.shape[:-1]
    return torch.movedim(value.reshape(*lead, -1, 2, 2), (-3, -2, -1), (-1, -2, -3)).reshape(value.shape).contiguous()


def _timm_to_unfold(value: Tensor) -> Tensor:
    lead = value.shape[:-1]
    return torch.movedim(value.reshape(*lead, 2, 2, -1), (-3, -2, -1), (-1, -2, -3)).reshape(value.shape).contiguous()


KEY_LAYOUTS = (
    KeyLayout(
        name="solider",
        to_native=_from_solider,
        from_native=_to_solider,
        wrapper=("teacher",),
        reorders=True,
        unused=("*.relative_position_index",),
        use="the names inside SOLIDER's checkpoints after 'backbone.'",
    ),
)
"""The names that SOLIDER's code gives the tensors."""
