"""`embed` and `demo`: embed image files and compare them, and a demonstration of person search."""

from __future__ import annotations

import argparse
from pathlib import Path

from pretrainps.cli.loading import add_file_options, add_loading_options
from pretrainps.cli.output import note, say, say_json
from pretrainps.errors import ArgumentError


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "embed",
        help="turn person crops into vectors and compare them",
        description="Embed image files, each as one crop, and print their similarities.",
        epilog="example: pretrainps embed crops/ --model resnet50-hybrid -o vectors.safetensors",
    )
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them, searched recursively")
    parser.add_argument("--model", default="resnet50-hybrid", help="as for info (default: %(default)s)")
    add_file_options(parser)
    parser.add_argument(
        "-o", "--output", type=Path, help="also write the vectors: FILE.safetensors (with the file names) or FILE.npy"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images a forward pass (default: %(default)s)")
    add_loading_options(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output, with the vectors")
    parser.set_defaults(run=_embed)

    parser = commands.add_parser(
        "demo",
        help="search for people in a drawn city, offline",
        description="Draw the photos of a small city, index them with the detector that comes with the package, search for "
        "several people, and compare the answers with the truth. Needs no network. The folder will hold photos/, gallery/, "
        "report.html, for a browser, and search.png.",
        epilog="afterwards: pretrainps search pretrainps-demo/gallery --query SOME-PHOTO.jpg",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("pretrainps-demo"), help="new folder for all files (default: %(default)s)"
    )
    parser.add_argument("--model", help="any detector, named as for info (default: the first that comes with the package)")
    parser.add_argument("--people", type=int, default=24, help="people to search for (default: %(default)s)")
    add_loading_options(parser, quiet="no progress bars")
    parser.set_defaults(run=_demo)


def _embed(args: argparse.Namespace) -> int:
    from pretrainps.images.read import find_images

    if args.batch_size < 1:
        raise ArgumentError("--batch-size must be at least 1.")
    if args.output is not None and args.output.suffix not in (".safetensors", ".npy"):
        raise ArgumentError(f"{args.output}: the ending sets the format; use .safetensors or .npy.")
    images = find_images(args.images)
    # imported after the checks, because torch takes seconds
    from pretrainps.heads import CropModel
    from pretrainps.hub.load import load
    from pretrainps.inference.embed import embed

    model = load(
        args.model,
        head="embedding",
        arch=args.arch,
        ignore=args.ignore,
        prefix=args.prefix,
        device=args.device,
        offline=args.offline,
        progress=not args.quiet,
    )
    if not isinstance(model, CropModel):
        raise ArgumentError(f"{args.model} is no model for crops.")
    if not args.quiet:
        note(str(model.load_report))
    result = embed(model, images, batch_size=args.batch_size, progress=not args.quiet)
    if args.output is not None:
        result.save(args.output)
        note(f"wrote {len(result.paths)} vectors to {args.output}")
    if args.json:
        say_json(result.to_json())
    else:
        say(result.table())
        note("(each whole image was used as one person's crop; 1 is the same direction, and images of people are rarely")
        note("far below that: compare rows, not single numbers)")
    for _, reason in result.failures:
        note(f"not read: {reason}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from pretrainps.demo import DemoSize, run_demo

    run_demo(
        args.model,
        output=args.output,
        size=DemoSize(people=args.people),
        device=args.device,
        offline=args.offline,
        say=say,
        progress=not args.quiet,
    )
    return 0
