"""Fine-tune a person-search detector on your own scenes, and evaluate it on your own test.

    python examples/finetune_own_data.py ROOT -o runs/mine [--backbone resnet50-hybrid] [--steps 2000] [--small]

ROOT has the layout `coco_search`: images and COCO's JSON with a `person_id` for each known person (docs/data.md). To try it
without data: `pretrainps data synthesize --layout coco_search --out ROOT`. The folder of the run then holds model/, for
pretrainps.load("file:runs/mine/model"). The same by command, with resumption and any setting of the recipe:
`pretrainps finetune --config recipes.own_search --data ROOT -o runs/mine`. Needs `pip install 'pretrainps[train]'`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pretrainps
from pretrainps.data.layouts import layout_named
from pretrainps.training import train
from pretrainps.training.finetuning.task import Finetuning
from pretrainps.training.recipes import counted, own_search
from pretrainps.weights import read_tensors

SMALL = {"min_size": 160, "max_size": 240, "region_samples": 16, "rpn_proposals_train": 60, "rpn_proposals": 20}
"""Settings for a first try on a CPU; all others are the recipe's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a new folder for the run")
    parser.add_argument("--backbone", default="resnet50-hybrid", help="a name for pretrainps.load")
    parser.add_argument("--steps", type=int, help="number of steps (default: the recipe's 18 epochs)")
    parser.add_argument("--batch-size", type=int, default=5, help="scenes in a step; the learning rate is scaled with it")
    parser.add_argument("--small", action="store_true", help="small scenes and few regions, instead of the papers' 900 x 1500")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    args = parser.parse_args()

    layout = layout_named("coco_search")
    scenes, test = layout.read(args.root, "train"), layout.read_search(args.root)
    print(f"{len(scenes)} scenes with {len(scenes.identities)} people to train on")
    print(f"{len(test.queries)} queries in {len(test.gallery)} scenes to evaluate on")

    recipe = counted(own_search(), people=len(scenes.identities))
    recipe = replace(
        recipe,
        backbone=args.backbone,
        detector=replace(recipe.detector, **(SMALL if args.small else {})),
        scenes=replace(recipe.scenes, batch_size=args.batch_size),
        loop=replace(recipe.loop, max_steps=args.steps),
        workers=args.workers,
    )
    detector = pretrainps.build_detector(recipe.kind, backbone=recipe.backbone, config=recipe.detector)
    result = train(Finetuning(recipe, detector, scenes, test), recipe.optim, recipe.loop, args.output)
    print(f"{result.step} steps: mAP {result.metrics['mAP']:.3f}, top-1 {result.metrics['top1']:.3f}")

    detector.load_state_dict(read_tensors(result.best or result.last, mapped=False))
    print(f"wrote {pretrainps.save_pretrained(detector, args.output / 'model')}")


if __name__ == "__main__":
    main()
