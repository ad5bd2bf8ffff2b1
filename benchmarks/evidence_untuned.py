"""Measure the embeddings of `evidence.py`'s backbones before any fine-tuning, on crops and in scenes.

    python benchmarks/evidence_untuned.py                        # every backbone in runs/evidence-cpu
    python benchmarks/evidence_untuned.py --starts reid joint --seeds 0

For crops: people of two re-ID data sets of pre-training who were not in it. For scenes: people of the target who are in neither
training nor test, in separate scenes, with true boxes. So a choice by these numbers does not use the test. Each person is a
query among all other images by other cameras or in other scenes. The output is mean average precision (scikit-learn's) and
top-1 in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_recipes import SCALES, finetuning
from evidence_table import STARTS
from evidence_world import TARGET, searched
from sklearn.metrics import average_precision_score
from torch import Tensor

from pretrainps.data.records import Sample
from pretrainps.synthetic import reid_split
from pretrainps.training.finetuning.from_pretraining import start_detector
from pretrainps.training.recipes import counted

CROPS = ("reid_market", "reid_city")
PEOPLE = 60
"""World numbers of the people of each data set, after those of pre-training."""
BATCH = 8


def pixels(sample: Sample) -> Tensor:
    """Return a sample's image. (3, H, W) in 0..1."""
    return torch.tensor(np.asarray(sample.pixels())).permute(2, 0, 1).float() / 255


def in_scenes(model: Any, scenes: Sequence[Sample]) -> tuple[float, float]:
    """Return mAP and top-1 among the people of scenes."""
    named = [sample for sample in scenes if (sample.ids >= 0).any()]
    vectors: list[Tensor] = []
    for start in range(0, len(named), BATCH):
        part = named[start : start + BATCH]
        boxes = [torch.from_numpy(sample.boxes[sample.ids >= 0]).float() for sample in part]
        vectors += model.embed([pixels(sample) for sample in part], boxes)
    ids = [int(each) for sample in named for each in sample.ids if each >= 0]
    places = [number for number, sample in enumerate(named) for each in sample.ids if each >= 0]
    return ranked(torch.cat(vectors), ids, places)


def on_crops(model: Any, samples: Sequence[Sample]) -> tuple[float, float]:
    """Return mAP and top-1 among crops, each used whole as in pre-training on re-ID alone."""
    crops = torch.stack([pixels(sample) for sample in samples])
    maps = model.box_stage.whole(model.backbone.trunk(model.transform.normalize(crops)), tuple(crops.shape[2:]))
    vectors, _ = model.embedding_head(maps.pooled(model.config.pooling))
    return ranked(vectors, [int(each.ids[0]) for each in samples], [each.camera for each in samples])


def ranked(vectors: Tensor, ids: Sequence[int], places: Sequence[Any]) -> tuple[float, float]:
    """Return mAP and top-1 of each row among the rows of other places."""
    similarity = (vectors @ vectors.T).numpy()
    people, where = np.array(ids), np.array(places)
    precisions, firsts = [], []
    for query, scores in enumerate(similarity):
        others = where != where[query]
        same = people[others] == people[query]
        if same.any():
            precisions.append(average_precision_score(same, scores[others]))
            firsts.append(same[scores[others].argmax()])
    return 100 * float(np.mean(precisions)), 100 * float(np.mean(firsts))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--work", type=Path, help="where evidence.py keeps its backbones")
    args = parser.parse_args()
    scale, work = SCALES[args.scale], args.work or Path(f"runs/evidence-{args.scale}")
    names = (*(f"crops of {name}" for name in CROPS), f"scenes of {TARGET}")
    print(f"| seed | start | {' | '.join(names)} |", "|---|---|" + "---|" * len(names), sep="\n")
    for seed in args.seeds:
        scenes = searched(scale, seed, validation=True).gallery.samples
        people = range(scale.people, scale.people + PEOPLE)
        crops = [reid_split(name, people, shots=scale.shots, seed=seed, size=scale.crop).samples for name in CROPS]
        for start in args.starts:
            folder = work / f"{start}-{seed}"
            if start == "detection" or not folder.exists():  # "detection" has no trained embedding
                continue
            config = counted(finetuning("nae", scale, seed), 1).detector
            model: Any = start_detector("nae", folder, num_identities=1, with_heads=True, config=config).eval()
            found = [*(on_crops(model, each) for each in crops), in_scenes(model, scenes)]
            print(f"| {seed} | {start} | {' | '.join(f'{ap:.1f} / {top:.1f}' for ap, top in found)} |", flush=True)


if __name__ == "__main__":
    main()
