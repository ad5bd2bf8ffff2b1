"""A folder of small drawn scenes, and a search with known answers, for tests of sheets and reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from pretrainps.errors import ImageError
from pretrainps.gallery.results import Box, Detection, Hit, SearchResult

BOX: Box = (20.0, 30.0, 50.0, 110.0)
"""Where the person stands in each scene."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A gallery as pictures and reports see one."""

    images: dict[str, Image.Image]
    model_name: str = "seqnet-of-a-test"

    def picture(self, name: str) -> Image.Image:
        """Return an image by name."""
        if name not in self.images:
            raise ImageError(f"{name} is gone.")
        return self.images[name]


def scene(colour: tuple[int, int, int], size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return a grey scene with a person of a colour in it."""
    image = Image.new("RGB", size, (128, 128, 128))
    ImageDraw.Draw(image).rectangle(BOX, fill=colour)
    return image


def answered(names: list[str], *, query: str = "") -> tuple[Folder, SearchResult]:
    """Return scenes of these names, and a search for the first one's person that finds them first."""
    folder = Folder({name: scene((40 * place % 256, 200, 60)) for place, name in enumerate(names)})
    hits = tuple(Hit(Detection(name, BOX, 0.9), 1 - 0.1 * place, place + 1) for place, name in enumerate(names))
    asked = Detection(query or names[0], (20.0, 30.0, 52.0, 112.0), 1.0)
    return folder, SearchResult(asked, hits, searched=40, images=len(names), method="exact", seconds=0.001)


def written(folder: Path, names: list[str]) -> Path:
    """Write such scenes as files."""
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        scene((40 * place % 256, 200, 60)).save(folder / name)
    return folder
