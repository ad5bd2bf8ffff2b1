"""`data check` and `data synthesize`: check data sets, and write synthetic ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pretrainps.cli.output import note, picture_file, save_picture, say, say_json

if TYPE_CHECKING:
    from pretrainps.data.validation import SplitCheck

_SHOWN = 10
"""Number of problems printed for each split."""
_PICTURED = 20
"""Number of images on a contact sheet."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "data",
        help="check a data set on disk, or write a synthetic one",
        description="Data sets for person search, pedestrian detection and re-ID on disk. Nothing is downloaded: "
        "real data sets are available only from their owners.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = actions.add_parser(
        "check",
        help="recognize a data set, count its contents, and find broken files",
        description="Recognize a data set by its files, read every split, compare the counts with the published ones, and list "
        "the problems. Exit status 1 if there are any.",
        epilog="example: pretrainps data check PRW-v16.04.20 --sheet prw.png",
    )
    check.add_argument("root", type=Path, help="the folder that it was unpacked into")
    check.add_argument("--layout", help="its layout, if it is not recognized, or to see what is missing")
    check.add_argument("--split", action="append", help="only this split; may be repeated (default: all splits that exist)")
    check.add_argument("--decode", action="store_true", help="decode every image wholly: finds truncated ones")
    check.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw some of its images with their boxes")
    check.add_argument("--force", action="store_true", help="read a data set that its owners have withdrawn")
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    check.add_argument("--json", action="store_true", help="machine-readable output")
    check.set_defaults(run=_check, goes_on=False)

    make = actions.add_parser(
        "synthesize",
        help="draw people and write them as a data set",
        description="Draw people in scenes, by seed, and write them in the layout of a real data set: commands that read, "
        "train or evaluate can be tried in minutes. A model trained on it does not work on photographs.",
        epilog="example: pretrainps data synthesize --layout prw --out synthetic-prw --people 100 --workers 2",
    )
    make.add_argument("--layout", required=True, help="the layout, such as prw, cuhk_sysu, coco_search, crowdhuman, market1501")
    make.add_argument("--out", type=Path, required=True, help="the folder to make")
    make.add_argument("--domain", help="the domain of the synthetic world (default: the layout's own)")
    make.add_argument("--people", type=int, default=60, help="people to train on; detection: scenes (default: %(default)s)")
    make.add_argument(
        "--test-people", type=int, default=40, help="people to search for; detection: scenes (default: %(default)s)"
    )
    make.add_argument(
        "--first-test-person",
        type=int,
        default=0,
        metavar="NUMBER",
        help="number of the first of them, from 0: another number gives other people in front of the same cameras, such as 80 "
        "for a validation set to a test of 80 people. In re-ID sets it counts after the training people (default: %(default)s)",
    )
    make.add_argument("--appearances", type=int, default=6, help="images of each person (default: %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="seed of the world (default: %(default)s)")
    make.add_argument("--workers", type=int, default=1, help="processes that draw (default: %(default)s)")
    make.add_argument("--quiet", action="store_true", help="no progress bar")
    make.set_defaults(run=_synthesize, goes_on=False)


def _check(args: argparse.Namespace) -> int:
    from pretrainps.data.layouts import layout_named, recognize_layout
    from pretrainps.data.sheets import contact_sheet, spread_over
    from pretrainps.data.validation import check_dataset

    sheet = None if args.sheet is None else picture_file(args.sheet)
    layout = layout_named(args.layout) if args.layout else recognize_layout(args.root)
    checked = check_dataset(args.root, layout, args.split or (), decode=args.decode, force=args.force, progress=not args.quiet)
    search = checked.search
    if args.json:
        say_json(checked.to_json())
    else:
        say(f"{args.root}: {layout.title} ({layout.name}), for {layout.task}")
        if layout.terms:
            say(f"terms: {layout.terms}")
        for check in checked.checks:
            say(f"{check.split}: {_counted(check)}")
            for line in (*check.notes, *check.differences()):
                say(f"  {line}")
            for line in check.problems[:_SHOWN]:
                say(f"  broken: {line}")
            if len(check.problems) > _SHOWN:
                say(f"  and {len(check.problems) - _SHOWN} more (--json has them all)")
        for name, reason in checked.unreadable:
            say(f"{name}: {reason}")
        if search is not None:
            lists = f", lists of {', '.join(map(str, sorted(search.lists)))}" if search.lists else ""
            say(f"search: {len(search.queries):,} queries in a gallery of {len(search.gallery):,} images{lists}")
    for name in layout.shares_people_with:
        note(f"note: people or cameras of {layout.name} are in {name} too: do not train on one and report on the other")
    if sheet is not None:
        share = max(1, _PICTURED // len(args.split or layout.main_splits))
        save_picture(contact_sheet([sample for split in checked.splits for sample in spread_over(split.samples, share)]), sheet)
        note(f"wrote {sheet}")
    return 0 if checked.is_whole else 1


def _counted(check: SplitCheck) -> str:
    found = check.found
    named = f" ({found.labelled:,} of {found.identities:,} identities)" if found.labelled else ""
    parts = [f"{found.images:,} images", f"{found.boxes:,} people{named}"]
    if check.ignored:
        parts.append(f"{check.ignored:,} regions to ignore")
    if found.cameras:
        parts.append(f"{found.cameras} cameras")
    if check.alone:
        parts.append(f"{check.alone:,} identities with only one box")
    if check.twice:
        parts.append(f"{check.twice:,} images with one person twice")
    return ", ".join(parts)


def _synthesize(args: argparse.Namespace) -> int:
    from pretrainps.synthetic.writing import WorldSize, synthesize

    size = WorldSize(
        people=args.people,
        test_people=args.test_people,
        first_test_person=args.first_test_person,
        appearances=args.appearances,
        seed=args.seed,
        workers=args.workers,
    )
    layout = synthesize(args.layout, args.out, domain=args.domain, size=size, progress=not args.quiet)
    say(f"{args.out}: a synthetic data set in the layout of {layout.title}")
    say(f"to look at it: pretrainps data check {args.out} --sheet sheet.png")
    return 0
