"""Alignment: reversed gradients, discriminators that learn and are confused, discrepancies against loops, merged norms."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrainps.backbones import build_backbone
from pretrainps.errors import ArgumentError, UnsupportedModelError
from pretrainps.training.pretraining.alignment import ALIGNMENTS, Alignment, AlignmentSettings, TaskFeatures, register_alignment
from pretrainps.training.pretraining.alignment.adversarial import AdversarialAlignment, reverse_gradient
from pretrainps.training.pretraining.alignment.domain_norm import DomainNorm, DomainNormAlignment
from pretrainps.training.pretraining.alignment.mmd import MMDAlignment, mmd
from tests.training.hybrids import backbone, batch, hybrid, total

CHANNELS = {"c4": 4, "c5": 6}
SETS: Any = {"detection": 2, "reid": 1}


def features(sets: list[int], seed: int = 0, *, shift: float = 0.0) -> TaskFeatures:
    """Random features; those of data set 1 are moved."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.tensor(sets)
    maps = torch.randn(len(sets), 4, 3, 5, generator=generator) + shift * which[:, None, None, None]
    inside = torch.ones(len(sets), 3, 5, dtype=torch.bool)
    return TaskFeatures(maps, inside, which, torch.randn(len(sets), 6, generator=generator) + shift * which[:, None], which)


def test_reversal_is_the_identity_and_turns_and_scales_the_gradient() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x, 0.7)
    assert torch.equal(y, x)
    (plain,) = torch.autograd.grad((x.sin() ** 2).sum(), x)
    (turned,) = torch.autograd.grad((y.sin() ** 2).sum(), x)
    torch.testing.assert_close(turned, -0.7 * plain, rtol=1e-6, atol=0)
    # at a strength of -1 it is the identity backwards too, which finite differences can check
    assert torch.autograd.gradcheck(lambda z: reverse_gradient(z, -1.0), (x,))


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_what_is_turned_round_grows_with_the_training(progress: float) -> None:
    alignment, seen = AdversarialAlignment(SETS, CHANNELS, AlignmentSettings(width=8)), features([0, 1])
    maps = seen.maps.requires_grad_()
    judged = alignment.image["detection"](maps).log_softmax(dim=1)
    (plain,) = torch.autograd.grad(-torch.stack([judged[0, 0], judged[1, 1]]).mean(), maps)
    (turned,) = torch.autograd.grad(alignment("detection", seen, progress)["loss_align_detection_image"], maps)
    strength = 2 / (1 + math.exp(-10 * progress)) - 1
    torch.testing.assert_close(turned, -strength * plain)


def test_discriminators_tell_data_sets_apart_and_reversal_confuses_them() -> None:
    """Two clouds that differ in one direction; an encoder that could forget it, if it is told to."""

    def train(*, turned: bool) -> Tensor:
        torch.manual_seed(0)
        alignment = AdversarialAlignment(SETS, CHANNELS, AlignmentSettings(width=16))
        on_maps, on_people = nn.Conv2d(4, 4, 1), nn.Linear(6, 6)
        judges = torch.optim.Adam(alignment.parameters(), lr=0.01)
        encoders = torch.optim.SGD([*on_maps.parameters(), *on_people.parameters()], lr=0.02)
        found = []
        for step in range(220):
            seen = features([0, 1] * 8, seed=step, shift=2.0)
            seen = TaskFeatures(on_maps(seen.maps), seen.inside, seen.map_sets, on_people(seen.instances), seen.instance_sets)
            losses = torch.stack(list(alignment("detection", seen, float(turned)).values()))
            for optimizer in (judges, encoders):
                optimizer.zero_grad()
            losses.sum().backward()
            for optimizer in (judges, encoders):
                optimizer.step()
            found.append(losses.detach())
        return torch.stack(found[-80:]).mean(dim=0)  # image, instance

    learned, confused = train(turned=False), train(turned=True)  # at a strength of 0, the encoders get no gradient at all
    assert float(learned.max()) < 0.15
    assert float(confused.min()) > 0.5  # chance is log 2 = 0.69


def test_padding_plays_no_part() -> None:
    alignment, mean = (
        AdversarialAlignment(SETS, CHANNELS, AlignmentSettings()),
        MMDAlignment(SETS, CHANNELS, AlignmentSettings()),
    )
    plain = features([0, 0, 1, 1])
    padded = TaskFeatures(
        F.pad(plain.maps, (0, 2, 0, 3), value=9.0),
        F.pad(plain.inside, (0, 2, 0, 3), value=False),
        plain.map_sets,
        plain.instances,
        plain.instance_sets,
    )
    for each in (alignment, mean):
        for name, loss in each("detection", plain).items():
            torch.testing.assert_close(each("detection", padded)[name], loss)


@pytest.mark.parametrize("kind", [Alignment, MMDAlignment])
def test_a_single_data_set_is_left_alone(kind: Any) -> None:
    assert kind({"detection": 1, "reid": 1}, CHANNELS, AlignmentSettings())("reid", features([0, 0])) == {}
    adversarial = AdversarialAlignment(SETS, CHANNELS, AlignmentSettings())
    assert adversarial("reid", features([0, 0])) == {} and adversarial.names("reid") == []
    assert list(adversarial.image) == ["detection"]  # no discriminator that nothing would teach


@pytest.mark.parametrize(
    "alignment", [AdversarialAlignment(SETS, CHANNELS, AlignmentSettings()), MMDAlignment(SETS, CHANNELS, AlignmentSettings())]
)
def test_no_person_and_no_second_data_set_cost_something_finite(alignment: Alignment) -> None:
    some = features([0, 0])
    empty = TaskFeatures(some.maps, some.inside, some.map_sets, torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    for seen in (some, empty):
        assert all(bool(loss.isfinite()) for loss in alignment("detection", seen).values())


def mmd_by_loops(x: Tensor, y: Tensor) -> float:
    """The squared discrepancy with nothing but loops."""
    both = [*x, *y]
    n, m = len(x), len(y)
    squared = [[float(((a - b) ** 2).sum()) for b in both] for a in both]
    scale = sum(sum(row) for row in squared) / ((n + m) * (n + m - 1))

    def kernel(a: int, b: int) -> float:
        return sum(math.exp(-squared[a][b] / (factor * scale)) for factor in (0.25, 0.5, 1, 2, 4)) / 5

    first, second = range(n), range(n, n + m)
    return (
        sum(kernel(a, b) for a in first for b in first) / n**2
        + sum(kernel(a, b) for a in second for b in second) / m**2
        - 2 * sum(kernel(a, b) for a in first for b in second) / (n * m)
    )


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (7, 3)])
def test_mmd_is_the_loops(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(m, 5, generator=generator, dtype=torch.float64) + 100.5
    assert float(mmd(x, y)) == pytest.approx(mmd_by_loops(x, y), abs=1e-9)


def test_mmd_of_equal_samples_is_zero_and_grows_with_the_distance() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert float(mmd(x, x.clone())) == pytest.approx(0.0, abs=1e-6)
    assert float(mmd(x[:1].repeat(4, 1), x[:1].repeat(3, 1))) == pytest.approx(0.0, abs=1e-6)
    assert 0 < float(mmd(x, x + 0.2)) < float(mmd(x, x + 1.0)) < float(mmd(x, x + 5.0))


def test_mmd_alignment_is_the_mean_over_pairs_of_data_sets() -> None:
    alignment = MMDAlignment({"detection": 3, "reid": 0}, CHANNELS, AlignmentSettings())
    seen = features([0, 0, 1, 1, 2, 2, 2])
    people = seen.instances.double()
    wanted = [
        mmd_by_loops(people[seen.instance_sets == a], people[seen.instance_sets == b]) for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    found = alignment("detection", seen)["loss_align_detection_instance"]
    assert float(found) == pytest.approx(sum(wanted) / 3, abs=1e-6)


def normed(sets: int = 3) -> tuple[DomainNorm, DomainNormAlignment]:
    """A norm for three data sets, each of which measured and learned something else."""
    alignment = DomainNormAlignment({"detection": 2, "reid": sets - 2}, CHANNELS, AlignmentSettings())
    half = backbone().split()[1]
    alignment.prepare(half)
    norm = next(module for module in half.modules() if isinstance(module, DomainNorm))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in norm.norms:
            for tensor in (*each.parameters(), each.get_buffer("running_mean"), each.get_buffer("running_var")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return norm, alignment


def test_domain_norms_see_their_own_rows() -> None:
    norm, alignment = normed()
    x = torch.randn(6, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    wanted = torch.cat([copy.deepcopy(norm.norms[0])(x[:2]), copy.deepcopy(norm.norms[1])(x[2:])])
    before = norm.norms[2].get_buffer("running_mean").clone()
    with alignment.rows("detection", [2, 4]):
        torch.testing.assert_close(norm(x), wanted)
    assert torch.equal(norm.norms[2].get_buffer("running_mean"), before)
    with alignment.rows("reid", [6]):
        norm(x)
    assert not torch.equal(norm.norms[2].get_buffer("running_mean"), before)
    with pytest.raises(ArgumentError, match="which rows"):
        norm(x)


def test_the_merged_norm_gives_the_mean_of_all() -> None:
    norm, _ = normed()
    norm.eval()
    x = torch.randn(4, 512, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm.merged()(x), torch.stack([each(x) for each in norm.norms]).mean(dim=0))
    torch.testing.assert_close(norm(x), norm.merged()(x))
    means = torch.stack([each.get_buffer("running_mean") for each in norm.norms])
    variances = torch.stack([each.get_buffer("running_var") for each in norm.norms])
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(512, 3)), torch.distributions.Normal(means.T, variances.T.sqrt())
    )
    torch.testing.assert_close(norm.merged().get_buffer("running_mean"), mixture.mean)
    torch.testing.assert_close(norm.merged().get_buffer("running_var"), mixture.variance)


def test_equal_norms_merge_into_themselves() -> None:
    alignment = DomainNormAlignment({"detection": 2, "reid": 2}, CHANNELS, AlignmentSettings())
    half = backbone().split()[0]
    plain = half.state_dict()
    alignment.prepare(half)
    for key, value in alignment.plain_state(half).items():
        torch.testing.assert_close(value, plain[key], msg=key)


def test_a_backbone_without_batch_norm_cannot_have_several() -> None:
    with pytest.raises(UnsupportedModelError, match="no batch norm"):
        DomainNormAlignment(SETS, CHANNELS, AlignmentSettings()).prepare(build_backbone("timm:convnext_atto"))


@pytest.mark.parametrize("wrong", [{"kind": "coral"}, {"weight": -1.0}, {"width": 0}])
def test_impossible_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        AlignmentSettings(**wrong)


@pytest.fixture
def of_another_package() -> Iterator[type[Alignment]]:
    """An alignment as another package would add it."""

    @register_alignment("means")
    class Means(Alignment):
        levels = ("instance",)

        def _losses(self, task: Any, features: TaskFeatures, progress: float) -> dict[str, Tensor]:
            means = [features.instances[features.instance_sets == each].mean(dim=0) for each in range(self.sets[task])]
            return {"instance": progress * (means[0] - means[1]).square().nan_to_num().sum()}

    yield Means
    del ALIGNMENTS["means"]


def test_an_alignment_of_another_package_is_trained(of_another_package: type[Alignment]) -> None:
    model = hybrid("means")
    assert type(model.alignment) is of_another_package
    losses = model(*batch(), 0.5)
    assert losses.keys() == set(model.loss_names()) and {"loss_align_reid_instance", "loss_align_detection_instance"} <= set(
        losses
    )
    total(losses).backward()
    assert all(each.grad is not None for each in model.parameters() if each.requires_grad)
    assert type(hybrid("means", detection_sets=("street",), reid_sets={"hall": 3}).alignment) is Alignment


def test_a_name_is_given_once(of_another_package: type[Alignment]) -> None:
    assert register_alignment("means")(of_another_package) is of_another_package
    for name in ("means", "mmd", "none"):
        with pytest.raises(ArgumentError, match=f"{name!r} is .* already"):
            register_alignment(name)(type("Other", (Alignment,), {}))


@pytest.mark.parametrize(("wrong", "near"), [("adverserial", "adversarial"), ("domain-norm", "domain_norm"), ("None", "none")])
def test_a_misspelt_alignment_gets_a_hint(wrong: str, near: str) -> None:
    with pytest.raises(ArgumentError, match=f"kind must be one of 'none', .*Did you mean {near!r}"):
        AlignmentSettings(kind=wrong)
