"""`export`: write a whole model as a file that runs without this package."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pretrainps.cli.loading import add_settings_option, settings_of
from pretrainps.cli.output import megabytes, note, say
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from pretrainps.images.pixels import Size


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a whole model as ONNX, TorchScript or torch.export",
        description="Write a whole model as one file that runs without this package, and check that it computes the same. "
        "Resizing and normalizing are part of the file. A person-search detector takes one image of any size at a time. "
        "A model for crops, or a backbone, takes batches of any size.",
        epilog="ONNX needs the extra: pip install 'pretrainps[export]'.  examples: pretrainps export file:my-detector "
        "--format onnx -o detector.onnx;  pretrainps export resnet50-hybrid --what embed --format onnx --half",
    )
    parser.add_argument("name", help="a registered name, timm:NAME, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument("--arch", help="architecture of a bare weight file, if its keys do not show it, such as timm:NAME")
    parser.add_argument("--format", required=True, choices=("onnx", "torchscript", "pt2"), help="pt2 is torch.export's own")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="FILE.onnx, FILE.pt for TorchScript, or FILE.pt2; by default the model's name, in this folder",
    )
    parser.add_argument(
        "--what",
        choices=("detect", "embed", "classify", "features"),
        help="of a detector: detect, an image to boxes, scores and embeddings of everyone (default), or embed, an image and "
        "boxes of people in it to the embeddings to search for them with; of a backbone: features, images to its maps "
        "(default), or embed, crops to unit vectors; a model with a head has one",
    )
    parser.add_argument(
        "--size",
        default="crop",
        help="what images are resized to inside, not for detectors: crop, the model's own crop size (default); HEIGHTxWIDTH; "
        "or scene, not at all",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of the backbone, not for detectors; what goes in and comes out stays float32; no bfloat16 with onnx",
    )
    parser.add_argument("--half", dest="precision", action="store_const", const="float16", help="--precision float16")
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_settings_option(parser)
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    size = _size(args.size)
    # imported after the check, because torch takes seconds
    from pretrainps.export.graph.export import export_graph
    from pretrainps.export.graph.formats import FORMATS
    from pretrainps.hub.load import load
    from pretrainps.hub.resolve import resolve

    output = args.output or _file_for(args.name, FORMATS[args.format].suffix)
    spec = resolve(args.name, arch=args.arch, offline=args.offline, progress=not args.quiet)
    bare = spec.detector is None and spec.head is None
    model = load(
        spec,
        head="embedding" if args.what == "embed" and bare else None,
        config=settings_of(args),
        offline=args.offline,
        progress=not args.quiet,
    )
    note(str(model.load_report))
    written = export_graph(
        model,
        output,
        format=args.format,
        what=args.what,
        size=None if size == "crop" else size,
        precision=args.precision,
    )
    agreement = ", ".join(f"{name} {value:.1g}" for name, value in written.differences.items())
    size_on_disk = megabytes(output.expanduser().stat().st_size)
    say(f"{output}: {args.format}, {size_on_disk}; largest differences on a probe: {agreement}")
    say(f"use it: {written.use}")
    return 0


def _size(text: str) -> Size:
    if text in ("crop", "scene"):
        return "crop" if text == "crop" else "scene"
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if sides is None:
        raise ArgumentError(f"--size must be crop, scene or HEIGHTxWIDTH in pixels, such as 256x128, not {text!r}.")
    return int(sides[1]), int(sides[2])


def _file_for(name: str, suffix: str) -> Path:
    """Return a name for a new file from the last part of a model's name."""
    last = re.split(r"[/\\:]", name.partition("@")[0].rstrip("/\\"))[-1]
    last = re.sub(r"\.(safetensors|pth|pt|pt2|ckpt|pkl|tar|bin)$", "", last)
    output = Path((last.strip(".") or "model") + suffix)
    if output.exists():
        raise ArgumentError(f"{output} exists already. Name another file with -o FILE{suffix}.")
    return output
