"""`evaluate`: a model on a data set, by a protocol that has a name."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrainps.cli.loading import add_loading_options, add_settings_option, settings_of
from pretrainps.cli.output import note, picture_file, save_picture, say, say_json
from pretrainps.errors import ArgumentError

if TYPE_CHECKING:
    from pretrainps.data.layout import Layout
    from pretrainps.data.records import SearchSet
    from pretrainps.evaluation.miss_rate import Variant
    from pretrainps.evaluation.protocols import SearchProtocol
    from pretrainps.inference.detections import Detections
    from pretrainps.inference.extraction import Extractor

_ANSWERS = 8
_PROTOCOL_OF = {"cuhk_sysu": "cuhk-sysu", "prw": "prw", "posetrack21": "posetrack21", "movienet_ps": "movienet-ps"}
"""The protocol that papers use on a layout; all others are searched frame by frame."""
_IGNORED_FROM = {"posetrack21": 0.1}
"""The overlap from which a layout's own code leaves out wrong detections on regions to ignore."""
_FOR = {
    "protocol": "search",
    "gallery": "search",
    "cbgm": "search",
    "annotated_boxes": "search",
    "sheet": "search",
    "split": "detection",
}
"""What options are of use to."""
_MISS_RATE_OF: dict[str, tuple[Variant, str]] = {
    "citypersons": ("citypersons", "reasonable"),
    "eurocity_persons": ("eurocity", "reasonable"),
}
"""The miss rate that belongs to a layout; all others have CrowdHuman's."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a data set, by the field's protocols",
        description="Run a model over a data set and print the numbers that papers print, with the protocol in words. On "
        "a data set for person search: mAP, top-1, 5, 10, and how well everyone is detected; for detection: average precisions "
        "and miss rate; for re-ID: mAP, CMC and mINP. What was computed is kept, by the model's hash and the data's, so an "
        "interrupted run goes on, and another protocol on the same features takes seconds.",
        epilog="example: pretrainps evaluate seqnet-resnet50-prw --data PRW-v16.04.20 --cbgm --sheet worst.png",
    )
    parser.add_argument("model", help="a registered name, file:PATH or hf:owner/repo[@REVISION]: a detector, or a backbone")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the data set's folder")
    parser.add_argument("--layout", help="what the data set is, if it is not recognized")
    parser.add_argument("--split", default=None, help="detection: which split (default: the last)")
    parser.add_argument(
        "--protocol", help="how a search is judged: prw, prw-cross-camera, cuhk-sysu, ... (default: the layout's)"
    )
    parser.add_argument("--gallery", help="size of each query's gallery on CUHK-SYSU: 50 to 4000, or full")
    parser.add_argument("--cbgm", action="store_true", help="context matching, with SeqNet's numbers for the data set")
    parser.add_argument(
        "--annotated-boxes", action="store_true", help="gallery people as annotated instead of detected: an upper bound"
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
    from pretrainps.data.layouts import layout_named, recognize_layout

    if args.sheet is not None:
        args.sheet = picture_file(args.sheet)
    layout = layout_named(args.layout) if args.layout else recognize_layout(args.data)
    for option, task in _FOR.items():
        if getattr(args, option) and layout.task != task:
            raise ArgumentError(f"--{option.replace('_', '-')} is for {task}; {layout.title} is for {layout.task}.")
    results = {"search": _search, "detection": _detection, "reid": _reid}[layout.task](args, layout)
    if args.json:
        say_json({"model": args.model, "data": str(args.data), "layout": layout.name, **results})
    else:
        for name, numbers in results.items():
            say(f"{name}: {numbers['protocol']}")
            say("  " + "  ".join(f"{key} {value:.4f}" for key, value in numbers.items() if isinstance(value, float)))
            counts = {
                key.removeprefix("num_").replace("_", " "): value for key, value in numbers.items() if isinstance(value, int)
            }
            say("  " + ", ".join(f"{value:,} {key}" for key, value in counts.items()))
    return 0


def _protocol(args: argparse.Namespace, layout: Layout, search_set: SearchSet) -> SearchProtocol:
    from pretrainps.evaluation import protocols

    found = protocols.protocol(args.protocol or _PROTOCOL_OF.get(layout.name, "frames"))
    if args.gallery is not None:
        if args.gallery != "full" and not args.gallery.isdecimal():
            raise ArgumentError(f"--gallery is a size or 'full', not {args.gallery!r}.")
        found = replace(found, gallery="full" if args.gallery == "full" else int(args.gallery))
    elif args.protocol is None and search_set.lists and found.gallery not in search_set.lists:
        found = replace(found, gallery=min(search_set.lists))
        note(f"note: there are no lists of the usual size; those of {found.gallery} images are taken")
    if args.cbgm and found.context is None:
        context = protocols.CUHK_CONTEXT if layout.name in ("cuhk_sysu", "movienet_ps") else protocols.PRW_CONTEXT
        found = replace(found, name=f"{found.name}-cbgm", context=context)
    return found


def _extractor(args: argparse.Namespace, *, detects: bool) -> Extractor:
    from pretrainps.detectors import PersonSearchDetector
    from pretrainps.download.cache import default_root
    from pretrainps.heads import CropModel
    from pretrainps.hub.load import load
    from pretrainps.inference.extraction import Extractor

    where: dict[str, Any] = {"device": args.device, "offline": args.offline, "progress": not args.quiet}
    model = load(args.model, config=settings_of(args), **where)
    if not isinstance(model, PersonSearchDetector | CropModel):
        model = load(args.model, head="embedding", **where)
    if not args.quiet:
        note(str(model.load_report))
    if isinstance(model, CropModel) and detects:
        raise ArgumentError(f"{args.model} embeds crops and detects nobody. Use a detector, or --annotated-boxes.")
    assert isinstance(model, PersonSearchDetector | CropModel)
    folder = None if args.keep_nothing else (args.features or default_root() / "features").expanduser()
    return Extractor(
        model,
        folder=folder,
        batch_size=args.batch_size,
        precision=args.precision,
        on_damage="skip" if args.skip_damaged else "stop",
        progress=not args.quiet,
    )


def _tell_threshold(table: Detections, what: str, min_score: float) -> None:
    """Say that the detector keeps less than a protocol takes, and how to measure by it."""
    if table.kept_above is not None and table.kept_above > min_score:
        taken = f"of score {min_score:g} and above" if min_score > 0 else "of any score"
        note(
            f"note: {what}: detections {taken} take part, but the detector keeps only those above {table.kept_above:g}. "
            f"To have all: --set score_threshold={min_score:g}"
        )


def _search(args: argparse.Namespace, layout: Layout) -> dict[str, Any]:
    from pretrainps.evaluation import evaluate_detection, evaluate_search, report, require_suitable
    from pretrainps.evaluation.ranking_sheet import ranking_sheet

    search_set = layout.read_search(args.data, force=args.force)
    protocol = _protocol(args, layout, search_set)
    require_suitable(search_set, protocol)
    extractor = _extractor(args, detects=not args.annotated_boxes or protocol.context is not None)
    table = (extractor.annotated if args.annotated_boxes else extractor.detections)(search_set.gallery)
    if not args.annotated_boxes:
        _tell_threshold(table, protocol.name, protocol.min_score)
    asks_with_boxes = protocol.query == "annotated_box"
    result = evaluate_search(
        search_set,
        table,
        protocol,
        query_embeddings=extractor.queries(search_set) if asks_with_boxes else None,
        query_detections=extractor.contexts(search_set) if asks_with_boxes and protocol.context is not None else None,
        ranking=_ANSWERS if args.sheet is not None else 0,
    )
    if args.sheet is not None:
        save_picture(ranking_sheet(search_set, table, result, answers=_ANSWERS), args.sheet)
        note(f"wrote {args.sheet}: the worst queries, and what was answered")
    found = {"search": report(result)}
    if not args.annotated_boxes:
        ignored = _IGNORED_FROM.get(layout.name)
        found["detection"] = report(evaluate_detection(search_set.gallery, table, ignore_iou=ignored))
    return found


def _detection(args: argparse.Namespace, layout: Layout) -> dict[str, Any]:
    from pretrainps.evaluation import evaluate_coco, evaluate_detection, evaluate_miss_rate, report

    split = layout.read(args.data, args.split or layout.main_splits[-1], force=args.force)
    split = split.with_sizes(skip_unreadable=args.skip_damaged)
    table = _extractor(args, detects=True).detections(split)
    _tell_threshold(table, "average precision and miss rate", 0.0)
    variant, setup = _MISS_RATE_OF.get(layout.name, ("crowdhuman", "all"))
    return {
        "coco": report(evaluate_coco(split, table)),
        "miss rate": report(evaluate_miss_rate(split, table, variant=variant, setup=setup)),
        "person search's": report(evaluate_detection(split, table)),
    }


def _reid(args: argparse.Namespace, layout: Layout) -> dict[str, Any]:
    from pretrainps.data.batching import identities_of
    from pretrainps.evaluation import evaluate_reid, report

    query, gallery = (layout.read(args.data, part, force=args.force) for part in ("query", "gallery"))
    extractor = _extractor(args, detects=False)
    cameras = [[sample.camera for sample in part.samples] for part in (query, gallery)]
    unknown = (cameras[0] + cameras[1]).count(None)
    if 0 < unknown < len(query) + len(gallery):
        note(f"note: the camera of {unknown} images is not known, so nobody's own camera is left out")
    sides: list[Any] = []
    for part, places in zip((query, gallery), cameras, strict=True):
        sides += [extractor.crops(part), identities_of(part), None if unknown else places]
    return {"re-ID": report(evaluate_reid(*sides))}
