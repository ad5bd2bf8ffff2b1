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
        help="find everyone in a folder of photos or a video, for `search`",
        description="Detect and embed everyone in a folder of images (searched recursively; jpg, png, webp, bmp, tif) or in a "
        "video, and keep that as a gallery. Run it again after adding, changing or removing images: only those are looked at. "
        "A run that was interrupted goes on where it was. Nothing leaves this machine.",
        epilog="example: pretrainps index photos/ --model seqnet-resnet50-prw -o photos.gallery",
    )
    parser.add_argument("source", type=Path, metavar="PLACE", help="a folder of images, or a video (needs pretrainps[video])")
    parser.add_argument("--model", required=True, help="a detector: a registered name, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="GALLERY", help="the gallery's folder")
    parser.add_argument("--fps", type=float, help="of a video: frames a second to look at (default: 1)")
    parser.add_argument("--rebuild", action="store_true", help="begin anew, whatever is there")
    parser.add_argument("--wait", action="store_true", help="wait for another run that writes to the gallery")
    parser.add_argument("--batch-size", type=int, help="images of one size a forward pass (default: 1 on a CPU, else 8)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of the detector")
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
    gallery, name = shlex.quote(str(args.output)), shlex.quote(args.model)
    note(f"find somebody: pretrainps search {gallery} --query PHOTO --model {name}{settings}")
    return 0
