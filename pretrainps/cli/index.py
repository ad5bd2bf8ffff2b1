"""`index`: a folder of images, or a video, into a gallery that can be searched."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from pretrainps.cli.loading import add_loading_options, add_settings_option, load_detector
from pretrainps.cli.output import note, say, say_json
from pretrainps.errors import ArgumentError

_SHOWN = 20
"""Unreadable images that are listed; --json lists all."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "index",
        help="find the people in a folder of photos or a video, for `search`",
        description="Detect and embed the people in a folder of images (searched recursively; jpg, png, webp, bmp, tif) or in "
        "a video, and keep that as a gallery. Run it again after adding, changing or removing images: only those are looked "
        "at. An interrupted run is resumed by the same command. Nothing leaves this machine.",
        epilog="example: pretrainps index photos/ --model NAME -o photos.gallery",
    )
    parser.add_argument("source", type=Path, metavar="PLACE", help="a folder of images, or a video (needs pretrainps[video])")
    parser.add_argument("--model", required=True, help="a detector: a registered name, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument("-o", "--output", required=True, metavar="GALLERY", help="the gallery's folder, or another store's URL")
    parser.add_argument("--fps", type=float, help="of a video: frames to index for each second (default: 1)")
    parser.add_argument("--rebuild", action="store_true", help="begin with nothing, whatever is there")
    parser.add_argument("--wait", action="store_true", help="wait for another run that writes to the gallery")
    parser.add_argument("--batch-size", type=int, help="images of one size in a forward pass (default: 1 on a CPU, else 8)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of the detector")
    parser.add_argument(
        "--vector-index",
        metavar="NAME",
        help="build this index for search: faiss, exact (none), or one of another package (default: faiss above 2 million)",
    )
    add_loading_options(parser)
    add_settings_option(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> int:
    if not args.source.expanduser().exists():
        raise ArgumentError(f"{args.source} does not exist. Give a folder of images, or a video.")
    # imported after the check, for torch takes seconds
    from pretrainps.gallery import Gallery

    model = load_detector(args.model, args, remedy="Give a detector: pretrainps list --task detector")
    report = Gallery.index(
        args.source,
        model,
        store=args.output,
        fps=args.fps,
        batch_size=args.batch_size,
        precision=args.precision,
        rebuild=args.rebuild,
        wait=args.wait,
        progress=not args.quiet,
        vector_index=args.vector_index,
    )
    if args.json:
        say_json(report.to_json())
        return 0
    for failure in report.failures[:_SHOWN]:
        note(f"not read: {failure.reason}")
    if len(report.failures) > _SHOWN:
        note(f"... and {len(report.failures) - _SHOWN:,} more; --json lists all")
    say(str(report))
    looked = report.added + report.changed
    note(f"{report.seconds:.1f} s" + (f", {report.images_per_second:.1f} images a second" if looked else ""))
    settings = "".join(f" --set {shlex.quote(each)}" for each in args.settings)
    note(f"find a person: pretrainps search {args.output} --query PHOTO --model {args.model}{settings}")
    return 0
