"""Exact search against numpy's sort, approximate search against faiss and its own promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps import errors
from pretrainps.gallery.search import exact_search as nearest
from pretrainps.gallery.search.bf16_prefilter import screened
from pretrainps.gallery.search.exact_search import ExactSearch, check_vectors
from pretrainps.gallery.search.faiss_index import ApproximateSearch, build


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 700), max_size=4),
    queries=st.integers(1, 5),
    top=st.integers(1, 12),
    seed=st.integers(0, 99),
    at_once=st.sampled_from([256, 1024, 1 << 20]),
    screens=st.booleans(),
)
def test_the_best_are_those_that_a_full_sort_gives(
    sizes: list[int], queries: int, top: int, seed: int, at_once: int, screens: bool
) -> None:
    rng = np.random.default_rng(seed)
    # multiples of 1/8: sums are exact in any order, and many are equal
    blocks = [(rng.integers(-8, 9, (size, 6)) / 8).astype(np.float32) for size in sizes]
    vectors = (rng.integers(-8, 9, (queries, 6)) / 8).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_SCORES", at_once)
        patch.setattr(nearest, "_SCREENED", 2)
        patch.setattr(nearest, "pays", lambda: screens)
        found, rows = ExactSearch([torch.from_numpy(block) for block in blocks]).search(vectors, top)
    everyone = np.concatenate([*blocks, np.zeros((0, 6), np.float32)])
    wanted = -np.sort(-(vectors @ everyone.T), axis=1)[:, :top]
    assert np.array_equal(found, wanted)
    assert np.array_equal(np.take_along_axis(vectors @ everyone.T, rows, axis=1), found)
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    assert all(
        a < b
        for line, row in zip(found, rows, strict=True)
        for a, b, same in zip(row, row[1:], np.diff(line) == 0, strict=False)
        if same
    )


@pytest.mark.parametrize("kind", ["strangers", "twins", "one person", "long"])
def test_screening_passes_nobody_over(kind: str) -> None:
    """In bfloat16 many look equal who are not; whoever could be among the best is computed in full."""
    generator = torch.Generator().manual_seed(3)
    people = torch.nn.functional.normalize(torch.randn(4100, 32, generator=generator))
    if kind == "twins":
        people = torch.nn.functional.normalize(people[:41].repeat(100, 1) + 1e-3 * people)
    elif kind == "one person":
        people = torch.nn.functional.normalize(people[:1] + 1e-4 * people)
    elif kind == "long":
        people = people * torch.logspace(-3, 3, 4100)[:, None]
    queries = torch.nn.functional.normalize(people[::100] + 0.1 * torch.randn(41, 32, generator=generator))
    truly = (queries.double() @ people.double().T).topk(10, dim=1).values
    found = screened(queries, people, 10, floor=torch.full((41, 1), -torch.inf), longest=float(people.norm(dim=1).max()))
    if kind == "one person":
        assert found is None, "all of them could be"
    else:
        assert found is not None and found[0].shape[1] < 2000
        torch.testing.assert_close(found[0].topk(10, dim=1).values.double(), truly, rtol=1e-5, atol=1e-5)
        exact = torch.linalg.vecdot(queries[:, None], people[found[1]])
        torch.testing.assert_close(torch.where(found[0].isinf(), exact, found[0]), exact, rtol=1e-4, atol=1e-4)


def test_rows_count_through_blocks() -> None:
    blocks = [torch.eye(3), torch.zeros(0, 3), 2 * torch.eye(3)]
    scores, rows = ExactSearch(blocks).search(np.eye(3, dtype=np.float32), 2)
    assert scores.tolist() == [[2, 1]] * 3 and rows.tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize(
    ("vectors", "top", "match"),
    [
        (np.zeros((2, 3)), 1, r"expected \(queries, 4\)"),
        (np.zeros(4), 1, r"expected \(queries, 4\)"),
        (np.array([[0, 0, np.nan, 0]]), 1, "not finite"),
        (np.zeros((1, 4)), 0, "top=0"),
    ],
)
def test_questions_that_cannot_be_asked(vectors: np.ndarray, top: int, match: str) -> None:
    with pytest.raises(errors.ArgumentError, match=match):
        check_vectors(vectors.astype(np.float32), 4, top)


def test_an_index_finds_what_it_promises(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="pretrainps[index] is not installed")
    rng = np.random.default_rng(0)
    blocks = [torch.from_numpy(rng.standard_normal((size, 16)).astype(np.float32)) for size in (900, 0, 2100)]
    measured = build(blocks, tmp_path / "index")
    assert measured.lists == 76 and measured.recall >= 0.95 and measured.sample == 200 and 1 <= measured.probes <= 76
    search = ApproximateSearch(tmp_path / "index", probes=measured.probes, people=3000, dim=16)
    vectors = torch.cat(blocks).numpy()[[5, 950, 2999]]
    scores, rows = search.search(vectors, 7)
    exact, truly = ExactSearch(blocks).search(vectors, 7)
    assert rows[:, 0].tolist() == truly[:, 0].tolist()
    np.testing.assert_allclose(scores[:, 0], exact[:, 0], rtol=1e-5)
    everyone = torch.cat(blocks).numpy()
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", vectors, everyone[rows]), rtol=1e-4, atol=1e-5)
    with pytest.raises(errors.IntegrityError, match="another gallery"):
        ApproximateSearch(tmp_path / "index", probes=1, people=2999, dim=16)
    (tmp_path / "index").write_bytes(b"no index")
    with pytest.raises(errors.IntegrityError, match="cannot be read by faiss"):
        ApproximateSearch(tmp_path / "index", probes=1, people=3000, dim=16)
