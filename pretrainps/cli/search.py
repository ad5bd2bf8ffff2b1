"""`search`: a photo with a person on it, and where else in a gallery he is."""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrainps.cli.loading import add_loading_options, add_settings_option, load_detector
from pretrainps.cli.output import note, picture_file, save_picture, say, say_json, table
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from pretrainps.detectors import PersonSearchDetector
    from pretrainps.gallery import Box, Gallery, Person, SearchResult

_NUMBERED = "people.png"
"""Where everyone on the photo is drawn numbered, if nothing else is said."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "search",
        help="find a person of a photo in a gallery made by `index`",
        description="Find where else a person is. Without --box or --person, everyone on the photo is detected; if there are "
        f"several, they are drawn with numbers, into {_NUMBERED} or where --numbered says, and you choose one by --person.",
        epilog="example: pretrainps search photos.gallery --query party.jpg --person 2 --report found.html",
    )
    parser.add_argument("gallery", type=Path, help="a gallery's folder")
    parser.add_argument("--query", type=Path, required=True, metavar="PHOTO", help="a photo with the person on it")
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--box", type=_box, metavar="X,Y,W,H", help="where he is, in pixels of the upright photo")
    whom.add_argument("--person", type=int, metavar="N", help="which of the numbered people he is, from left to right")
    parser.add_argument("--numbered", type=Path, metavar="OUT.png", help="draw everyone on the photo with numbers")
    parser.add_argument("--top", type=int, default=10, help="answers (default: %(default)s)")
    parser.add_argument("--leave-own-image-out", action="store_true", help="no answers from the photo itself")
    parser.add_argument("--rerank", action="store_true", help="let people beside him help (context matching, CBGM)")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the query beside the answers")
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a page that works offline and on a phone")
    parser.add_argument("--images", type=Path, metavar="PLACE", help="where the gallery's images lie now, if they were moved")
    parser.add_argument("--model", help="the detector that the gallery was made with (default: by the name it had then)")
    add_loading_options(parser)
    add_settings_option(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    if args.top < 1:
        raise ArgumentError(f"--top {args.top}: ask for 1 answer or more.")
    for option in ("picture", "numbered"):
        if getattr(args, option) is not None:
            setattr(args, option, picture_file(getattr(args, option)))
    if args.report is not None and args.report.suffix.lower() not in (".html", ".htm"):
        raise ArgumentError(f"{args.report}: a report is a page; call it .html.")
    args.query = args.query.expanduser()
    from pretrainps.images.read import read_image

    photo = read_image(args.query)
    # imported after the checks, for torch takes seconds
    from pretrainps.gallery import Gallery

    gallery = Gallery.open(args.gallery, root=args.images, device=args.device)
    model = _model(args, gallery)
    box = args.box if args.box is not None else _person(args, model, photo).box
    result = gallery.search(
        model,
        photo,
        box,
        top=args.top,
        rerank=args.rerank,
        query_name=gallery.name_for(args.query),
        leave_out_own=args.leave_own_image_out,
    )
    if args.json:
        say_json(result.to_json())
    else:
        _tell(result)
    _draw(args, gallery, result, photo)
    return 0


def _model(args: argparse.Namespace, gallery: Gallery) -> PersonSearchDetector[Any]:
    remedy = "Say by --model which detector the gallery was made with."
    return load_detector(args.model or gallery.model_name, args, remedy=remedy, report=args.model is not None)


def _person(args: argparse.Namespace, model: PersonSearchDetector[Any], photo: Image) -> Person:
    """Return whom the photo shows, or the one that was chosen; if that is not clear, show everyone first."""
    from pretrainps.gallery.query_selection import choose, detect

    people = detect(model, photo, name=args.query.name)
    unclear = args.person is None and len(people) > 1
    if unclear or args.numbered is not None:
        _show_everyone(args, photo, people, listed=unclear)
    return choose(people, args.person)


def _show_everyone(args: argparse.Namespace, photo: Image, people: Sequence[Person], *, listed: bool) -> None:
    from pretrainps.gallery.query_selection import numbered_picture

    place = args.numbered or _free_name(_NUMBERED)
    save_picture(numbered_picture(photo, people), place)
    note(f"wrote {place}: everyone on {args.query.name}, numbered")
    if listed and args.json:
        say_json({"people": [{"number": number, **person.to_json()} for number, person in enumerate(people, start=1)]})
    elif listed:
        rows = [[str(number), _xywh(person.box), f"{person.score:.2f}"] for number, person in enumerate(people, start=1)]
        say(table(["person", "x,y,w,h", "sure"], rows))


def _free_name(name: str) -> Path:
    """Return a name in this folder that nothing has yet: a photo may be called like our picture."""
    first = Path(name)
    numbers = itertools.count(2)
    place = first
    while place.exists():
        place = first.with_stem(f"{first.stem}-{next(numbers)}")
    return place


def _tell(result: SearchResult) -> None:
    rows = [
        [
            str(hit.rank),
            f"{hit.similarity:.3f}",
            hit.person.image,
            _xywh(hit.person.box),
            "the query itself" if hit.person.is_seen_as(result.query) else "",
        ]
        for hit in result.hits
    ]
    say(table(["rank", "similarity", "image", "x,y,w,h", ""], rows))
    note(f"{result.searched:,} people in {result.images:,} images, {result.method}, {1000 * result.seconds:.0f} ms")


def _draw(args: argparse.Namespace, gallery: Gallery, result: SearchResult, photo: Image) -> None:
    if args.picture is not None:
        from pretrainps.gallery.view.picture import result_picture

        save_picture(result_picture(gallery, result, query_image=photo), args.picture)
        note(f"wrote {args.picture}")
    if args.report is not None:
        from pretrainps.gallery.view.report import write_report

        title = f"Who is on {result.query.image}?"
        write_report(gallery, [result], args.report.expanduser(), title=title, query_images={result.query.image: photo})
        note(f"wrote {args.report}: open it in a browser")


def _box(text: str) -> Box:
    """Return left, top, width, height as corners."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not left,top,width,height, such as 310,80,85,250") from error
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: width and height must be above 0")
    return x, y, x + width, y + height


def _xywh(box: Box) -> str:
    return ",".join(f"{value:.0f}" for value in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
