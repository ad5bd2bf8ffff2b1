"""OIM: the original's numbers, updates of the tables one by one, and difficult batches."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretrainps.losses.oim import OIMLoss
from tests.support.ranks import run_on_two_ranks

GOLDEN = Path(__file__).parent.parent / "golden" / "oim.npz"


def unit_rows(count: int, dim: int = 8, seed: int = 0) -> Tensor:
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def filled(identities: int = 5, queue: int = 4, dim: int = 8) -> OIMLoss:
    loss = OIMLoss(dim, identities, queue)
    loss.lookup_table.copy_(unit_rows(identities, dim, seed=1))
    loss.queue.copy_(unit_rows(queue, dim, seed=2))
    return loss


def tables(loss: OIMLoss) -> list[Tensor]:
    return [loss.lookup_table.clone(), loss.queue.clone(), loss.cursor.clone()]


def test_the_originals_numbers() -> None:
    with np.load(GOLDEN) as arrays:
        golden = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
    loss = OIMLoss(16, 20, 12)
    loss.lookup_table.copy_(golden["oim/lut0"])
    loss.queue.copy_(golden["oim/cq0"])
    for number in (0, 1):
        labels = torch.cat([golden[f"oim/{number}/labels{image}"] for image in (0, 1)])
        people = labels > 0  # theirs: 0 is background, 5555 someone unknown, identities from 1
        vectors = golden[f"oim/{number}/x"].clone().requires_grad_()
        value = loss(vectors[people], torch.where(labels == 5555, -1, labels - 1)[people])
        value.backward()
        assert value.item() == pytest.approx(float(golden[f"oim/{number}/loss"]), rel=1e-5)
        torch.testing.assert_close(vectors.grad, golden[f"oim/{number}/grad"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loss.lookup_table, golden[f"oim/{number}/lut"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(loss.queue, golden[f"oim/{number}/cq"], rtol=0, atol=0)
        assert loss.cursor == golden[f"oim/{number}/header"]


def entered_one_by_one(loss: OIMLoss, vectors: Tensor, ids: Tensor) -> list[Tensor]:
    """The formula, person after person."""
    lookup, queue, cursor = tables(loss)
    for vector, identity in zip(vectors, ids.tolist(), strict=True):
        if 0 <= identity < len(lookup):
            moved = loss.momentum * lookup[identity] + (1 - loss.momentum) * vector
            lookup[identity] = moved / moved.norm()
        else:
            queue[cursor] = vector
            cursor = (cursor + 1) % len(queue)
    return [lookup, queue, cursor]


@settings(max_examples=60)
@given(
    ids=st.lists(st.integers(-1, 8), max_size=24),
    identities=st.integers(1, 6),
    queue=st.integers(1, 7),
    cursor=st.integers(0, 6),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_entering_is_one_after_the_other(
    ids: list[int], identities: int, queue: int, cursor: int, momentum: float, seed: int
) -> None:
    """Repeated people in a batch, more unlabelled people than places, identities beyond the table, no people at all."""
    loss = OIMLoss(4, identities, queue, momentum=momentum)
    loss.lookup_table.copy_(unit_rows(identities, 4, seed=seed + 100))
    loss.cursor.fill_(cursor % queue)
    vectors, wanted = unit_rows(len(ids), 4, seed=seed), torch.tensor(ids, dtype=torch.int64)
    expected = entered_one_by_one(loss, vectors, wanted)
    loss.update_tables(vectors, wanted)
    for ours, theirs in zip(tables(loss), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_loss_is_a_softmax_over_both_tables() -> None:
    """Written out in double precision; empty rows take part with similarity 0."""
    loss = filled()
    loss.queue[2:] = 0
    vectors, ids = unit_rows(4, seed=3), torch.tensor([2, -1, 0, 2])
    similarities = 30 * vectors.double() @ torch.cat([loss.lookup_table, loss.queue]).double().T
    rows = [float(row.exp().sum().log() - row[identity]) for row, identity in zip(similarities, ids, strict=True)]
    assert float(loss(vectors, ids)) == pytest.approx((rows[0] + rows[2] + rows[3]) / 3, rel=1e-5)


def test_gradient_does_not_see_the_update() -> None:
    """The same loss, with the backward pass before and after the update of the tables."""
    vectors, ids = unit_rows(4, seed=3), torch.tensor([2, -1, 0, 2])
    loss, still = filled(), filled().eval()
    gradients = []
    for module in (loss, still):
        x = vectors.clone().requires_grad_()
        module(x, ids).backward()
        gradients.append(x.grad)
    assert not torch.equal(loss.lookup_table, still.lookup_table)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert torch.equal(gradients[0][1], torch.zeros(8)), "unlabelled people give no gradient"


@pytest.mark.parametrize("ids", [[-1, -1, -1], []])
def test_nobody_with_a_label(ids: list[int]) -> None:
    loss = filled()
    x = unit_rows(len(ids)).requires_grad_()
    value = loss(x, torch.tensor(ids, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and x.grad is not None and torch.equal(x.grad, torch.zeros(len(ids), 8))
    assert torch.equal(loss.queue[: len(ids)], x.detach()) and int(loss.cursor) == len(ids)
    assert torch.equal(loss.lookup_table, filled().lookup_table)


def test_only_training_moves_the_tables() -> None:
    vectors, ids = unit_rows(3), torch.tensor([0, -1, 1])
    loss = filled()
    before = tables(loss)
    loss.eval()(vectors.clone().requires_grad_(), ids).backward()
    with torch.no_grad():
        loss.train()(vectors, ids)
    assert all(torch.equal(a, b) for a, b in zip(tables(loss), before, strict=True))
    loss(vectors, ids)
    assert not any(torch.equal(a, b) for a, b in zip(tables(loss), before, strict=True))


def test_identities_beyond_the_table_stand_for_columns_of_the_queue() -> None:
    """PRW's original numbering, with 5 rows: 5 is the queue's first column, 8 its last."""
    loss = filled()
    x, ids = unit_rows(2, seed=4).requires_grad_(), torch.tensor([5, 8])
    logits = 30 * x.detach() @ torch.cat([loss.lookup_table, loss.queue]).T
    expected = (logits.logsumexp(1) - torch.stack([logits[0, 5], logits[1, 8]])).mean()
    value = loss(x, ids)
    torch.testing.assert_close(value.detach(), expected)
    assert torch.equal(loss.queue[:2], x.detach()), "and they are entered where the cursor stands"
    assert int(loss.cursor) == 2 and torch.equal(loss.lookup_table, filled().lookup_table)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_never_enters(bad: float) -> None:
    """A step that overflows under a gradient scaler is skipped; the tables must not keep its rows."""
    vectors, ids = unit_rows(4), torch.tensor([0, 1, -1, -1])
    broken = vectors.clone()
    broken[[0, 2], 3] = bad
    loss, expected = filled(), filled()
    loss(broken, ids)
    expected.update_tables(vectors[[1, 3]], ids[[1, 3]])
    assert all(torch.equal(a, b) for a, b in zip(tables(loss), tables(expected), strict=True))
    assert all(table.isfinite().all() for table in tables(loss))


def test_a_resumed_run_goes_on_where_it_stopped() -> None:
    loss = filled()
    loss(unit_rows(3, seed=5), torch.tensor([-1, 1, -1]))
    resumed = OIMLoss(8, 5, 4)
    resumed.load_state_dict(loss.state_dict())
    assert int(resumed.cursor) == 2
    for module in (loss, resumed):
        module(unit_rows(3, seed=6), torch.tensor([-1, -1, -1]))
    assert int(resumed.cursor) == 1
    assert all(torch.equal(a, b) for a, b in zip(tables(loss), tables(resumed), strict=True))


def test_half_precision_keeps_the_loss_whole() -> None:
    vectors, ids = unit_rows(6), torch.tensor([0, 1, -1, 2, 3, 4])
    loss = filled()
    expected = copy.deepcopy(loss)(vectors.bfloat16().float(), ids)
    half = vectors.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, ids)
    assert value.dtype == loss.lookup_table.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    value.backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


TOGETHER = """
from pretrainps.losses.oim import OIMLoss
people = torch.load(f"{folder}/people.pt", weights_only=True)
loss, values = OIMLoss(8, 5, 4), []
for vectors, ids in people[rank]:
    x = vectors.clone().requires_grad_()
    value = loss(x, ids)
    value.backward()
    values.append(value.item())
result = {"state": loss.state_dict(), "values": values}
"""


def test_ranks_keep_equal_tables(tmp_path: Path) -> None:
    """Different numbers of people on two ranks, none on one of them or both: as one process that sees rank after rank."""
    wanted = [([0, -1, 2, 0], [0, -1]), ([], [3, -1, 3]), ([1, -1], []), ([], []), ([-1, -1, 4], [-1, -1, -1, 0])]
    people = [
        [
            (unit_rows(len(ids[rank]), seed=10 * step + rank), torch.tensor(ids[rank], dtype=torch.int64))
            for step, ids in enumerate(wanted)
        ]
        for rank in (0, 1)
    ]
    torch.save(people, tmp_path / "people.pt")
    ranks = run_on_two_ranks(TOGETHER, tmp_path)
    alone = OIMLoss(8, 5, 4)
    for step in range(len(wanted)):
        for rank in (0, 1):  # each rank's loss is of its own people
            vectors, ids = people[rank][step]
            assert ranks[rank]["values"][step] == pytest.approx(float(copy.deepcopy(alone).eval()(vectors, ids)), rel=1e-5)
        alone.update_tables(*(torch.cat([people[rank][step][part] for rank in (0, 1)]) for part in (0, 1)))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(ranks[0]["state"][name], value)
        assert torch.equal(ranks[0]["state"][name], ranks[1]["state"][name]), name
