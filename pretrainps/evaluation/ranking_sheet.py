"""Draw queries of a search and their best answers, right ones green and wrong ones red."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pretrainps.data.records import Boxes, Sample, SearchSet, pixels_of
from pretrainps.errors import ArgumentError, ImageError
from pretrainps.evaluation.search import SearchResult
from pretrainps.inference.detections import Detections

_CELL = (160, 84)
"""Height and width that a person is fitted into."""
_GAP, _LINE, _FRAME = 8, 14, 3
_RIGHT, _WRONG, _ASKED = (60, 200, 90), (225, 60, 60), (90, 150, 240)
_MARGIN = 0.15
"""Of a person's box, shown around it."""


def worst_queries(result: SearchResult, count: int) -> list[int]:
    """Return the queries with the lowest average precision, the worst first: places in `result.evaluated`."""
    return [int(place) for place in np.argsort(result.per_query_ap, kind="stable")[:count]]


def ranking_sheet(
    search_set: SearchSet, detections: Detections, result: SearchResult, *, queries: int = 12, answers: int = 8
) -> Image.Image:
    """Draw the worst queries of a search, one a row: the person, then the best answers with their similarities.

    Args:
        search_set: What was searched.
        detections: What was found in its gallery.
        result: Of `evaluate_search`, with `ranking=answers` or more.
        queries: Rows.
        answers: Answers a row.

    Raises:
        ArgumentError: the result holds no ranking.
    """
    ranking = result.ranking
    if ranking is None:
        raise ArgumentError("the result holds no ranking: evaluate with ranking=8 or more.")
    rows = worst_queries(result, queries)
    columns = min(answers, ranking.detections.shape[1]) + 1
    height, width = _CELL[0] + _LINE + _GAP, _CELL[1] + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, max(1, len(rows)) * height + _GAP), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    for row, place in enumerate(rows):
        query = search_set.queries[int(result.evaluated[place])]
        top = row * height + _GAP
        sheet.paste(_person(query.sample, query.box, _ASKED), (_GAP, top + _LINE))
        draw.text((_GAP, top), f"AP {result.per_query_ap[place]:.2f}", fill=(20, 20, 20), font=_font())
        for column in range(1, columns):
            detection = int(ranking.detections[place, column - 1])
            if detection < 0:
                break
            left = column * width + _GAP
            sample = search_set.gallery.samples[int(detections.images[detection])]
            colour = _RIGHT if ranking.correct[place, column - 1] else _WRONG
            sheet.paste(_person(sample, detections.boxes[detection], colour), (left, top + _LINE))
            draw.text((left, top), f"{ranking.similarities[place, column - 1]:.3f}", fill=(20, 20, 20), font=_font())
    return sheet


def _person(sample: Sample, box: Boxes, colour: tuple[int, int, int]) -> Image.Image:
    cell = Image.new("RGB", (_CELL[1], _CELL[0]), colour)
    inner = (_CELL[1] - 2 * _FRAME, _CELL[0] - 2 * _FRAME)
    try:
        picture = sample.pixels()
    except ImageError:
        ImageDraw.Draw(cell).text((_FRAME, _CELL[0] // 2), "cannot be read", fill=(255, 255, 255), font=_font())
        return cell
    around = np.tile((box[2:] - box[:2]) * _MARGIN, 2) * np.array((-1, -1, 1, 1), dtype=np.float32)
    shown = picture.crop(pixels_of(box + around, height=picture.height, width=picture.width))
    scale = min(inner[0] / shown.width, inner[1] / shown.height)
    shown = shown.resize((max(1, round(shown.width * scale)), max(1, round(shown.height * scale))))
    paper = Image.new("RGB", inner, (232, 232, 230))
    paper.paste(shown, ((inner[0] - shown.width) // 2, (inner[1] - shown.height) // 2))
    cell.paste(paper, (_FRAME, _FRAME))
    return cell


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=11)
