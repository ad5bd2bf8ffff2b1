"""Numbers that are not finite end in words or in a loss that says so, and never reach an operator that takes boxes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from pretrainps.detectors import SeqNet
from pretrainps.detectors.finite import made_finite, require_finite, spoiled_by
from pretrainps.detectors.region import seqnet
from pretrainps.detectors.region.proposals import ProposalNetwork
from pretrainps.errors import NonFiniteError, PretrainPSError
from tests.support.detectors import KINDS, TINY, lively_detector, scenes, small_detector

WRONG = (math.nan, math.inf, -math.inf)
BOX = torch.tensor([[10.0, 10, 40, 90]])


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_one_number_is_enough(wrong: float, dtype: torch.dtype) -> None:
    fine, bad = torch.ones(3, 4, dtype=dtype), torch.ones(3, 4, dtype=dtype)
    bad[1, 2] = wrong
    require_finite("boxes", fine, fine[:0], 1000 * fine)
    with pytest.raises(NonFiniteError, match=r"the boxes that the network computed are not finite.*float32") as caught:
        require_finite("boxes", fine, bad)
    assert isinstance(caught.value, PretrainPSError)
    loss = torch.tensor(2.0)
    assert spoiled_by(loss, fine, fine[:0]) == 2.0 and spoiled_by(loss, fine, bad).isnan()
    assert torch.equal(made_finite(bad), torch.where(bad == 1, bad, 0))


def test_infinities_that_would_cancel() -> None:
    with pytest.raises(NonFiniteError):
        require_finite("scores", torch.tensor([math.inf, -math.inf]), torch.tensor([1.0]))


def test_a_spoiled_loss_has_the_gradient_of_the_loss() -> None:
    weight = torch.ones(3, requires_grad=True)
    spoiled_by((weight * weight).sum(), weight).backward()
    assert weight.grad is not None and torch.equal(weight.grad, torch.full((3,), 2.0))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", ["objectness", "deltas"])
def test_proposals_see_finite_numbers_only(wrong: float, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decodes, sorts and suppresses is replaced: no operator meets these numbers, whatever the code does."""
    model = small_detector("seqnet", "resnet_tiny", **TINY)
    images, pixels = ImageList(torch.zeros(1, 3, 96, 96), [(96, 96)]), torch.rand(1, model.backbone.channels["c4"], 6, 6)
    head, seen = model.rpn.head, []

    def broken(maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = head(maps)
        (objectness if place == "objectness" else deltas)[0].data[0, 0, 2, 3] = wrong
        return objectness, deltas

    def best(self: ProposalNetwork, objectness: Tensor, deltas: Tensor, *_: Any) -> list[Tensor]:
        seen.append(bool(objectness.isfinite().all() and deltas.isfinite().all()))
        return [BOX]

    monkeypatch.setattr(ProposalNetwork, "_best", best)
    model.rpn.head = _Calls(broken, head)
    _, losses = model.rpn.propose(images, pixels, [{"boxes": BOX}])
    assert seen == [True] and losses["loss_rpn_reg"].isnan()
    with pytest.raises(NonFiniteError, match="proposals"):
        model.rpn.eval().propose(images, pixels)
    assert seen == [True], "nothing was handed on"


class _Calls(torch.nn.Module):
    """A module that calls a function; its weights are another's."""

    def __init__(self, function: Any, other: torch.nn.Module) -> None:
        super().__init__()
        self.function, self.other = function, other

    def forward(self, *given: Any) -> Any:
        return self.function(*given)


@pytest.mark.parametrize("wrong", WRONG)
def test_seqnets_second_stage_gets_finite_boxes(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training the boxes of the first stage are cut out again: this is where a diverged SeqNet ended the process."""
    model, (images, targets) = small_detector("seqnet", "resnet_tiny", **TINY).train(), scenes()
    assert isinstance(model, SeqNet)
    first_stage, move, seen = model._first_stage, seqnet.decode_boxes, []

    def broken(features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        logits, deltas = first_stage(features, boxes)
        return logits, torch.cat([torch.full_like(deltas[:1], wrong), deltas[1:]])

    def watched(boxes: Any, deltas: Tensor, sizes: Any) -> list[Tensor]:
        seen.append(bool(deltas.isfinite().all()))
        return move(boxes, torch.zeros_like(deltas), sizes)

    monkeypatch.setattr(model, "_first_stage", broken)
    monkeypatch.setattr(seqnet, "decode_boxes", watched)
    losses = model(images, targets)
    assert isinstance(losses, dict)
    assert seen == [True] and losses["loss_proposal_reg"].isnan() and losses["loss_rpn_cls"].isfinite()
    with pytest.raises(NonFiniteError, match="first stage"):
        model.eval()(images)
    assert seen == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_that_are_not_finite(kind: str) -> None:
    model, (images, _) = lively_detector(kind, "resnet_tiny", **TINY), scenes()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("embedding_head.projectors.c5"):
                parameter.fill_(math.inf)
    for call in (
        lambda: model(images),
        lambda: model.embed(images, [BOX, BOX]),
        lambda: model.query_as_gallery(images, [BOX, BOX]),
    ):
        with pytest.raises(NonFiniteError, match="embeddings"):
            call()
