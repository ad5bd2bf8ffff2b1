"""Norm-aware embeddings against their formulas, written out in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrainps.heads.norm_aware import NormAwareEmbedding, PixelNormAwareEmbedding, UnitEmbedding

CHANNELS = {"c4": 6, "c5": 10}
Array = np.ndarray[Any, Any]


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value that shows if it is used wrongly."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) if "running_var" not in name else tensor + 0.5)
    return module.eval()


def rows(count: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=generator) for name, width in CHANNELS.items()}


def numbers(module: nn.Module) -> dict[str, Array]:
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def batch_norm(x: Array, state: dict[str, Array], name: str) -> Array:
    """Along the second axis."""
    mean, var, weight, bias = (
        state[f"{name}.{each}"].reshape(-1, *[1] * (x.ndim - 2)) for each in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def projected(pooled: dict[str, Tensor], state: dict[str, Array], maps: tuple[str, ...] = ("c4", "c5")) -> Array:
    parts = []
    for name in maps:
        x = pooled[name].double().numpy() @ state[f"projectors.{name}.0.weight"].T + state[f"projectors.{name}.0.bias"]
        parts.append(batch_norm(x, state, f"projectors.{name}.1"))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("dim", [8, 9])
@torch.no_grad()
def test_direction_and_length(count: int, dim: int) -> None:
    head = shaken(NormAwareEmbedding(CHANNELS, dim))
    embeddings, logits = head(rows(count))
    z = projected(rows(count), numbers(head))
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    assert embeddings.shape == (count, dim) and logits.shape == (count,)
    np.testing.assert_allclose(embeddings.numpy(), z / norms, atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), batch_norm(norms, numbers(head), "rescaler")[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(count))


@torch.no_grad()
def test_without_the_norm_branch() -> None:
    head = shaken(UnitEmbedding(CHANNELS, 7))
    z = projected(rows(3), numbers(head))
    np.testing.assert_allclose(head(rows(3)).numpy(), z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-5)


def test_each_map_gives_an_equal_part_and_the_first_what_is_left_over() -> None:
    for head in (UnitEmbedding(CHANNELS, 9), NormAwareEmbedding(CHANNELS, 9), PixelNormAwareEmbedding(CHANNELS, 9)):
        assert [head.projectors[name][1].num_features for name in CHANNELS] == [5, 4]


def test_a_vector_of_length_zero() -> None:
    """No division by zero, forwards or backwards."""
    head = shaken(NormAwareEmbedding(CHANNELS, 8))
    for key, tensor in head.state_dict().items():
        if key.startswith("projectors") and "running_var" not in key:
            tensor.zero_()
    pooled = {name: value.requires_grad_() for name, value in rows(2).items()}
    embeddings, logits = head(pooled)
    assert torch.equal(embeddings, torch.zeros(2, 8))
    at_zero = batch_norm(np.zeros((2, 1)), numbers(head), "rescaler")[:, 0]
    np.testing.assert_allclose(logits.detach().numpy(), at_zero, rtol=1e-4)
    (embeddings.sum() + logits.sum()).backward()
    assert all(each.grad.isfinite().all() for each in [*pooled.values(), *head.parameters()])  # type: ignore[union-attr]


def test_starts_as_the_originals_do() -> None:
    """Weights and batch-norm scales from N(0, 0.01), biases at 0; the norm's own batch norm at 1 and 0."""
    torch.manual_seed(0)
    for head in (NormAwareEmbedding({"c5": 512}, 256), PixelNormAwareEmbedding({"c5": 512}, 256)):
        state = head.state_dict()
        for key, spread in (("projectors.c5.0.weight", 0.0003), ("projectors.c5.1.weight", 0.0015)):
            assert state[key].std() == pytest.approx(0.01, abs=spread) and abs(state[key].mean()) < 0.003
        assert not state["projectors.c5.0.bias"].any() and not state["projectors.c5.1.bias"].any()
        assert state["rescaler.weight"] == 1 and state["rescaler.bias"] == 0


def maps(count: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"c4": 14, "c5": 7}
    return {name: torch.randn(count, CHANNELS[name], size, size, generator=generator) for name, size in sizes.items()}


def attended(vectors: Array, state: dict[str, Array], training: bool = False) -> tuple[Array, Array]:
    """Mean over pixels of direction times probability, and each pixel's logit."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = measured(norms, state, "rescaler") if training else batch_norm(norms, state, "rescaler")
    return (vectors / norms / (1 + np.exp(-logits))).mean(axis=(2, 3)), logits[:, 0]


def measured(x: Array, state: dict[str, Array], name: str) -> Array:
    """Batch norm in training: with the batch's own statistics."""
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    return batch_norm(x, {**state, f"{name}.running_mean": mean, f"{name}.running_var": var}, name)


def convolved(x: Tensor, state: dict[str, Array], name: str) -> Array:
    weight = state[f"projectors.{name}.0.weight"][:, :, 0, 0]
    return np.einsum("oc,nchw->nohw", weight, x.double().numpy()) + state[f"projectors.{name}.0.bias"][:, None, None]


def halved(x: Array) -> Array:
    """Bilinear, without aligned corners: 14 to 7 is the mean of two by two."""
    count, channels, height, width = x.shape
    return x.reshape(count, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@torch.no_grad()
def test_pixels(count: int, training: bool) -> None:
    """The finer map is resized after its projection and batch norm, whose statistics in training are of all its pixels."""
    head = shaken(PixelNormAwareEmbedding(CHANNELS, 9)).train(training)
    state = numbers(head)
    norm = measured if training else batch_norm
    fine, coarse = (norm(convolved(maps(count)[name], state, name), state, f"projectors.{name}.1") for name in ("c4", "c5"))
    expected, logits = attended(np.concatenate([halved(fine), coarse], axis=1), state, training)
    embeddings, found = head(maps(count))
    assert embeddings.shape == (count, 9) and found.shape == (count, 7, 7)
    np.testing.assert_allclose(embeddings.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found.numpy(), logits, rtol=1e-3, atol=1e-3)
    assert embeddings.norm(dim=1).max() < 1


@torch.no_grad()
def test_pixels_of_the_last_map_alone() -> None:
    head = shaken(PixelNormAwareEmbedding({"c5": 10}, 8))
    state = numbers(head)
    expected, logits = attended(batch_norm(convolved(maps(2)["c5"], state, "c5"), state, "projectors.c5.1"), state)
    embeddings, found = head(maps(2))
    np.testing.assert_allclose(embeddings.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found.numpy(), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", [NormAwareEmbedding, UnitEmbedding, PixelNormAwareEmbedding])
@torch.no_grad()
def test_lengths_are_taken_in_full_precision(head: type[nn.Module]) -> None:
    module = shaken(head(CHANNELS, 8))
    inputs = maps(2) if head is PixelNormAwareEmbedding else rows(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(inputs)
    embeddings = found if isinstance(found, Tensor) else found[0]
    assert embeddings.dtype == torch.float32
    if head is not PixelNormAwareEmbedding:
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    exact = module(inputs)
    torch.testing.assert_close(embeddings, exact if isinstance(exact, Tensor) else exact[0], rtol=0, atol=0.05)
