"""Is hybrid pre-training a better start? Detectors fine-tuned from different starts on the synthetic world, with equal budgets.

    python benchmarks/evidence.py run --seeds 0 1 2        # goes on where it was stopped; hours on two cores
    python benchmarks/evidence.py summary --picture results/evidence.png     # what results/evidence.csv says

Each seed is another world: other scenes and people, other random weights, another order. In it, every start has the same
network (`resnet_tiny`) and is fine-tuned alike, on the same 10, 30 or 100 % of the target's training scenes. The target,
search_campus, shares no camera and no person with the data sets of pre-training; people of its test are not in its training.

    random           no pre-training
    detection        boxes only: the three detection sets, no alignment
    reid             identities only: the three re-ID sets, no alignment
    joint            both, no alignment
    joint+adversarial, joint+mmd, joint+domain_norm      both, with each kind of intra-task alignment

Pre-trainings cost the same: a step on one sub-task costs about half of a joint one, so those on one sub-task take twice as
many. Two processes may work on different seeds at once; each row is written when its run ends.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from evidence_table import COLUMNS, DETECTORS, STARTS, alone, append, picture, read, summary

from pretrainps.backbones import build_backbone
from pretrainps.building import build_detector
from pretrainps.data.records import Query, SearchSet, Split
from pretrainps.data.synthetic import detection_split, find_domain, plan_search, reid_split, search_scenes, search_set
from pretrainps.training import train
from pretrainps.training.alignment import AlignmentSettings
from pretrainps.training.batch_settings import CropSettings, SceneSettings
from pretrainps.training.finetuning import FinetuneRecipe, Finetuning
from pretrainps.training.identity_losses import IdentitySettings
from pretrainps.training.pretraining import Pretraining, PretrainRecipe
from pretrainps.training.recipes import counted, hybrid_synthetic, nae_synthetic, seqnet_synthetic
from pretrainps.training.starting import save_backbone, start_detector

ARCH = "resnet_tiny"
SIZE = (224, 336)
"""Of a scene, in pixels: seven tenths of the synthetic world's usual one."""
SMALL: dict[str, Any] = {
    "min_size": SIZE[0],
    "max_size": SIZE[1],
    "region_samples": 16,
    "rpn_candidates_train": 500,
    "pooling": "average",
}
FAST: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "checkpoint_minutes": 600.0}
DETECTION = ("det_street", "det_crowd", "det_yard")
REID = ("reid_market", "reid_hall", "reid_city")
TARGET = "search_campus"
SHARES = (10, 30, 100)
"""Of the target's training scenes, in percent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much of everything."""

    scenes: int = 400
    """In each detection set."""
    people: int = 400
    """In each re-ID set, with 6 crops each."""
    target_people: int = 150
    """With a name in the target's training scenes, about 6 appearances each;"""
    test_people: int = 60
    """and in its test, where every appearance is searched for."""
    pretraining_steps: int = 1800
    """Of a joint pre-training."""
    seqnet_steps: int = 200
    """Of fine-tuning."""
    nae_steps: int = 400
    """NAE's classifier is the length of a vector, which starts from nothing whatever was pre-trained."""


SMOKE = Budget(scenes=4, people=6, target_people=20, test_people=4, pretraining_steps=2, seqnet_steps=2, nae_steps=2)


@dataclass(frozen=True, slots=True)
class World:
    """The data of one seed."""

    detection: dict[str, Split]
    reid: dict[str, Split]
    target: Split
    test: SearchSet

    @classmethod
    def draw(cls, budget: Budget, seed: int) -> World:
        """Draw everything into memory."""
        detection = {name: detection_split(_small(name), budget.scenes, seed=seed) for name in DETECTION}
        reid = {name: reid_split(name, range(budget.people), shots=2, seed=seed, size=(96, 48)) for name in REID}
        plans = {
            split: plan_search(_small(TARGET), range(count), split=split, seed=seed)  # type: ignore[arg-type]
            for split, count in (("train", budget.target_people), ("test", budget.test_people))
        }
        scenes = {split: tuple(search_scenes(plan)) for split, plan in plans.items()}
        people = plans["train"].identities
        target = Split(dataset=TARGET, name="train", task="search", samples=scenes["train"], identities=people)
        return cls(detection, reid, target, _everybody_asked_for(search_set(plans["test"], scenes["test"])))

    @classmethod
    def kept(cls, budget: Budget, seed: int, folder: Path) -> World:
        """Draw everything, or read what was drawn before."""
        path = folder / f"world-{seed}.pickle"  # of this benchmark's own making
        with alone(path.with_suffix(".lock")):
            if not path.exists():
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_bytes(pickle.dumps(cls.draw(budget, seed)))
                unfinished.rename(path)
        world: World = pickle.loads(path.read_bytes())
        return world

    def part(self, share: int, seed: int) -> Split:
        """Return some percent of the target's training scenes, drawn at random; people who are in none have no number."""
        order = torch.randperm(len(self.target), generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = sorted(order[: max(2, len(order) * share // 100)])
        samples = [self.target.samples[index] for index in chosen]
        left = sorted({int(each) for sample in samples for each in sample.ids if each >= 0})
        number = {old: new for new, old in enumerate(left)} | {-1: -1}
        renumbered = [replace(each, ids=each.ids.copy()) for each in samples]
        for sample in renumbered:
            sample.ids[:] = [number[int(each)] for each in sample.ids]
        names = tuple(self.target.identities[each] for each in left)
        return replace(self.target, samples=tuple(renumbered), identities=names)


def _everybody_asked_for(test: SearchSet) -> SearchSet:
    """Make every appearance of a person with a name a query: more of them measure more finely what one a person would."""
    queries = [
        Query(sample=sample, box=box, id=int(identity))
        for sample in test.gallery.samples
        for box, identity in zip(sample.boxes, sample.ids, strict=True)
        if identity >= 0
    ]
    return replace(test, queries=queries)


def _small(domain: str) -> Any:
    return replace(find_domain(domain), size=SIZE)


def pretraining(start: str, budget: Budget, seed: int) -> PretrainRecipe:
    """Return the recipe of a start."""
    recipe = hybrid_synthetic()
    joint = start.startswith("joint")
    steps = budget.pretraining_steps * (1 if joint else 2)
    kind: Any = start.partition("+")[2] or "none"
    return replace(
        recipe,
        hybrid=replace(
            recipe.hybrid,
            detector=replace(recipe.hybrid.detector, oim_scalar=16.0, weight_box_reg=2.0, **SMALL),
            identity=IdentitySettings(loss="cross_entropy", triplet="soft"),
            alignment=AlignmentSettings(kind=kind, ramp_steps=steps),
        ),
        optim=replace(recipe.optim, lr=2e-3),
        scenes=SceneSettings(batch_size=3),
        crops=CropSettings(people=15, shots=4, height=96, width=48, shift=4, erase=0.0),
        loop=replace(recipe.loop, epochs=1, max_steps=steps, seed=seed, evaluate_every=None, **FAST),
        steps_per_epoch=steps,
        workers=0,
    )


def finetuning(detector: str, budget: Budget, seed: int) -> FinetuneRecipe:
    """Return the recipe of a detector."""
    if detector == "nae":
        recipe, steps = nae_synthetic(), budget.nae_steps
    else:
        recipe, steps = seqnet_synthetic(), budget.seqnet_steps
        recipe = replace(recipe, optim=replace(recipe.optim, lr=5e-4))  # the rate that the table's rows were made with
    at_the_end: dict[str, Any] = {"epochs": 10_000, "evaluate_every": 10_000}
    return replace(
        recipe,
        detector=replace(recipe.detector, **SMALL),
        loop=replace(recipe.loop, seed=seed, max_steps=steps, **at_the_end, **FAST),
        workers=0,
    )


def pretrained(start: str, world: World, budget: Budget, seed: int, folder: Path) -> tuple[Path | None, int, float]:
    """Return the folder of a start's backbone and heads, made if need be, its steps, and the seconds it took."""
    if start == "random":
        return None, 0, 0.0
    recipe = pretraining(start, budget, seed)
    done, steps = folder / f"{start}-{seed}", recipe.steps_per_epoch or 0
    if not done.exists():
        torch.manual_seed(seed)
        reid, detection = ({} if start == "detection" else world.reid), ({} if start == "reid" else world.detection)
        task = Pretraining(recipe, build_backbone(ARCH), detection, reid)
        run = folder / f"running-{start}-{seed}"
        shutil.rmtree(run, ignore_errors=True)
        began = time.process_time()
        train(task, recipe.optim, recipe.loop, run, progress=False)
        seconds = time.process_time() - began
        save_backbone(task.hybrid, run / "backbone")
        (run / "backbone" / "seconds").write_text(f"{seconds:.1f}")
        (run / "backbone").rename(done)
        shutil.rmtree(run)
    return done, steps, float((done / "seconds").read_text())


def finetuned(
    detector: str, start: Path | None, train_split: Split, test: SearchSet, budget: Budget, seed: int, run: Path
) -> dict[str, float]:
    """Return the measures of a detector that was fine-tuned from a start."""
    recipe = counted(finetuning(detector, budget, seed), len(train_split.identities))
    torch.manual_seed(seed)
    if start is None:
        people = len(train_split.identities)
        model = build_detector(detector, backbone=build_backbone(ARCH), num_identities=people, config=recipe.detector)
    else:
        model = start_detector(
            detector, start, num_identities=len(train_split.identities), with_heads=True, config=recipe.detector
        )
    shutil.rmtree(run, ignore_errors=True)
    result = train(Finetuning(recipe, model, train_split, test), recipe.optim, recipe.loop, run, progress=False)
    shutil.rmtree(run)
    return result.metrics


def run(
    budget: Budget,
    seeds: Sequence[int],
    starts: Sequence[str],
    detectors: Sequence[str],
    shares: Sequence[int],
    *,
    out: Path,
    work: Path,
) -> None:
    """Make the rows that are missing."""
    keys = ("seed", "detector", "start", "share")
    about = f"benchmarks/evidence.py; {budget}; {ARCH}, scenes {SIZE[0]}x{SIZE[1]}; CPU, torch {torch.__version__}"
    work.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        world = World.kept(budget, seed, work)
        for start in starts:
            folder, steps, seconds = pretrained(start, world, budget, seed, work)
            for detector in detectors:
                for share in shares:
                    key = (str(seed), detector, start, str(share))
                    if key in {tuple(row[name] for name in keys) for row in read(out)}:
                        continue
                    part = world.part(share, seed)
                    measures = finetuned(detector, folder, part, world.test, budget, seed, work / f"running-{os.getpid()}")
                    row = dict(zip(keys, key, strict=True)) | {
                        "scenes": len(part),
                        **{name: f"{measures[name]:.4f}" for name in COLUMNS[5:9]},
                        "pretraining_steps": steps,
                        "pretraining_seconds": f"{seconds:.0f}",
                        "finetuning_steps": finetuning(detector, budget, seed).loop.max_steps,
                    }
                    append(out, row, about)
                    print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "summary"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=tuple(DETECTORS))
    parser.add_argument("--shares", type=int, nargs="+", choices=SHARES, default=SHARES)
    parser.add_argument("--out", type=Path, default=Path("results/evidence.csv"))
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="where pre-trained backbones are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw what there is")
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "run":
        budget = SMOKE if args.smoke else Budget()
        run(budget, args.seeds, args.starts, args.detectors, args.shares, out=args.out, work=args.work)
    print(*summary(read(args.out)), sep="\n")
    if args.picture:
        picture(read(args.out)).save(args.picture)


if __name__ == "__main__":
    main()
