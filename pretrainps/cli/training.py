"""`pretrain`, `finetune`, `plot`: recipes on data sets, in a folder from which a stopped run is resumed."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrainps.cli.output import note, picture_file, say
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from pretrainps.backbones import Backbone
    from pretrainps.detectors import PersonSearchDetector
    from pretrainps.training.engine.task import Task
    from pretrainps.training.finetuning.task import FinetuneRecipe
    from pretrainps.training.pretraining.task import PretrainRecipe

_RANDOM = "random:"
_MAY_DIFFER = ("recipe.workers", "recipe.loop.*", "recipe.optim.*", "task.data.gallery.*", "task.protocol*")
"""Loop and optimizer are recorded twice, and the engine compares its own record of them. How many processes read, and what the
model is measured on, changes nothing in what is learned."""
_LAUNCH = "On several GPUs: torchrun --nproc-per-node 4 -m pretrainps "


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "pretrain",
        help="hybrid pre-training of a backbone on detection and re-ID data",
        description="Pre-train a backbone on sub-task data only: detection sets (boxes, no identities) together with re-ID "
        "sets (identities, no scenes), with intra-task alignment. The folder then holds backbone/, which `pretrainps finetune "
        "--backbone` and pretrainps.load('file:...') take.",
        epilog="example: pretrainps pretrain --config recipes.hybrid_resnet50 --detection crowdhuman=CrowdHuman --detection "
        "citypersons=Cityscapes --reid msmt17=MSMT17 --reid market1501=Market -o runs/hybrid.  " + _LAUNCH + "pretrain ...",
    )
    _add_run_options(parser)
    parser.add_argument(
        "--detection",
        action="append",
        default=[],
        metavar="NAME=ROOT",
        help="a detection data set: a layout's name, or one of yours, and its folder; may be given again",
    )
    parser.add_argument("--reid", action="append", default=[], metavar="NAME=ROOT", help="a re-ID data set; may be given again")
    parser.set_defaults(run=_pretrain)

    parser = commands.add_parser(
        "finetune",
        help="train a person-search detector",
        description="Train a detector on a person-search data set and measure it by the set's protocol while it learns. The "
        "folder then holds model/, the best one, which pretrainps.load('file:...') takes.",
        epilog="example: pretrainps finetune --config recipes.RECIPE --backbone resnet50-hybrid --data PRW-v16.04.20 "
        "-o runs/prw.  " + _LAUNCH + "finetune ...",
    )
    _add_run_options(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the data set's folder")
    parser.add_argument("--layout", help="what the data set is, if it is not recognized")
    parser.add_argument("--no-evaluation", action="store_true", help="do not read the test split, and measure nothing")
    parser.set_defaults(run=_finetune)

    parser = commands.add_parser(
        "plot",
        help="draw the curves of a run",
        description="Draw losses and measures of a run, under way or finished, from its log.",
        epilog="example: pretrainps plot runs/prw -o curves.png",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("-o", "--output", type=Path, help="FILE.png (default: curves.png in the folder)")
    parser.set_defaults(run=_plot, goes_on=False)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="RECIPE", help="the name of a recipe; a wrong name lists all")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--backbone",
        help="the model to start from, instead of the recipe's: a name, file:PATH, the folder of a training, timm:NAME, "
        "random:ARCH; for finetune also a trained detector, of which all but the identity tables is taken over",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting of the recipe, such as optim.lr=0.001 or loop.epochs=5; may be given again",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--force", action="store_true", help="use data sets that their owners have withdrawn")
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _pretrain(args: argparse.Namespace) -> int:
    import torch

    from pretrainps.training.engine.overrides import override
    from pretrainps.training.pretraining.save import save_backbone
    from pretrainps.training.pretraining.task import Pretraining, PretrainRecipe
    from pretrainps.training.recipes import recipe_named
    from pretrainps.training.sources import read_sets

    _tell_warnings()
    recipe: PretrainRecipe = override(recipe_named(args.config, PretrainRecipe), args.set)
    detection = read_sets(_named(args.detection, "--detection"), "detection", force=args.force)
    reid = read_sets(_named(args.reid, "--reid"), "reid", force=args.force)
    recipe = replace(recipe, backbone=args.backbone or recipe.backbone)
    torch.manual_seed(recipe.loop.seed)
    backbone = _backbone(recipe.backbone, args)
    task = Pretraining(recipe, backbone, detection, reid)
    stopped = _run(args, task, recipe)
    if stopped is None:
        folder = save_backbone(task.hybrid, args.output / "backbone")
        say(f"{folder}: the pre-trained backbone; pretrainps finetune --backbone {args.output} starts from it")
    return stopped or 0


def _finetune(args: argparse.Namespace) -> int:
    from pretrainps.data.layouts import layout_named, recognize_layout
    from pretrainps.hub.publish import save_pretrained
    from pretrainps.training.engine.overrides import override
    from pretrainps.training.finetuning.task import FinetuneRecipe, Finetuning
    from pretrainps.training.recipes import counted, recipe_named

    _tell_warnings()
    recipe: FinetuneRecipe = override(recipe_named(args.config, FinetuneRecipe), args.set)
    layout = layout_named(args.layout) if args.layout else recognize_layout(args.data)
    train = layout.read(args.data, layout.main_splits[0], force=args.force)
    test = None if args.no_evaluation else layout.read_search(args.data, force=args.force)
    recipe = replace(counted(recipe, len(train.identities)), backbone=args.backbone or recipe.backbone)
    detector = _detector(recipe, args)
    task = Finetuning(recipe, detector, train, test)
    stopped = _run(args, task, recipe)
    if stopped is None:
        folder = save_pretrained(detector, args.output / "model")
        say(f"{folder}: the trained detector; pretrainps evaluate file:{folder} --data {args.data} measures it again")
    return stopped or 0


def _run(args: argparse.Namespace, task: Task, recipe: PretrainRecipe | FinetuneRecipe) -> int | None:
    """Train, and put the weights that are to be kept into the model. Return an exit status if there is nothing to keep."""
    import torch

    from pretrainps.training.engine.loop import train
    from pretrainps.training.engine.processes import Processes
    from pretrainps.weights import read_tensors

    config: dict[str, Any] = {"recipe": asdict(recipe)}
    result = train(
        task,
        recipe.optim,
        recipe.loop,
        args.output,
        resume=args.resume,
        config=config,
        may_differ=_MAY_DIFFER,
        progress=not args.quiet,
    )
    is_main = Processes().is_main
    if Processes().count > 1:  # what follows is done by the first process only
        torch.distributed.destroy_process_group()
    if result.stopped is not None:
        if is_main:
            note(f"stopped at step {result.step}; the same command with --resume goes on")
        return 130 if result.stopped == "SIGINT" else 143
    if not is_main:
        return 0
    if result.metrics:
        say("  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    task.model.load_state_dict(read_tensors(result.best or result.last, mapped=False))
    task.model.eval()
    return None


def _named(pairs: list[str], option: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, root = pair.partition("=")
        if not (name and equals and root):
            raise ArgumentError(f"{option} {pair}: expected NAME=ROOT, for example {option} market1501=Market-1501-v15.09.15.")
        if name in found:
            raise ArgumentError(f"{option} {name} is given twice. Give each data set a name of its own.")
        found[name] = Path(root).expanduser()
    return found


def _backbone(name: str, args: argparse.Namespace) -> Backbone:
    """Return what a pre-training starts from."""
    from pretrainps.backbones import Backbone

    start = _start(name, args)
    if not isinstance(start, Backbone):
        raise ArgumentError(f"{name} is no bare backbone but a {type(start).__name__}. Name a backbone.")
    return start


def _start(name: str, args: argparse.Namespace) -> Backbone | PersonSearchDetector[Any]:
    """Return what a training starts from."""
    from pretrainps.backbones import Backbone, build_backbone
    from pretrainps.detectors import PersonSearchDetector
    from pretrainps.hub.load import load

    if name.startswith(_RANDOM):
        return build_backbone(name.removeprefix(_RANDOM))
    folder = _pretrained(name)
    if folder is None and Path(name).expanduser().is_dir():  # of a run that is not at its end, say
        folder = Path(name)
    loaded = load(name if folder is None else f"file:{folder}", offline=args.offline, progress=not args.quiet)
    if not isinstance(loaded, Backbone | PersonSearchDetector):
        raise ArgumentError(f"{name} is neither backbone nor detector but a {type(loaded).__name__}.")
    return loaded


def _pretrained(name: str) -> Path | None:
    """Return the folder of a pre-trained backbone and its heads, if the name is of that or of the run that made it."""
    from pretrainps.training.pretraining.save import HEADS

    folder = Path(name.removeprefix("file:")).expanduser()
    return next((each for each in (folder / "backbone", folder) if (each / HEADS).is_file()), None)


def _detector(recipe: FinetuneRecipe, args: argparse.Namespace) -> PersonSearchDetector[Any]:
    """Return the detector that a fine-tuning starts with."""
    import torch

    from pretrainps.backbones import Backbone
    from pretrainps.hub.build import build_detector
    from pretrainps.training.finetuning.from_detector import continue_detector
    from pretrainps.training.finetuning.from_pretraining import start_detector

    torch.manual_seed(recipe.loop.seed)
    folder = _pretrained(recipe.backbone)
    if folder is not None:
        people = recipe.detector.num_identities
        detector = start_detector(
            recipe.kind, folder, num_identities=people, with_heads=recipe.with_heads, config=recipe.detector
        )
        note(str(detector.load_report))
        return detector
    start = _start(recipe.backbone, args)
    if isinstance(start, Backbone):
        return build_detector(recipe.kind, backbone=start, config=recipe.detector)
    detector = continue_detector(
        start,
        kind=recipe.kind,
        num_identities=recipe.detector.num_identities,
        same_people=recipe.same_people,
        config=recipe.detector,
    )
    note(str(detector.load_report))
    return detector


def _plot(args: argparse.Namespace) -> int:
    from pretrainps.training.engine.plot import plot_run

    output = picture_file(args.output or args.folder / "curves.png")
    plot_run(args.folder, output)
    say(f"{output}")
    return 0


def _tell_warnings() -> None:
    """Show the package's warnings."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
