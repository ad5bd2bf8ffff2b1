"""Exact search against numpy's sort, approximate search against faiss and its own promise."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrainps import errors
from pretrainps.gallery.search import exact_search
from pretrainps.gallery.search.bf16_prefilter import prefilter
from pretrainps.gallery.search.exact_search import ExactSearch, check_vectors
from pretrainps.gallery.search.faiss_index import FaissIndexType, build
from pretrainps.gallery.search.protocol import DetectionFilter
from pretrainps.gallery.storage.folder import FolderStore
from tests.support.galleries import random_shard, stored


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 700), max_size=4),
    queries=st.integers(1, 5),
    top=st.integers(1, 12),
    seed=st.integers(0, 99),
    at_once=st.sampled_from([256, 1024, 1 << 20]),
    prefilters=st.booleans(),
)
def test_the_best_are_those_that_a_full_sort_gives(
    sizes: list[int], queries: int, top: int, seed: int, at_once: int, prefilters: bool
) -> None:
    rng = np.random.default_rng(seed)
    # multiples of 1/8: sums are exact in any order, and many are equal
    blocks = [(rng.integers(-8, 9, (size, 6)) / 8).astype(np.float32) for size in sizes]
    vectors = (rng.integers(-8, 9, (queries, 6)) / 8).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "_SCORES", at_once)
        patch.setattr(exact_search, "_PREFILTERED", 2)
        patch.setattr(exact_search, "is_fast", lambda: prefilters)
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
    found = prefilter(queries, people, 10, floor=torch.full((41, 1), -torch.inf), longest=float(people.norm(dim=1).max()))
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
    parts = [random_shard([count], seed=place, dim=16, first=place) for place, count in enumerate((900, 0, 2100))]
    blocks = [part.embeddings for part in parts]
    measured = build(blocks, tmp_path / "index")
    assert measured.nlist == 76 and measured.recall >= 0.95 and measured.sample == 200 and 1 <= measured.nprobe <= 76
    stored(tmp_path / "g", parts, dim=16)
    catalog, kind = FolderStore(tmp_path / "g").open(), FaissIndexType()
    search = kind.open(catalog, asdict(measured), tmp_path / "index", device="cpu")
    vectors = torch.cat(blocks).numpy()[[5, 950, 2999]]
    scores, rows = search.search(vectors, 7)
    exact, truly = ExactSearch(blocks).search(vectors, 7)
    assert rows[:, 0].tolist() == truly[:, 0].tolist()
    np.testing.assert_allclose(scores[:, 0], exact[:, 0], rtol=1e-5)
    everyone = torch.cat(blocks).numpy()
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", vectors, everyone[rows]), rtol=1e-4, atol=1e-5)
    scores, rows = search.search(vectors, 2000, only=DetectionFilter(exclude_images=frozenset({"2.jpg"})))
    assert rows.shape == (3, 900) and rows.max() < 900, "the other 2100 rows are in one image"
    assert search.search(vectors, 1)[1].tolist() == [[5], [950], [2999]], "the next search is among all again"
    stored(tmp_path / "h", parts[:1], dim=16)
    with pytest.raises(errors.IntegrityError, match="another gallery"):
        kind.open(FolderStore(tmp_path / "h").open(), asdict(measured), tmp_path / "index", device="cpu")
    whole, path = asdict(measured), tmp_path / "index"
    for facts, file in (({}, path), (whole, None), ({**whole, "nprobe": 0}, path), ({**whole, "more": 1}, path)):
        with pytest.raises(errors.IntegrityError, match=r"damaged.*pretrainps index"):
            kind.open(catalog, facts, file, device="cpu")
    (tmp_path / "index").write_bytes(b"no index")
    with pytest.raises(errors.IntegrityError, match="cannot be read by faiss"):
        kind.open(catalog, asdict(measured), tmp_path / "index", device="cpu")
