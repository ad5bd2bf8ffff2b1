"""The question: a person in a picture as vectors, his own and those of everyone beside him; and what those beside him tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.cbgm import rerank
from pretrainps.evaluation.protocols import ContextMatching
from pretrainps.gallery.results import Box
from pretrainps.gallery.storage.store import DetectionShard
from pretrainps.images.pixels import to_tensor
from pretrainps.inference.detections import F32, Detections


def checked_box(box: Box, picture: Image.Image) -> Box:
    """Return a box as plain numbers that lies in the picture, at least in part.

    Raises:
        ArgumentError: it does not, or is none.
    """
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"box {box!r}: expected four numbers, x1, y1, x2, y2.") from error
    if not (x1 < min(x2, picture.width) and y1 < min(y2, picture.height) and x2 > 0 and y2 > 0):
        raise ArgumentError(
            f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} is empty or lies outside the image of {picture.width} by {picture.height} "
            "pixels. Expected x1, y1, x2, y2 of the upright image, with x1 < x2 and y1 < y2."
        )
    return x1, y1, x2, y2


def embed_person(model: PersonSearchDetector[Any], picture: Image.Image, box: Box, *, everyone: bool) -> F32:
    """Return a person's embedding, and below it those of everyone beside him if they are wanted. (1 + C, D)."""
    pixels = to_tensor(picture).to(next(model.parameters()).device)
    given = torch.tensor([box], dtype=torch.float32)
    with torch.inference_mode():
        if everyone:
            vectors = model.query_as_gallery([pixels], [given])[0]["embeddings"]
        else:
            vectors = model.embed([pixels], [given])[0]
    found: F32 = vectors.float().cpu().numpy()
    return found


def matched(images: Sequence[tuple[DetectionShard, range]], beside: F32, context: ContextMatching) -> F32:
    """Match the people of some images with those beside the person searched for (CBGM).

    Matching only raises similarities, and only those of people in the images of the best answers: nobody who is not given can
    come before them.

    Args:
        images: For each image the part of the gallery that it lies in, and its people's rows there.
        beside: (1 + C, D) embeddings of the query's image, the person searched for first.
        context: How many images and companions take part.

    Returns:
        Similarities of all people given, in order.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    if not images:
        return np.zeros(0, dtype=np.float32)

    def rows(name: str) -> F32:
        return np.concatenate([getattr(part, name)[run.start : run.stop].numpy() for part, run in images])

    counts = np.array([len(run) for _, run in images], dtype=np.int64)
    table = Detections(boxes=rows("boxes"), scores=rows("scores"), embeddings=rows("embeddings"), counts=counts)
    similarities: F32 = (table.embeddings @ beside[0]).astype(np.float32)
    return rerank(similarities, np.arange(len(table)), table, beside, context)
