"""`inspect`, `export-weights`, `check-input`: weight files, their contents and their input convention."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pretrainps.cli.loading import add_file_options
from pretrainps.cli.output import note, say, say_json
from pretrainps.errors import ArgumentError


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "inspect",
        help="show what a weight file is, without running it",
        description="Show a weight file's format, architecture and key layout, and the models that can load it. "
        "No code in the file is run.",
    )
    parser.add_argument("file", nargs="+", help="a path, with or without file: in front")
    parser.add_argument("--json", action="store_true", help="machine-readable output, with every key and shape")
    parser.set_defaults(run=_inspect)

    parser = commands.add_parser(
        "export-weights",
        help="write weights under another code base's names",
        description="Write a model so that another code base loads it with no key missing or left over: a backbone, or a "
        "whole detector in the layout of its own code base.",
        epilog="layouts: torchvision, timm, mmdet, detectron2 (.pkl) and those of the detectors' own code for ResNets; mmdet "
        "for ShuffleNetV1; solider for SOLIDER's Swins; timm for timm models; native for our names. A wrong name lists all "
        "that the model has.  example: pretrainps export-weights "
        "resnet50-hybrid --layout detectron2 -o R50-hybrid.pkl",
    )
    parser.add_argument("name", help="a registered name, timm:NAME, file:PATH or hf:owner/repo[@REVISION]")
    add_file_options(parser)
    parser.add_argument("--layout", required=True, help="code base of the key names")
    parser.add_argument("-o", "--output", type=Path, required=True, help="FILE.pth, .pt, .safetensors, or .pkl for detectron2")
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_export)

    parser = commands.add_parser(
        "check-input",
        help="find a network's input convention from its weights",
        description="Find a network's colour order and pixel scaling: compare the statistics of its first batch norm with "
        "those of your images under each convention.",
    )
    parser.add_argument("name", help="a registered name, file:PATH or hf:owner/repo[@REVISION]")
    add_file_options(parser)
    parser.add_argument("--images", type=Path, required=True, help="folder with some dozens of ordinary colour images")
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_check_input)


def _inspect(args: argparse.Namespace) -> int:
    from pretrainps.downloads.addresses import local_path

    paths = [local_path(name) for name in args.file]
    for path in paths:
        if not os.path.exists(path):
            raise ArgumentError(f"{path} does not exist. Give a weight file.")
    from pretrainps.weights.inspect import inspect

    found = [inspect(path) for path in paths]
    if args.json:
        say_json([one.to_json() for one in found])
    else:
        say("\n\n".join(str(one) for one in found))
    return 1 if any(one.problem for one in found) else 0


def _export(args: argparse.Namespace) -> int:
    from pretrainps.export.weights import export_weights
    from pretrainps.hub.load import load

    model = load(
        args.name, arch=args.arch, ignore=args.ignore, prefix=args.prefix, offline=args.offline, progress=not args.quiet
    )
    usage = export_weights(model, args.layout, args.output)
    note(str(model.load_report))
    say(f"{args.output}: {args.layout} layout, {args.output.stat().st_size / 1e6:.1f} MB")
    if usage:
        say(f"use it: {usage}")
    c = model.spec.input
    say(f"its input: {c.colour.upper()} in 0..{c.scale:g}, mean {c.mean}, std {c.std} ({c.status})")
    return 0


def _check_input(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from pretrainps.images.read import find_images

    images = find_images([args.images])
    # imported after the check, because torch takes seconds
    from pretrainps.hub.load import load
    from pretrainps.weights.check_input import check_input

    model = load(args.name, arch=args.arch, ignore=args.ignore, prefix=args.prefix, offline=args.offline)
    result = check_input(model, images)
    for reason in result.failures:
        note(f"not read: {reason}")
    if args.json:
        say_json(
            {
                "candidates": [asdict(c) for c in result.candidates],
                "colour_settled": result.colour_settled,
                "scaling_settled": result.scaling_settled,
                "agrees_with_spec": result.agrees,
            }
        )
    else:
        say(str(result))
    return 0
