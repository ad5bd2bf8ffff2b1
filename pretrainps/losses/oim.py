"""Online instance matching (OIM): a softmax over the running mean of each identity and a queue of unlabelled people.

Xiao et al., "Joint Detection and Identification Feature Learning for Person Search", CVPR 2017; numbers as in the
torchvision family of detectors (NAE, SeqNet): `oim.py` of github.com/serend1p1ty/SeqNet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from pretrainps.ops.precision import to_float32

UNLABELLED = -1
"""The id of a person without an identity."""


class OIMLoss(nn.Module):
    """Cross-entropy over the similarities to a lookup table of identities and a circular queue.

    Both tables and the queue's cursor are buffers: they are saved, and a resumed run continues with them. They change only in
    training mode, after the loss was computed from a copy, so that the backward pass never sees the change. Under
    `torch.distributed`, every rank enters the people of all ranks, in the order of ranks, so that the tables stay equal.

    Args:
        dim: Length of an embedding.
        num_identities: Rows of the lookup table.
        queue_size: Rows of the queue.
        scalar: Factor on similarities, the inverse of the softmax's temperature.
        momentum: Share of the old row that is kept when an identity is seen again.
    """

    lookup_table: Tensor
    queue: Tensor
    cursor: Tensor

    def __init__(self, dim: int, num_identities: int, queue_size: int, *, scalar: float = 30.0, momentum: float = 0.5) -> None:
        super().__init__()
        self.scalar = scalar
        self.momentum = momentum
        self.register_buffer("lookup_table", torch.zeros(num_identities, dim))
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("cursor", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        """Return the mean loss of the labelled people, and enter all people into the tables.

        Without labelled people, the loss is 0 with a gradient of 0. Rows that are not filled yet are zero, and take part with
        similarity 0 as in the original. An identity beyond the lookup table stands for a column of the queue, and is entered
        into the queue. The original implementations do so with two of PRW's identities (`identity_numbering="original"`).

        Args:
            embeddings: (N, dim) of people, without background.
            ids: (N,) identities, or `UNLABELLED`.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            people = to_float32(embeddings).to(self.lookup_table.dtype)
            tables = torch.cat([self.lookup_table, self.queue])  # a copy that the update below does not change
            logits = self.scalar * people @ tables.T  # (N, identities + queue)
            total = F.cross_entropy(logits, ids, ignore_index=UNLABELLED, reduction="sum")
        loss = total / (ids != UNLABELLED).sum().clamp(min=1)
        if self.training and torch.is_grad_enabled():
            self.update_tables(*_of_all_ranks(people.detach(), ids))
        return loss

    @torch.no_grad()
    def update_tables(self, embeddings: Tensor, ids: Tensor) -> None:
        """Enter people into the tables, in order. (N, dim), (N,) -> nothing.

        A row that is not finite is left out: it would stay in the tables, although training skips its step.
        """
        finite = embeddings.isfinite().all(dim=1)
        embeddings, ids = embeddings[finite], ids[finite]
        known = (ids >= 0) & (ids < len(self.lookup_table))
        self._average(embeddings[known], ids[known])
        self._enqueue(embeddings[~known])

    def _average(self, embeddings: Tensor, ids: Tensor) -> None:
        """Move each identity's row towards its people, one after the other, and normalize it each time."""
        # Updates of one identity depend on each other, those of different identities do not. So the first round takes the
        # first row of each identity, the second round the second row, and so on.
        order = ids.argsort(stable=True)
        embeddings, ids = embeddings[order], ids[order]
        _, counts = ids.unique_consecutive(return_counts=True)
        starts = counts.cumsum(0) - counts
        turn = torch.arange(len(ids), device=ids.device) - starts.repeat_interleave(counts)
        for number in range(int(counts.max()) if len(counts) else 0):
            now = turn == number
            rows = ids[now]
            moved = self.momentum * self.lookup_table[rows] + (1.0 - self.momentum) * embeddings[now]
            self.lookup_table[rows] = moved / moved.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def _enqueue(self, embeddings: Tensor) -> None:
        size = len(self.queue)
        if size == 0:
            return
        places = (self.cursor + torch.arange(len(embeddings), device=embeddings.device)) % size
        # of more people than places, the last ones are kept
        self.queue[places[-size:]] = embeddings[-size:]
        self.cursor.copy_((self.cursor + len(embeddings)) % size)

    def extra_repr(self) -> str:
        """Return the sizes of the tables for `repr`."""
        return (
            f"{len(self.lookup_table)} identities, queue of {len(self.queue)}, scalar={self.scalar}, momentum={self.momentum}"
        )


def _of_all_ranks(embeddings: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the people of all ranks, in the order of ranks; ranks may have different numbers of people."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings, ids
    counts = [torch.zeros((), dtype=torch.int64, device=ids.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor(len(ids), device=ids.device))
    most = int(torch.stack(counts).max())
    if most == 0:
        return embeddings, ids
    missing = most - len(ids)
    padded, padded_ids = F.pad(embeddings, (0, 0, 0, missing)), F.pad(ids, (0, missing))
    everyone = [torch.empty_like(padded) for _ in counts]
    everyones_ids = [torch.empty_like(padded_ids) for _ in counts]
    dist.all_gather(everyone, padded.contiguous())
    dist.all_gather(everyones_ids, padded_ids.contiguous())
    return (
        torch.cat([rows[: int(count)] for rows, count in zip(everyone, counts, strict=True)]),
        torch.cat([rows[: int(count)] for rows, count in zip(everyones_ids, counts, strict=True)]),
    )
