"""Re-identify people by colour histograms alone: the baseline for any learned embedding.

    python benchmarks/histogram_baseline.py [--domain search_campus] [--people 150]
    python benchmarks/histogram_baseline.py --data world    # a folder in PRW's layout, by the annotated boxes

It draws crops of people of the synthetic world and describes each by histograms of hue, saturation and value in six rows of its
centre. It ranks the gallery by the protocol of Market-1501, and prints mAP and R1. With --data it searches the scenes of a test
with the annotated boxes, as with a perfect detector, by the search protocol of that data set.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from pretrainps.data import Sample, Split
from pretrainps.data.layouts import layout_named
from pretrainps.data.records import SearchSet, pixels_of
from pretrainps.evaluation import SearchResult, evaluate_search, protocol
from pretrainps.evaluation.reid import evaluate_reid
from pretrainps.inference.detections import Detections
from pretrainps.synthetic import reid_split

ROWS, BINS = 6, (16, 4, 4)
SIZE = (128, 64)


def describe(sample: Sample) -> np.ndarray:
    """Return one histogram for each of six rows of the centre: (6 * 256,). The edges of a crop show the background."""
    hsv = np.asarray(sample.pixels().resize(SIZE[::-1]).convert("HSV"))
    centre = hsv[:, SIZE[1] // 4 : -SIZE[1] // 4]
    bins = [centre[..., channel].astype(int) * count // 256 for channel, count in enumerate(BINS)]
    words = np.ravel_multi_index(bins, BINS)  # (H, W / 2)
    rows = [np.bincount(row.ravel(), minlength=np.prod(BINS)) for row in np.array_split(words, ROWS)]
    return np.sqrt(np.concatenate(rows))  # so that their cosine is the Bhattacharyya coefficient


def describe_all(split: Split) -> tuple[np.ndarray, np.ndarray, list[int] | None]:
    """Return embeddings, identities, and cameras if they are known."""
    embeddings = np.stack([describe(sample) for sample in split.samples])
    ids = np.concatenate([sample.ids for sample in split.samples])
    cameras = [sample.camera for sample in split.samples if sample.camera is not None]
    return embeddings, ids, cameras or None


def describe_people(sample: Sample, boxes: np.ndarray) -> np.ndarray:
    """Return the descriptions, of length 1, of people in a scene: (N, 6 * 256)."""
    scene = sample.pixels()
    crops = [scene.crop(pixels_of(box, height=scene.height, width=scene.width)) for box in boxes]
    found = [describe(replace(sample, image=np.asarray(crop))) for crop in crops]
    return np.stack([each / np.linalg.norm(each) for each in found]).astype(np.float32)


def search_by_colours(found: SearchSet) -> SearchResult:
    """Search the people of a data set among the annotated boxes of its gallery."""
    table = Detections.of_ground_truth(found.gallery, [describe_people(each, each.boxes) for each in found.gallery.samples])
    asked = np.concatenate([describe_people(query.sample, query.box[None]) for query in found.queries])
    return evaluate_search(found, table, protocol("prw"), query_embeddings=asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", default="search_campus")
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--data", type=Path, help="search this data set instead")
    args = parser.parse_args()
    if args.data is not None:
        found = layout_named("prw").read_search(args.data)
        result = search_by_colours(found)
        print(f"{args.data}, {len(found.gallery)} scenes: mAP {result.mAP:.3f}, top-1 {result.top1:.3f}")
        return

    people = range(5000, 5000 + args.people)  # not used in any training
    queries = reid_split(args.domain, people, shots=1, name="query")
    gallery = reid_split(args.domain, people, shots=2, name="gallery")
    result = evaluate_reid(*describe_all(queries), *describe_all(gallery))
    print(result.protocol)
    print(f"{args.domain}, {args.people} people: mAP {result.mAP:.3f}, R1 {result.cmc1:.3f}")


if __name__ == "__main__":
    main()
