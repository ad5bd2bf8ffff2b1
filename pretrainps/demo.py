"""`pretrainps demo`: the whole way from a weight file to embeddings, offline.

The published weights cannot be shipped, so the demo writes a file of exactly their structure with random values, and takes
it down the same path as the real one: safe reading, load report, conversion, cache, backbone, embeddings.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.checkpoint import LoadReport
from pretrainps.checkpoint.layouts import layout_of
from pretrainps.embedding import Embeddings, embed
from pretrainps.errors import ArgumentError
from pretrainps.heads import CropModel
from pretrainps.images import find_images
from pretrainps.loading import load
from pretrainps.preprocessing import Preprocess
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import HubSource
from pretrainps.store import Cache
from pretrainps.store.cache import Record
from pretrainps.store.files import sha256_of

PEOPLE = (
    ("ada", (196, 58, 49), (38, 50, 84), (92, 58, 38)),
    ("ben", (60, 130, 90), (70, 70, 74), (28, 24, 22)),
    ("cleo", (238, 200, 84), (120, 74, 130), (150, 110, 70)),
)
"""Name, then the colours of shirt, trousers and hair."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo did."""

    report: LoadReport
    embeddings: Embeddings
    seconds: float


def run_demo(
    name: str = "resnet50-hybrid",
    *,
    images: Path | None = None,
    say: Callable[[str], None],
    progress: bool = True,
) -> DemoResult:
    """Run the demo in a temporary folder; nothing is left behind and the real cache is not touched.

    Args:
        name: A registered backbone with a published key layout.
        images: A folder of pictures to embed; by default a few drawn figures.
        say: Gets each line of the account.
        progress: Show progress bars.

    Raises:
        UnknownModelError: no such model.
        ArgumentError: the model does not lie on the Hub, or there are no images in the folder.
    """
    start = time.perf_counter()
    spec = find_spec(name)
    if not isinstance(spec.sources[0], HubSource):
        raise ArgumentError(f"the demo imitates a file on the Hub, and {name} does not lie there. Try resnet50-hybrid.")
    with tempfile.TemporaryDirectory(prefix="pretrainps-demo-") as temporary:
        folder = Path(temporary)
        drawn = draw_people(folder / "images")
        pictures = find_images([images]) if images is not None else drawn
        cache = Cache(folder / "cache")
        path = _write_stand_in(spec, cache, drawn)
        say(
            f"1. Wrote {path.name}: the structure of the file at {spec.sources[0]}, with RANDOM values "
            f"({path.stat().st_size / 1e6:.1f} MB). It knows nothing about people."
        )
        stand_in = replace(spec, sha256=sha256_of(path))
        load(stand_in, cache_dir=cache.root, offline=True, progress=progress)
        say("2. Read it without running anything in it, converted it to safetensors, kept that in a cache.")
        begin = time.perf_counter()
        model = load(stand_in, head="embedding", cache_dir=cache.root, offline=True, progress=progress)
        milliseconds = 1000 * (time.perf_counter() - begin)
        say(
            f"3. Loaded it again, from the cache, in {milliseconds:.0f} ms:\n   "
            + str(model.load_report).replace("\n", "\n   ")
        )
        if not isinstance(model, CropModel):
            raise TypeError(f"expected a CropModel, got {type(model).__name__}")
        embeddings = embed(model, pictures, progress=progress)
        say(f"4. Embedded {len(embeddings.paths)} pictures as {embeddings.vectors.shape[1]} numbers each. Cosine similarity:\n")
        say(embeddings.table())
        for _, reason in embeddings.failures:
            say(f"   not read: {reason}")
    seconds = time.perf_counter() - start
    say(
        f"\nDone in {seconds:.1f} s. With a network, the real weights are one line away:\n"
        f"  pretrainps embed PHOTOS --model {name}\n"
        f'  python -c "import pretrainps; print(pretrainps.load({name!r}).load_report)"'
    )
    return DemoResult(model.load_report, embeddings, seconds)


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


def _write_stand_in(spec: ModelSpec, cache: Cache, drawn: list[Path]) -> Path:
    """Put a file of the authors' structure where the cache keeps the real one."""
    torch.manual_seed(0)
    backbone = build_backbone(spec.arch, spec.arch_options)
    _measure_statistics(backbone, Preprocess(spec.input), drawn)
    path = cache.original(spec.name) / spec.sources[0].filename
    layout = layout_of(backbone.family, spec.file.layout)
    tensors = layout.from_native({key: value.detach() for key, value in backbone.state_dict().items()})
    path.parent.mkdir(parents=True)
    wrapped: dict[str, Any] = dict(tensors)
    for key in reversed(spec.file.wrapper):
        wrapped = {key: wrapped}
    torch.save(wrapped, path)
    stat = path.stat()
    record = Record(
        file=path.name,
        sha256=sha256_of(path),
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        source="written by the demo",
    )
    cache.write_record(spec.name, record)
    return path


@torch.no_grad()
def _measure_statistics(backbone: Backbone, transform: Preprocess, pictures: list[Path]) -> None:
    """Give the random network batch-norm statistics, without which its features would all but coincide."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # cumulative average
    backbone.train()
    backbone(torch.stack([transform(path) for path in pictures]))
    backbone.eval()
