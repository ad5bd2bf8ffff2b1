"""Compare hybrid pre-training with other initializations: detectors fine-tuned on the synthetic world with equal budgets.

    python benchmarks/evidence.py run --seeds 0 1 2        # resumes where it was stopped; hours on two cores
    python benchmarks/evidence.py run --scale gpu --jobs 18      # a larger size, on one GPU
    python benchmarks/evidence.py summary --picture results/evidence-cpu.png     # summarizes results/evidence-cpu.csv

Each seed is another world: other scenes and people, other random weights, another order. Within a seed, every start has the
same network and the same fine-tuning, on the same 10, 30 or 100 % of the target's training scenes. The target, search_campus,
shares no camera and no person with the data sets of pre-training; people of its test are not in its training.

    random           no pre-training
    detection        boxes only: the three detection sets, no alignment
    reid             identities only: the three re-ID sets, no alignment
    plain            both in every step, separate crops, no alignment
    pasted           both in every step, crops pasted into scenes after some steps; no alignment
    joint            both as in this package: first identities alone, then crops pasted into scenes; no alignment
    joint+adversarial, joint+mmd, joint+domain_norm      the same, with each kind of intra-task alignment

All pre-trainings cost about the same: a step on one sub-task costs less than half of a joint step, so there are more steps
on one sub-task. Several processes may run at once; each row is written when its run ends. Recipes are in evidence_recipes.py.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from evidence_recipes import SCALES, Scale, finetuning, pretraining
from evidence_table import COLUMNS, DETECTORS, STARTS, append, picture, read, summary
from evidence_world import World

from pretrainps.backbones import build_backbone
from pretrainps.data.records import SearchSet, Split
from pretrainps.hub.build import build_detector
from pretrainps.training import train
from pretrainps.training.finetuning.from_pretraining import start_detector
from pretrainps.training.finetuning.task import Finetuning
from pretrainps.training.pretraining.save import save_backbone
from pretrainps.training.pretraining.task import Pretraining
from pretrainps.training.recipes import counted

SHARES = (10, 30, 100)
"""Shares of the target's training scenes, in percent."""
KEYS = ("seed", "detector", "start", "share")


def pretrained(start: str, world: World, scale: Scale, seed: int, folder: Path) -> tuple[Path | None, int, float]:
    """Return the folder of a start's backbone and heads (trained if needed), its steps, and its time in seconds."""
    if start == "random":
        return None, 0, 0.0
    recipe = pretraining(start, scale, seed)
    done, steps = folder / f"{start}-{seed}", recipe.steps_per_epoch or 0
    if not done.exists():
        torch.manual_seed(seed)
        reid, detection = ({} if start == "detection" else world.reid), ({} if start == "reid" else world.detection)
        task = Pretraining(recipe, build_backbone(scale.arch), detection, reid)
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
    detector: str, start: Path | None, train_split: Split, test: SearchSet, scale: Scale, seed: int, run: Path
) -> dict[str, float]:
    """Fine-tune a detector from a start and return its measures."""
    people = len(train_split.identities)
    recipe = counted(finetuning(detector, scale, seed), people)
    torch.manual_seed(seed)
    if start is None:
        backbone = build_backbone(scale.arch)
        model = build_detector(detector, backbone=backbone, num_identities=people, config=recipe.detector)
    else:
        model = start_detector(detector, start, num_identities=people, with_heads=True, config=recipe.detector)
    shutil.rmtree(run, ignore_errors=True)
    result = train(Finetuning(recipe, model, train_split, test), recipe.optim, recipe.loop, run, progress=False)
    shutil.rmtree(run)
    return result.metrics


def run(
    scale: Scale,
    seeds: Sequence[int],
    starts: Sequence[str],
    detectors: Sequence[str],
    shares: Sequence[int],
    *,
    out: Path,
    work: Path,
) -> None:
    """Compute the missing rows."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    about = f"benchmarks/evidence.py; {scale}; {where}, torch {torch.__version__}"
    for seed in seeds:
        world = World.read(World.draw(scale, seed, work))
        for start in starts:
            folder, steps, seconds = pretrained(start, world, scale, seed, work)
            for detector, share in itertools.product(detectors, shares):
                key = (str(seed), detector, start, str(share))
                if key in {tuple(row[name] for name in KEYS) for row in read(out)}:
                    continue
                part = world.part(share, seed)
                measures = finetuned(detector, folder, part, world.test, scale, seed, work / f"running-{os.getpid()}")
                row = dict(zip(KEYS, key, strict=True)) | {
                    "scenes": len(part),
                    **{name: f"{measures[name]:.4f}" for name in COLUMNS[5:9]},
                    "pretraining_steps": steps,
                    "pretraining_seconds": f"{seconds:.0f}",
                    "finetuning_steps": scale.finetuning_steps[detector],
                }
                append(out, row, about)
                print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)


def run_each_apart(arguments: Sequence[str], seeds: Sequence[int], starts: Sequence[str], jobs: int) -> None:
    """Run this file once for each seed and start, several at a time."""

    def one(pair: tuple[int, str]) -> int:
        alone = [*arguments, "--jobs", "1", "--seeds", str(pair[0]), "--starts", pair[1]]
        return subprocess.run([sys.executable, __file__, *alone], check=False).returncode

    pairs = [(seed, start) for start in starts for seed in seeds]
    with ThreadPoolExecutor(jobs) as pool:
        failed = [pair for pair, code in zip(pairs, pool.map(one, pairs), strict=True) if code]
    if failed:
        sys.exit(f"failed: {', '.join(f'{start} of seed {seed}' for seed, start in failed)}; see above.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "summary"))
    parser.add_argument("--scale", choices=SCALES, default="cpu", help="smoke: a few steps, to check that it runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS)
    parser.add_argument("--shares", type=int, nargs="+", choices=SHARES, default=SHARES)
    parser.add_argument("--out", type=Path, help="the table (default: results/evidence-SCALE.csv)")
    parser.add_argument("--work", type=Path, help="folder for worlds and backbones (default: runs/evidence-SCALE)")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes, each for one seed and start")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the current table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    out, work = args.out or Path(f"results/evidence-{args.scale}.csv"), args.work or Path(f"runs/evidence-{args.scale}")
    work.mkdir(parents=True, exist_ok=True)
    if args.what == "run" and args.jobs > 1:
        with ThreadPoolExecutor(len(args.seeds)) as pool:
            list(pool.map(lambda seed: World.draw(SCALES[args.scale], seed, work, args.jobs), args.seeds))
        run_each_apart(sys.argv[1:], args.seeds, args.starts, args.jobs)
    elif args.what == "run":
        chosen = (args.seeds, args.starts, args.detectors, args.shares)
        run(SCALES[args.scale], *chosen, out=out, work=work)
    print(*summary(read(out)), sep="\n")
    if args.picture:
        picture(read(out)).save(args.picture)


if __name__ == "__main__":
    main()
