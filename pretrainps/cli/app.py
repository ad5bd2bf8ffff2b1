"""`app`: the page on which photos are uploaded and a person is chosen by a click."""

from __future__ import annotations

import argparse
import signal
import sys

from pretrainps.cli.loading import add_loading_options, add_settings_option, load_detector
from pretrainps.cli.output import note, say
from pretrainps.errors import ArgumentError


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "app",
        help="a page in your browser: upload photos, click on a person, see where else they are",
        description="Serve a page on this machine. Photos that are uploaded to it stay here and are removed within a day "
        "after the visitor leaves, or when the app ends. It makes no public link and sends no usage data. "
        "Needs pretrainps[app].",
        epilog="example: pretrainps app --model NAME",
    )
    parser.add_argument("--model", required=True, help="a detector: a registered name, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; other machines can reach any but the default (%(default)s)",
    )
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--browser", action="store_true", help="open the page")
    add_loading_options(parser)
    add_settings_option(parser)
    parser.set_defaults(run=_app, goes_on=False)


def _app(args: argparse.Namespace) -> int:
    if args.port is not None and not 1 <= args.port <= 65535:
        raise ArgumentError(f"--port {args.port}: ports are 1 to 65535.")
    # imported after the checks, for torch takes seconds
    from pretrainps.gallery.app.page import run_app

    model = load_detector(args.model, args, remedy="Give a detector: pretrainps list --task detector")
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        note(f"note: everyone who reaches {args.host} can use this page and its model")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a kill must not leave photos behind
    run_app(
        model, host=args.host, port=args.port, browser=args.browser, ready=lambda address: say(f"{address}  (Ctrl-C ends it)")
    )
    return 0
