"""Parse the command line and run the command; an error of the package becomes one message and an exit status."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Sequence

from pretrainps._version import __version__
from pretrainps.cli import app, datasets, evaluation, graphs, index, models, pictures, search, training, weights
from pretrainps.cli.output import abandon, console, flush, note
from pretrainps.errors import PretrainPSError

EPILOG = """\
first steps:
  pretrainps demo                                  search for people in a drawn city, offline, in a minute
  pretrainps index photos/ --model MODEL -o gallery   detect and embed everyone in your photos, once
  pretrainps search gallery/ --query photo.jpg     find the person of a photo in them
  pretrainps list "*-hybrid"                       list the available weights
  pretrainps info resnet50-hybrid                  their origin and terms of use
  pretrainps embed photos/ --model resnet50-hybrid vectors of person crops, and their similarities
  pretrainps inspect some.pth                      what a weight file is, without running it

environment:
  PRETRAINPS_HOME      cache folder (default ~/.cache/pretrainps)
  PRETRAINPS_OFFLINE   1: never use the network
  HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HTTPS_PROXY are respected
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="pretrainps",
        description="A pre-trained model hub for person search: find, verify, load and use pre-trained weights.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pretrainps {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (pictures, index, search, app, models, weights, graphs, datasets, evaluation, training):
        module.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted.

    Args:
        argv: The arguments after the program's name; by default those of the process.
    """
    with console():
        return _piped(argv)


def _piped(argv: Sequence[str] | None) -> int:
    try:
        try:
            return _run(argv)
        finally:
            flush()
    except BrokenPipeError:  # the reader of the output has closed it (| head): end quietly
        abandon()
        return 141
    except OSError as error:
        if error.errno == errno.EINVAL and os.name == "nt":  # a broken pipe on Windows
            abandon()
            return 141
        if error.errno != errno.ENOSPC:
            raise
        note("error: no space left for the output. Free some, or write it elsewhere.")
        abandon()
        return 1


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        return status
    except PretrainPSError as error:
        note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        note("interrupted; run it again to continue" if getattr(args, "goes_on", True) else "interrupted; nothing was kept")
        return 130
