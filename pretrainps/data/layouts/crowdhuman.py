"""CrowdHuman: photographs of crowds, each person with a whole box, a visible box and a head box.

Shao et al., "CrowdHuman: A Benchmark for Detecting Human in a Crowd", 2018. What is ignored follows the authors' own reader
(`data/CrowdHuman.py` of github.com/Purkialo/CrowdDet): annotations tagged as no person (`mask`), and those with `ignore` in
`extra`. `head_attr` is about the head alone. Both may lack any key, or be missing.
"""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.annotated import annotated, note_left_out
from pretrainps.data.json_files import Record, as_object, get_list, get_object, get_text, get_whole, get_xywh, read_json_lines
from pretrainps.data.layout import Counts, Layout
from pretrainps.data.listing import Listing
from pretrainps.data.records import Sample, Split, from_xywh
from pretrainps.errors import DatasetError


def _recognize(root: Path) -> bool:
    return any((root / f"annotation_{split}.odgt").is_file() for split in LAYOUT.splits)


def _read_split(root: Path, split: str) -> Split:
    path = LAYOUT.wants(root / f"annotation_{split}.odgt")
    folder = LAYOUT.wants(root / "Images")
    samples: dict[str, Sample] = {}
    empty = 0
    for where, record in read_json_lines(path):
        name = get_text(record, "ID", where=where)
        if name in samples:
            raise DatasetError(f"{where}: the ID {name!r} has come before. Each image has one line.")
        samples[name], without_area = _sample(name, folder, record, where)
        empty += without_area
    Listing().require([sample.image for sample in samples.values() if isinstance(sample.image, Path)], of=str(path))
    return Split(dataset=LAYOUT.name, name=split, task="detection", samples=list(samples.values()), notes=note_left_out(empty))


def _sample(name: str, folder: Path, record: Record, where: str) -> tuple[Sample, int]:
    whole, visible, is_person = [], [], []
    for number, entry in enumerate(get_list(record, "gtboxes", where=where), start=1):
        place = f"{where}, box {number}"
        person = as_object(entry, where=place)
        ignored = get_whole(get_object(person, "extra", where=place), "ignore", where=place, default=0) != 0
        is_person.append(get_text(person, "tag", where=place) == "person" and not ignored)
        whole.append(get_xywh(person, "fbox", where=place))
        visible.append(get_xywh(person, "vbox", where=place) if is_person[-1] else whole[-1])
    return annotated(
        name=name,
        image=folder / f"{name}.jpg",
        boxes=from_xywh(whole),
        is_person=is_person,
        visible=from_xywh(visible),
    )


LAYOUT = Layout(
    name="crowdhuman",
    title="CrowdHuman",
    task="detection",
    splits=("train", "val"),
    tree="""\
ROOT/Images/273271,c9db000d5146c15.jpg ...   (of CrowdHuman_train01.zip to 03 and CrowdHuman_val.zip)
ROOT/annotation_train.odgt
ROOT/annotation_val.odgt
""",
    recognize=_recognize,
    read_split=_read_split,
    counts={"train": Counts(images=15_000), "val": Counts(images=4_370)},
    terms="non-commercial research; the images may not be passed on (crowdhuman.org/download.html)",
)
