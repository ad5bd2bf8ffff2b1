"""Learning rates as torch's own schedulers give them, what decays, and the mean of the weights."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pretrainps.errors import TrainingError
from pretrainps.training import OptimSettings
from pretrainps.training.engine.ema import WeightAverage
from pretrainps.training.engine.optimization import LearningRate, build_optimizer, parameter_groups
from pretrainps.training.pretraining.uncertainty import UncertaintyWeights
from tests.training.tasks import DetectorTask


def rates_of(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR calls its parts in a way that torch itself deprecates
            scheduler.step()
    return found


def sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def test_warmup_and_milestones_as_torch_has_them() -> None:
    optim = OptimSettings(lr=0.02, warmup_epochs=1.0, warmup_factor=0.001, milestones=(3, 4), gamma=0.1)
    rate = LearningRate(optim, batch=5, steps_per_epoch=10, steps=50)
    oracle = sgd(0.02)
    warmup = LinearLR(oracle, start_factor=0.001, total_iters=10)
    expected = rates_of(ChainedScheduler([warmup, MultiStepLR(oracle, [30, 40])]), oracle, 50)
    assert [rate(step) for step in range(50)] == pytest.approx(expected, rel=1e-9)


def test_cosine_as_torch_has_it() -> None:
    optim = OptimSettings(lr=0.02, schedule="cosine", warmup_steps=7, warmup_factor=0.1, final_factor=0.25)
    rate = LearningRate(optim, batch=5, steps_per_epoch=10, steps=50)
    oracle = sgd(0.02)
    parts = [LinearLR(oracle, start_factor=0.1, total_iters=7), CosineAnnealingLR(oracle, 43, eta_min=0.005)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = SequentialLR(oracle, parts, milestones=[7])
    assert [rate(step) for step in range(50)] == pytest.approx(rates_of(scheduler, oracle, 50), rel=1e-6)
    assert rate(50) == rate(1000) == pytest.approx(0.005)


@pytest.mark.parametrize(("reference", "expected"), [(None, 0.003), (5, 0.003 * 16 / 5), (32, 0.0015)])
def test_the_rate_grows_with_the_batch(reference: int | None, expected: float) -> None:
    optim = OptimSettings(lr=0.003, reference_batch=reference, schedule="constant")
    assert LearningRate(optim, batch=16, steps_per_epoch=1, steps=1)(0) == pytest.approx(expected)


@pytest.mark.parametrize("decay", ["all", "no_biases", "matrices"])
def test_what_decays(decay: Any) -> None:
    model = DetectorTask().model
    frozen = next(model.parameters()).requires_grad_(False)
    groups = parameter_groups(model, OptimSettings(weight_decay=0.5, decay=decay))
    decaying = {id(each) for group in groups if group["weight_decay"] == 0.5 for each in group["params"]}
    others = {id(each) for group in groups if group["weight_decay"] == 0.0 for each in group["params"]}
    learned = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert decaying | others == {id(each) for each in learned.values()} and not decaying & others
    assert id(frozen) not in decaying | others
    norms = {id(each) for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for each in m.parameters()}
    for name, parameter in learned.items():
        bias, norm = name.endswith("bias"), id(parameter) in norms
        expected = {"all": True, "no_biases": not bias, "matrices": not (bias or norm)}[decay]
        assert (id(parameter) in decaying) == expected, name


@pytest.mark.parametrize("decay", ["all", "no_biases", "matrices"])
def test_weights_between_losses_never_decay(decay: Any) -> None:
    weights = UncertaintyWeights({"loss_box_cls": "classification"}, {"loss_box_cls": 1.0})
    (group,) = parameter_groups(weights, OptimSettings(weight_decay=0.5, decay=decay))
    assert group["weight_decay"] == 0.0 and len(group["params"]) == 1


def test_weight_decay_reaches_only_its_group() -> None:
    model = nn.Linear(2, 2)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(model, OptimSettings(kind="adamw", lr=0.1, weight_decay=0.5, decay="no_biases"))
    before = model.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), torch.ones(2))


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(TrainingError, match="all are frozen"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), OptimSettings())


def test_mean_of_weights_as_torch_has_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ours = WeightAverage(model, 0.1)  # the ramp allows 0.1 from the first step on
    oracle = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.1))
    oracle.update_parameters(model)  # torch's first update only copies
    for step in range(5):
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter)
        model(torch.randn(4, 3))
        ours.update(step)
        oracle.update_parameters(model)
    expected = oracle.module.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with ours.in_place():
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name], msg=name)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_mean_forgets_its_start_soon() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    average = WeightAverage(model, 0.9999)
    nn.init.zeros_(model.weight)
    for step in range(100):
        average.update(step)
    mean = average.means["weight"].item()
    assert mean == pytest.approx(100.0 * math.prod((1 + n) / (10 + n) for n in range(100)), rel=1e-4)
    assert mean < 1e-3
