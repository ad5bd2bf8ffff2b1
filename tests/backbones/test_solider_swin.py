"""SOLIDER's Swin against timm where the two agree, and against attention written out token by token where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.errors import ArgumentError


def random_backbone(**options: float) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone("solider_swin_tiny", options)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "bias_table" in name:
                value.normal_()
            elif value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
    return backbone.double().eval()


@torch.no_grad()
def test_without_modulation_it_is_timms_swin() -> None:
    """At 448 pixels no stage needs padding; softplus(ln(e - 1)) = 1 and b = 0 switch the modulation off."""
    ours = random_backbone()
    for linear in ours.semantic_embed_w:  # type: ignore[union-attr]
        linear.weight.zero_()
        linear.bias.fill_(math.log(math.e - 1))
    for linear in ours.semantic_embed_b:  # type: ignore[union-attr]
        linear.weight.zero_()
        linear.bias.zero_()
    theirs = SwinTransformer(img_size=448, num_classes=0, always_partition=True).double().eval()
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith(("norm", "semantic"))}
    theirs.load_state_dict(state | {k: v for k, v in theirs.state_dict().items() if k.startswith("norm")}, strict=True)
    images = torch.randn(1, 3, 448, 448, dtype=torch.float64)
    x = theirs.patch_embed(images)
    for index, (name, found) in enumerate(ours(images).items()):
        x = theirs.layers[index](x)
        norm = ours.get_submodule(f"norm{index}")
        torch.testing.assert_close(found, norm(x).permute(0, 3, 1, 2), rtol=1e-9, atol=1e-9, msg=name)


def naive_block(block: torch.nn.Module, x: Tensor, shift: int) -> Tensor:
    """One block by its definition: tokens attend to those of the same window that were neighbours before the roll."""
    _, height, width, channels = x.shape
    attn, heads = block.attn, block.attn.num_heads  # type: ignore[union-attr]
    y = block.norm1(x)  # type: ignore[operator]
    rows, columns = math.ceil(height / 7) * 7, math.ceil(width / 7) * 7
    padded = torch.zeros(rows, columns, channels, dtype=x.dtype)
    padded[:height, :width] = y[0]
    out = torch.zeros_like(padded)
    for top in range(0, rows, 7):
        for left in range(0, columns, 7):
            tokens = [((top + i + shift) % rows, (left + j + shift) % columns) for i in range(7) for j in range(7)]
            values = torch.stack([padded[r, c] for r, c in tokens])  # (49, C)
            q, k, v = (values @ attn.qkv.weight.T + attn.qkv.bias).reshape(49, 3, heads, -1).permute(1, 2, 0, 3)
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (heads, 49, 49)
            for a in range(49):
                for b in range(49):
                    row, column = a // 7 - b // 7 + 6, a % 7 - b % 7 + 6
                    scores[:, a, b] += attn.relative_position_bias_table[row * 13 + column]
                    wrapped = [(t[0] < shift) if top + 7 == rows else False for t in (tokens[a], tokens[b])]
                    wrapped_sideways = [(t[1] < shift) if left + 7 == columns else False for t in (tokens[a], tokens[b])]
                    if wrapped[0] != wrapped[1] or wrapped_sideways[0] != wrapped_sideways[1]:
                        scores[:, a, b] -= 100.0
            mixed = (scores.softmax(-1) @ v).permute(1, 0, 2).reshape(49, channels)
            mixed = mixed @ attn.proj.weight.T + attn.proj.bias
            for (r, c), value in zip(tokens, mixed, strict=True):
                out[r, c] = value
    x = x + out[:height, :width]
    return x + block.mlp(block.norm2(x))  # type: ignore[operator]


@torch.no_grad()
def test_modulated_and_padded_windows_by_definition() -> None:
    """64x40 pixels: maps of 16x10 and 8x5 tokens, so that windows are padded and shifted in both directions."""
    s = 0.6
    ours = random_backbone(semantic_weight=s)
    images = torch.randn(1, 3, 64, 40, dtype=torch.float64)
    x = ours.patch_embed(images)  # type: ignore[operator]
    found = ours(images)
    for index, name in enumerate(("c2", "c3")):
        stage = ours.layers[index]  # type: ignore[index]
        x = stage.downsample(x)
        if index:
            pair = torch.tensor([s, 1 - s], dtype=torch.float64)
            w, b = ours.semantic_embed_w[index - 1], ours.semantic_embed_b[index - 1]  # type: ignore[index]
            x = x * F.softplus(w.weight @ pair + w.bias) + (b.weight @ pair + b.bias)
        for position, block in enumerate(stage.blocks):
            x = naive_block(block, x, 3 if position % 2 else 0)
        wanted = ours.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2)
        torch.testing.assert_close(found[name], wanted, rtol=1e-9, atol=1e-9, msg=name)


@torch.no_grad()
def test_last_stage_starts_from_the_normalized_map() -> None:
    ours = random_backbone(semantic_weight=0.6)
    c4 = ours.trunk(torch.randn(2, 3, 96, 64, dtype=torch.float64))
    stage, pair = ours.layers[3], torch.tensor([0.6, 0.4], dtype=torch.float64)  # type: ignore[index]
    x = stage.downsample(c4.permute(0, 2, 3, 1))
    x = x * F.softplus(ours.semantic_embed_w[2](pair)) + ours.semantic_embed_b[2](pair)  # type: ignore[index]
    for position, block in enumerate(stage.blocks):
        x = torch.cat([naive_block(block, row[None], 3 if position % 2 else 0) for row in x])
    wanted = ours.norm3(x).permute(0, 3, 1, 2)  # type: ignore[operator]
    torch.testing.assert_close(ours.last_stage(c4), wanted, rtol=1e-9, atol=1e-9)


def test_any_image_size() -> None:
    maps = random_backbone()(torch.randn(1, 3, 97, 161, dtype=torch.float64))
    assert [tuple(m.shape[2:]) for m in maps.values()] == [(25, 41), (13, 21), (7, 11), (4, 6)]


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_semantic_weight_outside_its_range(weight: float) -> None:
    with pytest.raises(ArgumentError, match=r"0\.\.1"):
        build_backbone("solider_swin_tiny", {"semantic_weight": weight})
