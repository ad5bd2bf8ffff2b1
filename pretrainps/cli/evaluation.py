"""`evaluate`: what `pretrainps.evaluate` computes, printed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from pretrainps.cli.loading import add_loading_options, add_settings_option, settings_of
from pretrainps.cli.output import note, picture_file, save_picture, say, say_json
from pretrainps.errors import ArgumentError

_ANSWERS = 8
"""Answers a query on the sheet."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a data set, by the field's protocols",
        description="Run a model over a data set and print the numbers that papers print, with the protocol in words. On "
        "a data set for person search: mAP, top-1, 5, 10, and how well everyone is detected; for detection: average precisions "
        "and miss rate; for re-ID: mAP, CMC and mINP. What was computed is kept, by the model's hash and the data's, so an "
        "interrupted run goes on, and another protocol on the same features takes seconds.",
        epilog="example: pretrainps evaluate NAME --data PRW-v16.04.20 --cbgm --sheet worst.png",
    )
    parser.add_argument("model", help="a registered name, file:PATH or hf:owner/repo[@REVISION]: a detector, or a backbone")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the data set's folder")
    parser.add_argument("--layout", help="what the data set is, if it is not recognized")
    parser.add_argument("--split", default=None, help="detection: which split (default: the last)")
    parser.add_argument(
        "--protocol", help="how a search is judged: prw, prw-cross-camera, cuhk-sysu, ... (default: the layout's)"
    )
    parser.add_argument("--gallery", help="size of each query's gallery on CUHK-SYSU: 50 to 4000, or full")
    parser.add_argument("--cbgm", action="store_true", help="context matching, with the published numbers for the data set")
    parser.add_argument(
        "--annotated-boxes", action="store_true", help="gallery people as annotated instead of detected: an upper bound"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N queries (search, re-ID) or images (detection), for a try"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images a forward pass (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32", help="of a detector")
    parser.add_argument("--skip-damaged", action="store_true", help="take an unreadable gallery image for an empty one")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the worst queries and what was answered")
    parser.add_argument("--features", type=Path, help="where features are kept (default: in the cache folder)")
    parser.add_argument("--keep-nothing", action="store_true", help="do not keep features")
    parser.add_argument("--force", action="store_true", help="use a data set that its owners have withdrawn")
    add_loading_options(parser, quiet="no progress bars, no load report")
    add_settings_option(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    if args.sheet is not None:
        args.sheet = picture_file(args.sheet)
    gallery = None if args.gallery is None else _size(args.gallery)
    # imported after the checks, for torch takes seconds
    from pretrainps.evaluation.evaluate import evaluate, feature_folder

    measured = evaluate(
        args.model,
        args.data,
        args.protocol,
        layout=args.layout,
        split=args.split,
        gallery=gallery,
        cbgm=args.cbgm,
        annotated_boxes=args.annotated_boxes,
        limit=args.limit,
        ranking=_ANSWERS if args.sheet is not None else 0,
        config=settings_of(args),
        batch_size=args.batch_size,
        precision=args.precision,
        on_damage="skip" if args.skip_damaged else "stop",
        features=None if args.keep_nothing else args.features or feature_folder(),
        force=args.force,
        device=args.device,
        offline=args.offline,
        progress=not args.quiet,
        say=note,
    )
    if args.sheet is not None:
        save_picture(measured.sheet(answers=_ANSWERS), args.sheet)
        note(f"wrote {args.sheet}: the worst queries, and what was answered")
    if args.json:
        say_json({"model": args.model, "data": str(args.data), **measured.to_json()})
    else:
        say(measured.words())
    return 0


def _size(text: str) -> int | Literal["full"]:
    if text == "full":
        return "full"
    if not text.isdecimal():
        raise ArgumentError(f"--gallery is a size or 'full', not {text!r}.")
    return int(text)
