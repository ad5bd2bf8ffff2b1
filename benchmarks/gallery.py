"""Measure search and indexing of a gallery against lower bounds, and check that the memory stays constant.

    python benchmarks/gallery.py search                          # a million people, one query and a hundred
    python benchmarks/gallery.py index --model NAME              # compared with the bare detector on decoded images
    python benchmarks/gallery.py soak --model NAME               # 5,000 images, memory for each 500 of them

`search` uses a gallery of random vectors on disk, mapped by `Gallery.open`; the plain pass is `torch.sum` over the same
numbers in one tensor. All variants run in turn in one process; ratios are ratios of medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import pretrainps
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import Gallery
from pretrainps.gallery.indexing import fill
from pretrainps.gallery.sources.base import ReadImage, Survey
from pretrainps.gallery.sources.folder import FolderSource
from pretrainps.gallery.storage.files import GalleryFiles
from pretrainps.gallery.storage.folder import FolderStore
from pretrainps.gallery.storage.header import GalleryHeader, ImageRecord, ModelMark, SourceMark
from pretrainps.gallery.storage.manifest import Manifest
from pretrainps.gallery.storage.shard import DetectionShard
from pretrainps.images.pixels import to_tensor

TOP = 10
IN_A_FILE = 30_000
"""Number of people in a shard, similar to that of indexing."""
SIZES = ((640, 360), (640, 480), (480, 640))
"""Width and height of the drawn images, in the order of Pillow."""


def write_gallery(folder: Path, people: int, dim: int) -> None:
    """Write a gallery of random unit vectors, ten for each image."""
    store = GalleryFiles(folder)
    generator = torch.Generator().manual_seed(0)
    files = []
    with store.lock(wait=False):
        for first in range(0, people, IN_A_FILE):
            count = min(IN_A_FILE, people - first)
            images = -(-count // 10)
            part = DetectionShard(
                images=tuple(ImageRecord(f"{first + place}.jpg", 1, 1, "0" * 64) for place in range(images)),
                image_indices=torch.arange(count, dtype=torch.int32) // 10,
                boxes=torch.tensor([[0.0, 0, 10, 20]]).repeat(count, 1),
                scores=torch.ones(count),
                embeddings=torch.nn.functional.normalize(torch.randn(count, dim, generator=generator)),
            )
            files.append(store.write_shard(part))
        mark = ModelMark(name="no-model", fingerprint="0" * 64, kind="seqnet", dim=dim, precision="float32", weighted=False)
        source = SourceMark(kind="folder", root=str(folder))
        Manifest(header=GalleryHeader(model=mark, source=source, complete=True), files=tuple(files)).write(folder)


def search(args: argparse.Namespace) -> None:
    """Time searches and a plain pass over the same numbers."""
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        write_gallery(Path(temporary) / "g", args.people, args.dim)
        start = time.perf_counter()
        gallery = Gallery.open(Path(temporary) / "g")
        print(f"opened and verified {len(gallery):,} people in {time.perf_counter() - start:.2f} s")
        whole = torch.cat(FolderStore(gallery.location).open(verify=False).embeddings())
        rng = np.random.default_rng(0)
        queries = rng.standard_normal((100, args.dim)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        scores, rows = gallery.search_embeddings(queries[:3], TOP)
        wanted = whole.numpy() @ queries[:3].T
        print(f"same answers as a full sort by numpy: {np.array_equal(rows, np.argsort(-wanted, axis=0)[:TOP].T)}")
        del scores, wanted
        ways: dict[str, Callable[[], object]] = {
            "plain pass": whole.sum,
            "one query": lambda: gallery.search_embeddings(queries[:1], TOP),
            "100 queries": lambda: gallery.search_embeddings(queries, TOP),
        }
        seconds = timed(ways, args.rounds)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(gallery):,} x {args.dim} float32")
        size = whole.numel() * 4 / 1e9
        print(f"plain pass   {seconds['plain pass']:.4f} s  ({size / seconds['plain pass']:.1f} GB/s)")
        print(f"one query    {seconds['one query']:.4f} s  {seconds['one query'] / seconds['plain pass']:.2f} x the plain pass")
        print(f"100 queries  {seconds['100 queries']:.4f} s  {seconds['100 queries'] / seconds['one query']:.2f} x one query")


def index(args: argparse.Namespace) -> None:
    """Time indexing, and the bare detector on decoded images."""
    model = detector(args)
    batch = args.batch_size
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary) / "images"
        draw_images(folder, args.images)
        fast = model.optimize_for_inference()
        kinds: dict[torch.Size, list[torch.Tensor]] = {}
        for path in sorted(folder.rglob("*.jpg")):
            pixels = to_tensor(path)
            kinds.setdefault(pixels.shape, []).append(pixels)
        device = next(model.parameters()).device

        def bare() -> None:
            with torch.inference_mode():
                for images in kinds.values():
                    for first in range(0, len(images), batch):
                        fast([pixels.to(device) for pixels in images[first : first + batch]])

        def whole() -> None:
            Gallery.index(folder, model, store=Path(temporary) / "g", batch_size=batch, rebuild=True, progress=False)

        bare()
        seconds = timed({"bare detector": bare, "indexing": whole}, args.rounds)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.images} images, batches of {batch}")
        for name, each in seconds.items():
            print(f"{name:14} {args.images / each:8.2f} images a second")
        print(f"indexing reaches {seconds['bare detector'] / seconds['indexing']:.1%} of the bare detector's speed")


class CountedFolder(FolderSource):
    """A folder source that counts the images it reads."""

    count = 0

    def read(self, survey: Survey) -> Iterator[ReadImage]:
        """Read and count."""
        for reading in super().read(survey):
            self.count += 1
            yield reading


def soak(args: argparse.Namespace) -> None:
    """Index many images and print the peak memory for each five hundred."""
    model = detector(args)
    step = min(500, max(1, args.images // 10))
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary) / "images"
        draw_images(folder, args.images)
        source = CountedFolder(folder)
        peaks: dict[int, tuple[float, float]] = {}
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                own, mapped = memory()
                before = peaks.get(source.count // step, (0.0, 0.0))
                peaks[source.count // step] = (max(before[0], own), max(before[1], mapped))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            report = fill(
                source,
                model,
                FolderStore(Path(temporary) / "g"),
                batch_size=args.batch_size,
                precision="float32",
                rebuild=False,
                wait=False,
                progress=True,
                approximate_above=10**9,
            )
        finally:
            ended.set()
            watcher.join()
        print(f"{report}; {report.images_per_second:.2f} images a second")
        for place, (own, mapped) in sorted(peaks.items()):
            print(f"images {place * step:6,} to {(place + 1) * step:6,}: {own:7.1f} MB own at most, {mapped:7.1f} MB mapped")
        middle = [own for place, (own, _) in sorted(peaks.items()) if 0 < place < args.images // step]
        if len(middle) > 1:
            print(f"from the second {step} images to the last: {middle[-1] - middle[0]:+.1f} MB")


def memory() -> tuple[float, float]:
    """Return the process's own memory and that of mapped files, in MB (Linux)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1e3, int(fields["RssFile"].split()[0]) / 1e3


def draw_images(folder: Path, count: int) -> None:
    """Write drawn images as JPEG: soft backgrounds with upright figures."""
    for place in range(count):
        rng = np.random.default_rng(place)
        width, height = SIZES[place % len(SIZES)]
        coarse = rng.integers(90, 200, (9, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 6))):
            tall = int(rng.integers(height // 4, height // 2))
            left, top = int(rng.integers(0, width - tall // 2)), int(rng.integers(0, height - tall))
            shirt, trousers, skin = (tuple(int(value) for value in rng.integers(0, 256, 3)) for _ in range(3))
            pen.ellipse((left + tall * 0.12, top, left + tall * 0.28, top + tall * 0.2), fill=skin)
            pen.rectangle((left + tall * 0.05, top + tall * 0.2, left + tall * 0.35, top + tall * 0.55), fill=shirt)
            pen.rectangle((left + tall * 0.1, top + tall * 0.55, left + tall * 0.3, top + tall), fill=trousers)
        path = folder / f"{place // 1000:03d}" / f"{place:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def detector(args: argparse.Namespace) -> PersonSearchDetector:  # type: ignore[type-arg]
    """Load the detector of the option --model."""
    model = pretrainps.load(args.model, device=args.device)
    if not isinstance(model, PersonSearchDetector):
        raise SystemExit(f"{args.model} is no detector")
    return model


def timed(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each variant, run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    """Parse the command line and run one of the three benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "index", "soak"))
    parser.add_argument("--people", type=int, default=1_000_000, help="search: in the gallery")
    parser.add_argument("--dim", type=int, default=256, help="search: length of a vector")
    parser.add_argument("--images", type=int, help="index (120), soak (5000): number of drawn images")
    parser.add_argument("--model", default="seqnet-tiny-synthetic", help="index, soak: a detector's name")
    parser.add_argument("--batch-size", type=int, default=1, help="index, soak: images a forward pass")
    parser.add_argument("--device", default="cpu", help="index, soak")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="folder for temporary files (search: 1 GB)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.images is None:
        args.images = 5000 if args.what == "soak" else 120
    {"search": search, "index": index, "soak": soak}[args.what](args)


if __name__ == "__main__":
    main()
