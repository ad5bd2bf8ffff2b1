"""EuroCity Persons: pedestrians and riders in 31 European cities, by day and by night.

Braun et al., "EuroCity Persons: A Novel Benchmark for Person Detection in Traffic Scenes", TPAMI 2019. As in its pedestrian
benchmark, most pedestrians are people. Regions to ignore are pedestrians who sit or lie, who are behind glass or are mere
pictures, and all riders and groups. Vehicles, which are children of their riders in the files, are background.

Two packings of a file exist besides the plain one; `_frame` unpacks them (`tools/ECPB/dataloader.py` of
github.com/hasanirtiza/Pedestron knows them too).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pretrainps.data.annotated import annotated, note_left_out
from pretrainps.data.json_files import Record, as_object, get_length, get_list, get_number, read_json
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing, unpacked
from pretrainps.data.records import Sample, Split, as_boxes
from pretrainps.errors import DatasetError

_VEHICLES = ("bicycle", "buggy", "motorbike", "scooter", "tricycle", "wheelchair")
BACKGROUND = frozenset(_VEHICLES) | {f"{vehicle}-group" for vehicle in _VEHICLES}
"""Values of `identity` that are no people."""
IGNORED_TAGS = frozenset({"sitting-lying", "behind-glass", "depiction"})
"""Tags of a pedestrian that make it a region to ignore."""
_TIMES = ("day", "night")


def _recognize(root: Path) -> bool:
    return any((unpacked(root, "ECP") / time / "labels").is_dir() for time in _TIMES)


def _read_split(root: Path, split: str) -> Split:
    first, _, second = split.partition("-")
    times, part = ((first,), second) if second else (_TIMES, first)
    root = unpacked(root, "ECP")
    found = [_annotated(path, image, root) for time in times for path, image in _files(root, time, part)]
    samples = [sample for sample, _ in found]
    empty = sum(without_area for _, without_area in found)
    return Split(dataset=LAYOUT.name, name=split, task="detection", samples=samples, notes=note_left_out(empty))


def _files(root: Path, time: str, part: str) -> list[tuple[Path, Path]]:
    """Return each annotation with its image; both must exist."""
    labels, images = (LAYOUT.wants(root / time / kind / part) for kind in ("labels", "img"))
    listing = Listing()
    annotations = sorted(labels.glob("*/*.json"))
    pairs = [(path, images / path.parent.name / f"{path.stem}.png") for path in annotations]
    listing.require([image for _, image in pairs], of=str(labels))
    pictures = sorted(images.glob("*/*.png"))
    listing.require([labels / image.parent.name / f"{image.stem}.json" for image in pictures], of=str(images))
    return pairs


def _annotated(path: Path, image: Path, root: Path) -> tuple[Sample, int]:
    frame = _frame(read_json(path), str(path))
    boxes, is_person = [], []
    for place, child in _descendants(frame, str(path)):
        identity = str(child.get("identity"))
        if identity not in BACKGROUND:
            boxes.append([get_number(child, corner, where=place) for corner in ("x0", "y0", "x1", "y1")])
            tags = get_list(child, "tags", where=place, default=[])
            is_person.append(identity == "pedestrian" and IGNORED_TAGS.isdisjoint(map(str, tags)))
    size = (get_length(frame, "imageheight", where=str(path)), get_length(frame, "imagewidth", where=str(path)))
    name = image.relative_to(root).as_posix()
    return annotated(name=name, image=image, boxes=as_boxes(boxes), is_person=is_person, size=size)


def _frame(content: Record, where: str) -> Record:
    """Return the object of the image itself, without any packing around it."""
    wrappings = 0
    while content.get("identity") != "frame":
        children = content.get("children")
        inner = children[0] if isinstance(children, list) and len(children) == 1 else children
        if not isinstance(inner, dict) or wrappings == 2:
            raise DatasetError(f"{where}: no object here has the identity 'frame'. Is it an annotation of EuroCity Persons?")
        content, wrappings = inner, wrappings + 1
    return content


def _descendants(frame: Record, where: str) -> Iterator[tuple[str, Record]]:
    """Yield all descendants of an object, at any depth, each with its location."""
    for number, entry in enumerate(get_list(frame, "children", where=where, default=[]), start=1):
        place = f"{where}, child {number}"
        child = as_object(entry, where=place)
        yield place, child
        yield from _descendants(child, place)


LAYOUT = Layout(
    name="eurocity_persons",
    title="EuroCity Persons",
    task="detection",
    splits=("train", "val", "day-train", "day-val", "night-train", "night-val"),
    main_splits=("train", "val"),
    tree="""\
ROOT/ECP/day/img/train/amsterdam/amsterdam_00018.png ...
ROOT/ECP/day/labels/train/amsterdam/amsterdam_00018.json ...
ROOT/ECP/day/{img,labels}/val/<city>/...
ROOT/ECP/night/{img,labels}/{train,val}/<city>/...
(the splits train and val are those of day and night together)
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={
        "train": Counts(images=23_892 + 4_222),
        "val": Counts(images=4_266 + 770),
        "day-train": Counts(images=23_892),
        "day-val": Counts(images=4_266),
        "night-train": Counts(images=4_222),
        "night-val": Counts(images=770),
    },
    terms="for scientific staff, not to be passed on; weights may be published for research, free of charge (Delft's licence)",
)
