"""`export`: a whole detector as a file that runs without this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from pretrainps.cli.loading import add_settings_option, settings_of
from pretrainps.cli.output import megabytes, note, say


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a whole detector as ONNX, TorchScript or torch.export",
        description="Write a whole person-search detector as one file that runs without this package, on one image of any "
        "size at a time, and check that it finds the same. Resizing and normalising lie in the file.",
        epilog="ONNX needs the extra: pip install 'pretrainps[export]'.  example: pretrainps export file:my-seqnet "
        "--format onnx -o seqnet.onnx",
    )
    parser.add_argument("name", help="a detector: a registered name, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument("--format", required=True, choices=("onnx", "torchscript", "pt2"), help="pt2 is torch.export's own")
    parser.add_argument("-o", "--output", type=Path, required=True, help="FILE.onnx, FILE.pt for TorchScript, or FILE.pt2")
    parser.add_argument(
        "--what",
        choices=("detect", "embed"),
        default="detect",
        help="detect: an image to boxes, scores and embeddings of everyone (default); embed: an image and boxes of people in "
        "it to the embeddings to search for them with",
    )
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_settings_option(parser)
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from pretrainps.graphs.export import export_graph
    from pretrainps.loading import load

    model = load(args.name, config=settings_of(args), offline=args.offline, progress=not args.quiet)
    note(str(model.load_report))
    written = export_graph(model, args.output, format=args.format, what=args.what)
    agreement = ", ".join(f"{name} {value:.1g}" for name, value in written.differences.items())
    size = megabytes(args.output.expanduser().stat().st_size)
    say(f"{args.output}: {args.format}, {size}; largest differences on a probe: {agreement}")
    say(f"use it: {written.use}")
    return 0
