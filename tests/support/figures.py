"""A few drawn people, for what takes pictures of single people."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

PEOPLE = (
    ("ada", (196, 58, 49), (38, 50, 84), (92, 58, 38)),
    ("ben", (60, 130, 90), (70, 70, 74), (28, 24, 22)),
    ("cleo", (238, 200, 84), (120, 74, 130), (150, 110, 70)),
)
"""Name, then the colours of shirt, trousers and hair."""


def draw_people(folder: Path) -> list[Path]:
    """Draw each of a few people twice, in another pose, size and light; return the files."""
    folder.mkdir(parents=True)
    paths = []
    for name, shirt, trousers, hair in PEOPLE:
        for view in (1, 2):
            path = folder / f"{name}-{view}.png"
            _figure(shirt, trousers, hair, view).save(path)
            paths.append(path)
    return paths


def _figure(shirt: tuple[int, ...], trousers: tuple[int, ...], hair: tuple[int, ...], view: int) -> Image.Image:
    ground = (152, 158, 160) if view == 1 else (126, 120, 112)
    image = Image.new("RGB", (128, 256), ground)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 200, 128, 256), fill=tuple(int(0.8 * c) for c in ground))
    shift, stride = (0, 10) if view == 1 else (8, 18)
    centre = 60 + shift
    draw.ellipse((centre - 15, 18, centre + 15, 54), fill=(214, 170, 140))
    draw.pieslice((centre - 17, 12, centre + 17, 48), 180, 360, fill=hair)
    draw.rounded_rectangle((centre - 25, 54, centre + 25, 138), 10, fill=shirt)
    draw.line((centre - 22, 64, centre - 30 - stride // 2, 132), fill=shirt, width=13)
    draw.line((centre + 22, 64, centre + 30 + stride // 2, 130), fill=shirt, width=13)
    draw.line((centre - 11, 136, centre - 10 - stride, 232), fill=trousers, width=19)
    draw.line((centre + 11, 136, centre + 10 + stride, 232), fill=trousers, width=19)
    light = 1.0 if view == 1 else 0.85
    return image.point(lambda value: int(value * light))
