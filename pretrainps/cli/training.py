"""`pretrain`, `finetune`, `plot`: recipes on data sets, in a folder from which a stopped run is resumed."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pretrainps.cli.output import note, picture_file, say
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from pretrainps.training.finetuning.task import FinetuneRecipe
    from pretrainps.training.pretraining.task import PretrainRecipe
    from pretrainps.training.start import Trained

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
    from pretrainps.training.engine.overrides import override
    from pretrainps.training.pretraining.task import PretrainRecipe
    from pretrainps.training.recipes import recipe_named
    from pretrainps.training.start import pretrain

    _tell_warnings()
    recipe: PretrainRecipe = override(recipe_named(args.config, PretrainRecipe), args.set)
    trained = pretrain(
        replace(recipe, backbone=args.backbone or recipe.backbone),
        _named(args.detection, "--detection"),
        _named(args.reid, "--reid"),
        args.output,
        resume=args.resume,
        force=args.force,
        offline=args.offline,
        progress=not args.quiet,
    )
    return _tell(trained, f"the pre-trained backbone; pretrainps finetune --backbone {args.output} starts from it")


def _finetune(args: argparse.Namespace) -> int:
    from pretrainps.training.engine.overrides import override
    from pretrainps.training.finetuning.task import FinetuneRecipe
    from pretrainps.training.recipes import recipe_named
    from pretrainps.training.start import finetune

    _tell_warnings()
    recipe: FinetuneRecipe = override(recipe_named(args.config, FinetuneRecipe), args.set)
    trained = finetune(
        replace(recipe, backbone=args.backbone or recipe.backbone),
        args.data,
        args.output,
        layout=args.layout,
        measure=not args.no_evaluation,
        resume=args.resume,
        force=args.force,
        offline=args.offline,
        progress=not args.quiet,
        say=note,
    )
    return _tell(
        trained, f"the trained detector; pretrainps evaluate file:{trained.folder} --data {args.data} measures it again"
    )


def _tell(trained: Trained, what: str) -> int:
    """Say how a training ended, and return the exit status."""
    result = trained.result
    if result.stopped is not None:
        if trained.is_main:
            note(f"stopped at step {result.step}; the same command with --resume goes on")
        return 130 if result.stopped == "SIGINT" else 143
    if trained.folder is not None:
        if result.metrics:
            say("  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
        say(f"{trained.folder}: {what}")
    return 0


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


def _plot(args: argparse.Namespace) -> int:
    from pretrainps.training.engine.plot import plot_run

    output = picture_file(args.output or args.folder / "curves.png")
    plot_run(args.folder, output)
    say(f"{output}")
    return 0


def _tell_warnings() -> None:
    """Show the package's warnings."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
