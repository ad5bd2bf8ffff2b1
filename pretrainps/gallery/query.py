"""Who is searched for: a person in a picture, or a stored detection, as vectors; and context matching with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.cbgm import rerank
from pretrainps.evaluation.protocols import ContextMatching
from pretrainps.gallery.results import Box, Detection
from pretrainps.gallery.storage.stored import StoredDetections
from pretrainps.images.pixels import to_tensor
from pretrainps.inference.detections import F32, unit_rows
from pretrainps.inference.runner import ImageInput, ModelRunner, only


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A person to search for."""

    detection: Detection
    """Where the person is seen."""
    embeddings: F32
    """(1 + C, D). The first row is the person's. The others are those of all people in the same image, if context is wanted."""


def query_from_picture(
    model: PersonSearchDetector[Any], picture: Image.Image, box: Box, name: str, *, with_context: bool
) -> Query:
    """Embed a person in a picture.

    Args:
        model: The detector that the gallery was made with.
        picture: RGB and upright.
        box: x1, y1, x2, y2 in its pixels.
        name: The picture's name.
        with_context: Embed the other people in the picture, too.

    Raises:
        ArgumentError: The box is empty or outside the picture, or is not a box.
        NonFiniteError: The model answers with numbers that are not finite.
    """
    detection = Detection(image=name, box=checked_box(box, picture), score=1.0)
    runner = ModelRunner(model, optimize=False)
    image = ImageInput(key=name, pixels=to_tensor(picture), boxes=torch.tensor([detection.box], dtype=torch.float32))
    found = only(runner.query_as_gallery([image]) if with_context else runner.embed([image]))
    return Query(detection, found.embeddings)


def query_from_gallery(stored: StoredDetections, detection: Detection, row: int, *, with_context: bool) -> Query:
    """Take a person's stored embedding. Neither the model nor the image is needed.

    Args:
        stored: The gallery's detections.
        detection: One of them.
        row: Its row.
        with_context: Take the other people in the image, too.
    """
    vectors = unit_rows(stored.table([detection.image]).embeddings)  # a query's vector is never weighted by its score
    place = row - stored.rows_of(detection.image).start
    others = np.delete(vectors, place, axis=0) if with_context else vectors[:0]
    return Query(detection, np.concatenate([vectors[place : place + 1], others]))


def checked_box(box: Box, picture: Image.Image) -> Box:
    """Return a box as plain numbers that lies in the picture, at least in part.

    Raises:
        ArgumentError: It does not, or is not a box.
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


def match_context(
    stored: StoredDetections, rows: Sequence[int], context_embeddings: F32, settings: ContextMatching
) -> list[tuple[float, int]]:
    """Compare the people in the images of the best answers with the people in the query's image (CBGM).

    Matching only raises similarities, and only in the images of the best answers. So no detection that is left out here could
    come before those that are returned.

    Args:
        stored: The gallery's detections.
        rows: The best answers.
        context_embeddings: (1 + C, D) embeddings of the people in the query's image, the person searched for first.
        settings: How many images and people take part.

    Returns:
        Similarities and rows of all detections in those images, the best first.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    if not rows:
        return []
    images = list(dict.fromkeys(stored.image_of(row) for row in rows))
    table = stored.table(images)
    similarities: F32 = (table.embeddings @ context_embeddings[0]).astype(np.float32)
    reranked = rerank(similarities, np.arange(len(table)), table, context_embeddings, settings)
    all_rows = [row for image in images for row in stored.rows_of(image)]
    return sorted(zip(reranked.tolist(), all_rows, strict=True), key=lambda each: (-each[0], each[1]))
