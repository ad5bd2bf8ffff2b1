"""The table of detections: what goes in comes out, and what is broken is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pretrainps.errors import ArgumentError
from pretrainps.evaluation import Detections
from tests.evaluation.worlds import golden


def image(count: int, *, dim: int = 3, **fields: Any) -> dict[str, Any]:
    return {
        "boxes": torch.arange(4.0 * count).reshape(count, 4),
        "scores": torch.linspace(1, 0.1, count),
        "embeddings": torch.ones(count, dim),
    } | fields


def test_what_a_detector_returns() -> None:
    table = Detections.from_images([image(2), image(0), image(1)])
    assert (len(table), table.num_images, table.dim) == (3, 3, 3)
    assert table.starts.tolist() == [0, 2, 2] and table.images.tolist() == [0, 0, 2]
    assert table.boxes[2].tolist() == [0, 1, 2, 3]
    kept = table.rows(table.scores > 0.5)
    assert kept.counts.tolist() == [1, 0, 1] and len(kept.embeddings) == 2
    again = table.of_images(np.array([2, 0, 0]))
    assert again.counts.tolist() == [1, 2, 2] and again.boxes[1].tolist() == again.boxes[3].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_precision(dtype: torch.dtype) -> None:
    half = image(2, embeddings=torch.full((2, 3), 0.5, dtype=dtype, requires_grad=True))
    table = Detections.from_images([half])
    assert table.embeddings.dtype == np.float32 and table.embeddings.tolist() == [[0.5] * 3] * 2


def test_unit_length() -> None:
    table = Detections.from_images([image(2, embeddings=[[3.0, 4.0], [0.0, 0.0]])]).normalized()
    np.testing.assert_allclose(table.embeddings, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_a_detector_without_embeddings() -> None:
    plain = [{key: value for key, value in image(n).items() if key != "embeddings"} for n in (2, 0)]
    assert Detections.from_images(plain).dim == 0
    empty = Detections.from_images([])
    assert (len(empty), empty.num_images) == (0, 0)


@pytest.mark.parametrize(
    ("second", "match"),
    [
        (image(1, embeddings=[[1.0, float("nan"), 0]]), "image 1: the embeddings of detection 0 are not finite"),
        (image(2, boxes=[[0, 0, 1, 1], [0, 0, float("inf"), 1]]), "image 1: the boxes of detection 1"),
        (image(2, scores=[1.0, float("nan")]), "image 1: the scores of detection 1"),
        (image(2, scores=[1.0]), r"image 1: 2 boxes, scores of shape \(1,\)"),
        (image(2, embeddings=[[1.0, 0, 0]]), r"embeddings of shape \(1, 3\)"),
        (image(2, dim=4), "3 in image 0, 4 in image 1"),
        ({"boxes": []}, "image 1: no scores"),
    ],
)
def test_errors_name_the_image(second: dict[str, Any], match: str) -> None:
    with pytest.raises(ArgumentError, match=match):
        Detections.from_images([image(3), second])


def test_ground_truth_needs_each_box() -> None:
    gallery = golden().search_set.gallery
    vectors = [np.ones((len(sample.boxes), 2)) for sample in gallery.samples]
    table = Detections.of_ground_truth(gallery, vectors)
    assert table.annotated and table.scores.min() == 1 and len(table) == 138
    with pytest.raises(ArgumentError, match="39 images for a gallery of 40"):
        Detections.of_ground_truth(gallery, vectors[1:])
    with pytest.raises(ArgumentError, match="image 2"):
        Detections.of_ground_truth(gallery, [*vectors[:2], vectors[2][1:], *vectors[3:]])


def test_counts_that_do_not_add_up() -> None:
    with pytest.raises(ArgumentError, match=r"boxes of shape \(2, 4\): the counts of 1 images ask for \(3, 4\)"):
        Detections(
            boxes=np.zeros((2, 4), np.float32),
            scores=np.zeros(3, np.float32),
            embeddings=np.zeros((3, 1), np.float32),
            counts=np.array([3]),
        )
