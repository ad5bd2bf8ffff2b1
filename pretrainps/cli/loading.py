"""Common options of commands that run a model, and the loading of a detector."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pretrainps.cli.output import note
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from pretrainps.detectors import PersonSearchDetector


def add_loading_options(parser: argparse.ArgumentParser, *, quiet: str = "no progress bar, no load report") -> None:
    """Add --device, --offline and --quiet.

    Args:
        parser: Parser of a command.
        quiet: What --quiet turns off, for the help text.
    """
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument("--offline", action="store_true", default=None, help="never use the network")
    parser.add_argument("--quiet", action="store_true", help=quiet)


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --set."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the detector, such as score_threshold=0.2, min_size=600 or max_detections=50; may be repeated",
    )


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of --set, for `pretrainps.load` (`config=`).

    Raises:
        ArgumentError: a setting is not NAME=VALUE.
    """
    from pretrainps.training.engine.overrides import plain_value

    found = {}
    for assignment in args.settings:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ArgumentError(f"--set {assignment}: expected name=value, for example --set score_threshold=0.2.")
        found[name.strip()] = plain_value(text.strip())
    return found


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `load` for a bare weight file: --arch, --ignore, --prefix.

    Args:
        parser: Parser of a command.
    """
    parser.add_argument("--arch", help="architecture of a bare weight file, if its keys do not show it, such as timm:NAME")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help='keys in the file to leave out, such as "fc.*"; repeatable',
    )
    parser.add_argument("--prefix", help="prefix of every key in the file, if it is not found automatically")


def load_detector(name: str, args: argparse.Namespace, *, remedy: str, report: bool = True) -> PersonSearchDetector[Any]:
    """Load a detector to the device in the options.

    Args:
        name: A name for `pretrainps.load`.
        args: The options of `add_loading_options` and `add_settings_option`.
        remedy: What to do if the model is no detector, for the message.
        report: Whether to print what was loaded, unless --quiet is set.

    Raises:
        ArgumentError: it is another kind of model.
        PretrainPSError: any error of loading.
    """
    from pretrainps.detectors import PersonSearchDetector
    from pretrainps.hub.load import load

    model = load(name, config=settings_of(args), device=args.device, offline=args.offline, progress=not args.quiet)
    if not isinstance(model, PersonSearchDetector):
        raise ArgumentError(f"{name} is no detector of people. {remedy}")
    if report and not args.quiet:
        note(str(model.load_report))
    return model
