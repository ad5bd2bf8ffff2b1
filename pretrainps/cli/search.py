"""`search`: a person in a photo, and where else in a gallery they are."""

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
    from pretrainps.gallery import Box, Detection, Gallery, SearchResult

_NUMBERED = "people.png"
"""Where the people in the photo are drawn with numbers, unless --numbered says another place."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "search",
        help="find a person of a photo in a gallery made by `index`",
        description="Find where else a person is. Without --box or --person, the people in the photo are detected. If there "
        f"are several, they are drawn with numbers, into {_NUMBERED} or where --numbered says, and you choose one by --person. "
        "A person of the gallery is named by the id that answers have, such as party.jpg#2. Then no photo is needed.",
        epilog="example: pretrainps search photos.gallery --query party.jpg --person 2 --report found.html",
    )
    parser.add_argument("gallery", help="a gallery's folder, or the URL of a gallery in another store")
    parser.add_argument("--query", type=Path, metavar="PHOTO", help="a photo with the person in it")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--box", type=_box, metavar="X,Y,W,H", help="where they are, in pixels of the upright photo")
    who.add_argument(
        "--person",
        type=_person_name,
        metavar="N|IMAGE#N",
        help="the number of the person in the photo, from left to right; or the id of a person in the gallery",
    )
    parser.add_argument("--numbered", type=Path, metavar="OUT.png", help="draw the people in the photo with numbers")
    parser.add_argument("--top", type=int, default=10, help="answers (default: %(default)s)")
    parser.add_argument("--leave-own-image-out", action="store_true", help="no answers from the photo itself")
    parser.add_argument("--rerank", action="store_true", help="compare the people around them, too (context matching, CBGM)")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="draw the query and the answers in one picture")
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a page that works offline and on a phone")
    parser.add_argument("--images", type=Path, metavar="PLACE", help="where the gallery's images are now, if they were moved")
    parser.add_argument("--model", help="the detector that the gallery was made with (default: by its name then)")
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
    by_id = isinstance(args.person, str)
    if by_id and (args.query is not None or args.numbered is not None):
        raise ArgumentError(f"--person {args.person} is a person of the gallery: leave out --query and --numbered.")
    if not by_id and args.query is None:
        raise ArgumentError("say who is searched for: --query PHOTO, or --person IMAGE#N for a person of the gallery.")
    result, photo, gallery = _search_by_id(args) if by_id else _search_by_photo(args)
    if args.json:
        say_json(result.to_json())
    else:
        _tell(result)
    _draw(args, gallery, result, photo)
    return 0


def _search_by_id(args: argparse.Namespace) -> tuple[SearchResult, Image | None, Gallery]:
    """Search for a person of the gallery. No model is loaded; the photo is read only if it is drawn."""
    # imported after the checks, for torch takes seconds
    from pretrainps.gallery import Gallery

    gallery = Gallery.open(args.gallery, root=args.images, device=args.device)
    result = gallery.search(
        detection=args.person, top=args.top, rerank=args.rerank, exclude_query_image=args.leave_own_image_out
    )
    drawn = args.picture is not None or args.report is not None
    return result, gallery.picture(result.query.image) if drawn else None, gallery


def _search_by_photo(args: argparse.Namespace) -> tuple[SearchResult, Image | None, Gallery]:
    args.query = args.query.expanduser()
    from pretrainps.images.read import read_image

    photo = read_image(args.query)
    # imported after the checks, for torch takes seconds
    from pretrainps.gallery import Gallery

    gallery = Gallery.open(args.gallery, root=args.images, device=args.device)
    model = _model(args, gallery)
    result = gallery.search(
        model,
        photo,
        args.box if args.box is not None else _person(args, model, photo).box,
        top=args.top,
        rerank=args.rerank,
        query_name=gallery.name_for(args.query),
        exclude_query_image=args.leave_own_image_out,
    )
    return result, photo, gallery


def _model(args: argparse.Namespace, gallery: Gallery) -> PersonSearchDetector[Any]:
    remedy = "Say by --model which detector the gallery was made with."
    return load_detector(args.model or gallery.model_name, args, remedy=remedy, report=args.model is not None)


def _person(args: argparse.Namespace, model: PersonSearchDetector[Any], photo: Image) -> Detection:
    """Return the only person in the photo, or the chosen one. If it is not clear who is meant, show all people first."""
    from pretrainps.gallery.query_selection import choose, detect

    found = detect(model, photo, name=args.query.name)
    unclear = args.person is None and len(found) > 1
    if unclear or args.numbered is not None:
        _show_numbered(args, photo, found, listed=unclear)
    return choose(found, args.person)


def _show_numbered(args: argparse.Namespace, photo: Image, found: Sequence[Detection], *, listed: bool) -> None:
    from pretrainps.gallery.query_selection import numbered_picture

    place = args.numbered or _free_name(_NUMBERED)
    save_picture(numbered_picture(photo, found), place)
    note(f"wrote {place}: the people in {args.query.name}, numbered")
    if listed and args.json:
        say_json({"people": [{"number": each.number, **each.to_json()} for each in found]})
    elif listed:
        rows = [[str(each.number), _xywh(each.box), f"{each.score:.2f}"] for each in found]
        say(table(["person", "x,y,w,h", "sure"], rows))


def _free_name(name: str) -> Path:
    """Return a name in this folder that is free: a photo may have the name of our picture."""
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
            hit.detection.id or hit.detection.image,
            _xywh(hit.detection.box),
            "the query itself" if hit.detection.is_seen_as(result.query) else "",
        ]
        for hit in result.hits
    ]
    say(table(["rank", "similarity", "person", "x,y,w,h", ""], rows))
    note(f"{result.searched:,} people in {result.images:,} images, {result.method}, {1000 * result.seconds:.0f} ms")


def _draw(args: argparse.Namespace, gallery: Gallery, result: SearchResult, photo: Image | None) -> None:
    if photo is None:
        return
    if args.picture is not None:
        from pretrainps.gallery.view.picture import result_picture

        save_picture(result_picture(gallery, result, query_image=photo), args.picture)
        note(f"wrote {args.picture}")
    if args.report is not None:
        from pretrainps.gallery.view.report import write_report

        title = f"Who is in {result.query.image}?"
        write_report(gallery, [result], args.report.expanduser(), title=title, query_images={result.query.image: photo})
        note(f"wrote {args.report}: open it in a browser")


def _person_name(text: str) -> int | str:
    """Return a number, or the id of a detection as it is."""
    if "#" in text:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor an id such as party.jpg#2") from error


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
