"""Files that are damaged, cut off or made up: each is read, or refused with an error of ours that says which file it is.

The examples are the same each time, and few; what thousands of others once found stands beside them as a case of its own.
"""

from __future__ import annotations

import bz2
import contextlib
import copy
import gzip
import importlib
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.data.layout import Layout
from pretrainps.data.layouts import LAYOUTS, layout_named
from pretrainps.data.matlab import cell_array, load_matlab, save_matlab, struct_array
from pretrainps.data.records import Split
from pretrainps.errors import ArgumentError, CheckpointFormatError, DatasetError, PretrainPSError, RegistryError
from pretrainps.files import WEIGHTS
from pretrainps.hub.build import build_detector
from pretrainps.hub.publish import save_pretrained
from pretrainps.inference.detections import Detections
from pretrainps.inference.feature_cache import FeatureCache
from pretrainps.registry.parse import read_registry
from pretrainps.registry.specs import ASSUMED_INPUT, Licence, LocalSource, ModelSpec, Provenance
from pretrainps.weights import read_object, read_tensors, write_safetensors
from pretrainps.weights.inspect import inspect
from pretrainps.weights.recognize import recognize
from tests.support.miniatures import (
    citypersons,
    coco_persons,
    coco_search,
    crowdhuman,
    cuhk03_np,
    cuhk_sysu,
    eurocity_persons,
    identity_folders,
    market1501,
    movienet_ps,
    msmt17,
    posetrack21,
    prw,
    widerperson,
)
from tests.support.miniatures.pictures import write_blank
from tests.support.weights import torch_bytes

scipy_io: Any = importlib.import_module("scipy.io")
few = partial(settings, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = (
    b"\x00",
    b"-",
    b"\n",
    b"/",
    b"nan",
    b"1e999",
    b"9" * 20,
    b"9" * 5000,
    b"\xff\xfe",
    b"\xd9\xa3",  # a digit, of Arabic
    b"[" * 50_000,
    *(struct.pack("<I", number) for number in (0, 9, 14, 19, 2**31 - 1, 2**31, 2**32 - 1)),
    *(struct.pack("<Q", number) for number in (2**31, 2**40, 2**63, 2**64 - 1)),
    *(opcode + struct.pack("<Q", 2**40) for opcode in (b"\x8d", b"\x8e", b"\x96")),  # text and bytes of a terabyte
    b"X\xff\xff\xff\x7f",
    b"c__builtin__\neval\n",
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "put", "over", "repeat"]), st.integers(0, 1 << 20), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)
"""What is done to bytes, where, and with what."""

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1.5, 1e300, 10**9, 2**31, 2**63, 10**30, 10**400, float("nan"), float("inf")),
    *("", "x", "1", "²", "-0", "\x00", "a\x00/b.jpg", "../x", "\ud800", "x" * 300 + "/b.jpg", "9" * 5000),
    *([], {}, [[]], [None], ["a"], [{}], [[1, 2], [3]], [1, 2, 3, 4], [1e300] * 4, {"a": 1}),
)
"""Values that a JSON file may hold where others are meant."""


def edited(raw: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    body = bytearray(raw)
    for what, place, value in edits:
        place %= len(body) + 1
        piece = PIECES[value % len(PIECES)]
        if what == "flip" and place < len(body):
            body[place] ^= 1 << value % 8
        elif what == "set":
            body[place : place + 1] = bytes([value])
        elif what == "cut":
            del body[place:]
        elif what == "drop":
            del body[place : place + value % 20]
        elif what == "put":
            body[place:place] = piece
        elif what == "over":
            body[place : place + len(piece)] = piece
        elif what == "repeat":
            body[place:place] = body[: value % 40]
    return bytes(body)


def places_in(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to everything in a JSON value but the value itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*here, key)
        yield from places_in(each, (*here, key))


def changed(value: Any, place: int, new: Any) -> Any:
    """Return a JSON value with another one somewhere; Ellipsis takes the old one out."""
    value = copy.deepcopy(value)
    places = list(places_in(value))
    if not places:
        return new if new is not ... else None
    *outer, last = places[place % len(places)]
    inner = value
    for key in outer:
        inner = inner[key]
    if new is ...:
        del inner[last]
    else:
        inner[last] = new
    return value


NEW = st.sampled_from((*ODD, ...))


# ---- weight files

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(5), "empty": torch.zeros(0, 3)}


def archived(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return stream.getvalue()


def members(raw: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("x" * 150)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


def safetensors(header: object, body: bytes = b"") -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


ZIP = torch_bytes({"state_dict": TENSORS, "epoch": 3})
ODDITIES = {
    "odd": [1.5, None, (1, 2), {3}, b"x", 1j],
    "p": torch.nn.Parameter(torch.ones(2)),
    "sparse": torch.eye(2).to_sparse(),
}
FILES: dict[str, bytes] = {
    "zip": ZIP,
    "zip of oddities": torch_bytes({**TENSORS, **ODDITIES, "o": OrderedDict(a=torch.float32, b=torch.Size([1]))}),
    "legacy": torch_bytes({"state_dict": TENSORS, "epoch": 3}, legacy=True),
    "legacy of oddities": torch_bytes({**TENSORS, **ODDITIES}, legacy=True),
    "zip, deflated": archived(members(ZIP), zipfile.ZIP_DEFLATED),
    "zip, bz2": archived(members(ZIP), zipfile.ZIP_BZIP2),
    "zip, lzma": archived(members(ZIP), zipfile.ZIP_LZMA),
    **{f"pickle {protocol}": pickle.dumps({"a": [1, 2.5, "x", b"y", 10**30, {3}]}, protocol) for protocol in range(6)},
    "tar": tarred(),
    "tar, gz": gzip.compress(tarred(), mtime=0),
    "tar, bz2": bz2.compress(tarred()),
    "tar, xz": lzma.compress(tarred()),
    "json": b'{"a": [1, 2, 3]}',
    "web page": b"<!doctype html><html></html>",
}


def judge(path: Path) -> None:
    """See that a file is described, and read or refused by name."""
    seen = inspect(path)
    assert str(seen) and json.dumps(seen.to_json())
    for read in (read_tensors, partial(read_tensors, wrapper=("state_dict",)), partial(read_object, mapped=False)):
        try:
            read(path)
        except PretrainPSError as error:
            assert str(path) in str(error)


@few(max_examples=160)
@given(kind=st.sampled_from(sorted(FILES)), edits=EDITS)
def test_damaged_weight_files(tmp_path: Path, kind: str, edits: list[tuple[str, int, int]]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(edited(FILES[kind], edits))
    judge(path)


@few(max_examples=60)
@given(kind=st.sampled_from(["zip", "zip of oddities"]), edits=EDITS)
def test_damaged_pickles_in_whole_archives(tmp_path: Path, kind: str, edits: list[tuple[str, int, int]]) -> None:
    inside = members(FILES[kind])
    pickled = next(name for name in inside if name.endswith("data.pkl"))
    path = tmp_path / "weights"
    path.write_bytes(archived({**inside, pickled: edited(inside[pickled], edits)}))
    judge(path)


@few(max_examples=80)
@given(place=st.integers(0, 99), new=NEW, more=st.integers(0, 99), newer=NEW)
def test_made_up_headers(tmp_path: Path, place: int, new: Any, more: int, newer: Any) -> None:
    path = tmp_path / "weights"
    write_safetensors(TENSORS, path, {"config": {"name": "x"}})
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = changed(changed(json.loads(raw[8 : 8 + length]), place, new), more, newer)
    path.write_bytes(safetensors(header, raw[8 + length :]))
    judge(path)


def long_name() -> bytes:
    """A tar archive of before POSIX whose first name is said to be 32 TB long."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**45
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[257:265], head[148:156] = bytes(8), b" " * 8  # the word "ustar", and the checksum, which counts as blanks
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head) + bytes(512)


def version_64(raw: bytes) -> bytes:
    """An archive that says it needs a later version of the format than there is."""
    place = raw.index(b"PK\x01\x02") + 6
    return raw[:place] + b"\x40" + raw[place + 1 :]


def of_many_disks(raw: bytes) -> bytes:
    """An archive whose end says that it goes on on other disks."""
    place = raw.index(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 7)
    return raw[:place] + locator + raw[place:]


def broken_inside(raw: bytes) -> bytes:
    """An archive whose compressed pickle is damaged."""
    place = raw.index(b"data.pkl") + 30
    return raw[:place] + bytes(20) + raw[place + 20 :]


def with_pickle(body: bytes) -> bytes:
    inside = members(ZIP)
    return archived({name: body if name.endswith("data.pkl") else each for name, each in inside.items()})


CRAFTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "an archive of a version to come": (lambda: version_64(ZIP), "damaged"),
    "an archive of many disks": (lambda: of_many_disks(ZIP), "damaged"),
    "compressed members": (lambda: FILES["zip, deflated"], "is compressed, which torch.save never does"),
    "a damaged bz2 member": (lambda: broken_inside(FILES["zip, bz2"]), "compressed"),
    "a damaged lzma member": (lambda: broken_inside(FILES["zip, lzma"]), "compressed"),
    "half a gzip file": (lambda: FILES["tar, gz"][:30], "neither safetensors nor"),
    "a tar archive of a long name": (long_name, "it is a tar archive"),
    "text of a terabyte": (lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".", "damaged"),
    "bytes of a terabyte": (lambda: FILES["legacy"][:40] + b"\x8e" + struct.pack("<Q", 2**40), "encoding"),
    "a bytearray of any size": (
        lambda: with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + b"\x10" * 8 + b"\x85R."),
        "bytearray",
    ),
    "a name that would be searched for minutes": (
        lambda: with_pickle(b"\x80\x02ctorch\nSiz" + b"[" * 150_000 + b"\n)R."),
        "longer than any that Python imports",
    ),
    "a shape beyond numbers": (
        lambda: safetensors({"conv1.weight": {"dtype": "F32", "shape": [2**47, 2**47, 2**47, 0], "data_offsets": [0, 0]}}),
        "has a shape that no tensor can have",
    ),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_weight_files_that_once_were_too_much(tmp_path: Path, case: str) -> None:
    content, words = CRAFTED[case]
    path = tmp_path / "weights"
    path.write_bytes(content())
    judge(path)
    assert words in (inspect(path).problem or "")


def test_dictionaries_in_themselves_are_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    found: dict[str, Any] = {"w": torch.ones(1)}
    found.update((f"k{key}", found) for key in range(300))
    path.write_bytes(torch_bytes(found))
    assert inspect(path).other_wrappers == () and inspect(path).shapes == {"w": (1,)}


def test_tensors_without_sizes_or_values_are_none(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    for value in (ragged, torch.empty(3, device="meta")):
        path.write_bytes(torch_bytes({"a": value, "b": torch.ones(2)}))
        judge(path)
        with pytest.raises(CheckpointFormatError, match=r"1 entries are no plain tensors \(a\)"):
            read_tensors(path)


@pytest.mark.parametrize("notes", ["[" * 100_000, "9" * 5000, "null", '{"config": {"name": "\\ud800"}}'])
def test_made_up_notes(tmp_path: Path, notes: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(safetensors({"__metadata__": {"pretrainps": notes}}))
    judge(path)


@few(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 999), st.lists(st.integers(0, 5), max_size=6)), min_size=1, max_size=4))
def test_shapes_of_an_architecture_but_for_some(edits: list[tuple[int, list[int]]]) -> None:
    shapes = {key: tuple(value.shape) for key, value in build_backbone("resnet_tiny", empty=True).state_dict().items()}
    whole = recognize(shapes)
    for place, shape in edits:
        shapes[sorted(shapes)[place % len(shapes)]] = tuple(shape)
    found = recognize(shapes)
    assert found is None or (whole is not None and found.matched <= whole.matched)


# ---- data sets


def duke(root: Path) -> None:
    for folder in ("bounding_box_train", "bounding_box_test", "query"):
        write_blank([root / folder / "0001_c2_f0046182.jpg"])


MINIATURES: dict[str, Callable[[Path], object]] = {
    "citypersons": citypersons.write_miniature,
    "coco_persons": coco_persons.write_miniature,
    "coco_search": coco_search.write_miniature,
    "crowdhuman": crowdhuman.write_miniature,
    "cuhk03_np": cuhk03_np.write_miniature,
    "cuhk_sysu": cuhk_sysu.write_miniature,
    "dukemtmc": duke,
    "eurocity_persons": eurocity_persons.write_miniature,
    "identity_folders": identity_folders.write_miniature,
    "market1501": market1501.write_miniature,
    "movienet_ps": movienet_ps.write_miniature,
    "msmt17": msmt17.write_miniature,
    "posetrack21": posetrack21.write_miniature,
    "prw": prw.write_miniature,
    "widerperson": widerperson.write_miniature,
}


def require_sane(split: Split) -> None:
    """What is read can be computed with, whatever was in the file."""
    for sample in split.samples:
        assert sample.boxes.shape == (len(sample.ids), 4)
        for boxes in (sample.ignore, sample.visible, sample.boxes if split.task != "reid" else None):
            assert boxes is None or np.isfinite(boxes).all()
        assert sample.size is None or min(sample.size) > 0
        assert sample.camera is None or -(2**63) <= sample.camera < 2**63


def read_everything(layout: Layout, root: Path) -> list[str]:
    """Read every split and search set, and return what was said of those that cannot be."""
    complaints = []
    for split in layout.splits:
        try:
            require_sane(layout.read(root, split, force=True))
        except PretrainPSError as error:
            complaints.append(str(error))
    if layout.read_search_set is not None:
        try:
            found = layout.read_search(root)
            require_sane(found.gallery)
            assert all(np.isfinite(query.box).all() and query.id < len(found.gallery.identities) for query in found.queries)
            assert all(len(found.lists[size]) == len(found.queries) for size in found.lists)
        except PretrainPSError as error:
            complaints.append(str(error))
    assert all(str(root) in complaint for complaint in complaints), complaints
    return complaints


MATLAB_ODD: tuple[Any, ...] = (
    *(np.full(shape, value) for shape in ((1, 1), (1, 4), (3, 5), (2, 10)) for value in (np.nan, np.inf, 1e300, -1e19)),
    *(np.array([[text]]) for text in ("x", "", "../x", "x" * 300 + "/y")),
    *(
        np.zeros((0, 0)),
        np.array([[1 + 2j]]),
        np.ones((2, 2, 2)),
        np.array([[2**64 - 1]], dtype=np.uint64),
        np.array(["a", "bc"]),
    ),
    *(cell_array([]), cell_array([np.ones((1, 4)), "x"]), struct_array(("a", "b"), [("x", np.ones(3)), ("y", np.ones(2))])),
)
"""Values that a MATLAB file may hold where others are meant."""


def matlab_places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, np.ndarray) and (value.dtype == object or value.dtype.names):
        for index in np.ndindex(value.shape):
            for key in value.dtype.names or (None,):
                step = (*here, (index, key))
                yield step
                yield from matlab_places(value[index] if key is None else value[index][key], step)


def changed_matlab(raw: bytes, place: int, new: Any, packed: bool) -> bytes:
    variables = {name: value for name, value in scipy_io.loadmat(io.BytesIO(raw)).items() if not name.startswith("__")}
    name = sorted(variables)[place % len(variables)]
    places = list(matlab_places(variables[name]))
    if not places or place % 7 == 0:
        variables[name] = new
    else:
        *outer, (index, key) = places[place % len(places)]
        inner = variables[name]
        for step, field in outer:
            inner = inner[step] if field is None else inner[step][field]
        if key is None:
            inner[index] = new
        else:
            inner[index][key] = new
    stream = io.BytesIO()
    scipy_io.savemat(stream, variables, do_compression=packed)
    return stream.getvalue()


def damaged_annotation(path: Path, place: int, new: int, edits: list[tuple[str, int, int]], inside: bool) -> bytes:
    """Change a value of an annotation file, or its bytes."""
    raw = path.read_bytes()
    if not inside:
        return edited(raw, edits)
    value = ODD[new % len(ODD)] if new % 5 else ...
    if path.suffix == ".mat":
        return changed_matlab(raw, place, MATLAB_ODD[new % len(MATLAB_ODD)], bool(place % 2))
    if path.suffix == ".json":
        return json.dumps(changed(json.loads(raw), place, value)).encode()
    if path.suffix == ".odgt":
        lines = raw.decode().splitlines()
        line = place % len(lines)
        lines[line] = json.dumps(changed(json.loads(lines[line]), place, value))
        return "\n".join(lines).encode()
    words = raw.decode().split(" ")
    words[place % len(words)] = PIECES[new % 11].decode("latin1")[:6000]
    return " ".join(words).encode()


def test_every_layout_is_tried() -> None:
    assert sorted(MINIATURES) == sorted(layout.name for layout in LAYOUTS)


@pytest.mark.parametrize("name", MINIATURES)
def test_damaged_data_sets(tmp_path: Path, name: str) -> None:
    layout = layout_named(name)
    MINIATURES[name](tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    annotations = [path for path in files if path.suffix in (".mat", ".json", ".odgt", ".txt") and path.name != "notes.txt"]
    before = read_everything(layout, tmp_path)

    @few(max_examples=30 if annotations else 8)
    @given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(0, 255), EDITS, st.booleans(), st.booleans())
    def damage(which: int, place: int, new: int, edits: list[tuple[str, int, int]], inside: bool, rename: bool) -> None:
        path = (annotations or files)[which % len(annotations or files)]
        if not annotations or (rename and which % 8 == 0):
            other = path.with_name(["x" + path.name, path.stem, "²_c1s1.jpg", f"1_c{'9' * 40}s1.jpg", "_c².jpg"][place % 5])
            path.rename(other)
            try:
                read_everything(layout, tmp_path)
            finally:
                other.rename(path)
            return
        raw = path.read_bytes()
        try:
            path.write_bytes(damaged_annotation(path, place, new, edits, inside))
            read_everything(layout, tmp_path)
        finally:
            path.write_bytes(raw)

    damage()
    assert read_everything(layout, tmp_path) == before, "the miniature was put together again"


def in_json(file: str, *keys: Any, value: Any) -> tuple[str, Callable[[Path], None]]:
    def change(path: Path) -> None:
        content = inner = json.loads(path.read_bytes())
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(content))

    return file, change


def in_text(file: str, old: str, new: str) -> tuple[str, Callable[[Path], None]]:
    def change(path: Path) -> None:
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new, 1).encode())

    return file, change


def in_matlab(file: str, variable: str, value: Any) -> tuple[str, Callable[[Path], None]]:
    return file, lambda path: save_matlab(path, variable, np.asarray(value))


def city(rows: Any) -> Any:
    return cell_array(
        [struct_array(("cityname", "im_name", "bbs"), [("munster", "munster_000000_000007_leftImg8bit.png", rows)])]
    )


FAR_OUT: dict[str, tuple[str, str, tuple[str, Callable[[Path], None]], str]] = {
    "a picture without height": (
        "coco_search",
        "test",
        in_json("annotations/test.json", "images", 0, "height", value=0),
        "pixels",
    ),
    "a folder with a zero byte": (
        "coco_search",
        "test",
        in_json("annotations/test.json", "images", 1, "file_name", value="a\x00/b.jpg"),
        "is missing",
    ),
    "a folder of a longer name than any": (
        "coco_search",
        "test",
        in_json("annotations/test.json", "images", 1, "file_name", value="x" * 300 + "/b.jpg"),
        "is missing",
    ),
    "a camera of a hundred digits": (
        "coco_search",
        "train",
        in_json("annotations/train.json", "images", 0, "camera", value=10**100),
        "'camera' must be a whole number",
    ),
    "a video of 5000 digits": (
        "posetrack21",
        "train",
        in_json("posetrack_person_search/train.json", "images", 0, "vid_id", value="9" * 5000),
        "'vid_id' must be a whole number",
    ),
    "a person of 5000 digits": (
        "msmt17",
        "train",
        in_text("list_train.txt", ".jpg 0", ".jpg " + "9" * 5000),
        "line 1: expected",
    ),
    "a corner of 400 digits": (
        "widerperson",
        "train",
        in_text("Annotations/000041.jpg.txt", " ", " " + "9" * 400),
        "in whole numbers, not",
    ),
    "a box far out": (
        "prw",
        "train",
        in_matlab("annotations/c1s1_000151.jpg.mat", "box_new", [[3, 1e300, 1, 2, 2]]),
        "row 1 is .* no box",
    ),
    "a query far out": ("prw", "search", in_text("query_info.txt", "20 1 2", "20 1e300 2"), "too far out"),
    "a box that is not finite": (
        "citypersons",
        "val",
        in_matlab("annotations/anno_val.mat", "anno_val_aligned", city([[1.0, np.nan] + [2] * 8])),
        "not finite",
    ),
    "a struct array in place of rows": (
        "citypersons",
        "val",
        in_matlab(
            "annotations/anno_val.mat", "anno_val_aligned", struct_array(("a", "b", "c"), [("x", np.ones(2), np.ones(3))] * 2)
        ),
        "cell 1: text is wanted",
    ),
}


@pytest.mark.parametrize("case", FAR_OUT)
def test_annotations_that_once_were_too_much(tmp_path: Path, case: str) -> None:
    name, split, (file, change), words = FAR_OUT[case]
    layout = layout_named(name)
    MINIATURES[name](tmp_path)
    change(tmp_path / file)
    with pytest.raises(DatasetError, match=words) as caught:
        layout.read_search(tmp_path) if split == "search" else layout.read(tmp_path, split)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("tags", [["occluded>40"], {}]), ("identity", []), ("identity", {"a": 1})])
def test_names_that_are_none_are_no_pedestrians(tmp_path: Path, field: str, value: object) -> None:
    """Whatever has a strange identity is ignored, as everything that is no pedestrian; a strange tag says nothing."""
    eurocity_persons.write_miniature(tmp_path)
    layout = layout_named("eurocity_persons")
    for path in sorted((tmp_path / "ECP").rglob("*.json")):
        content = json.loads(path.read_bytes())
        for child in content.get("children", []):
            if isinstance(child, dict) and child.get("identity") != "frame":
                child[field] = value
        path.write_text(json.dumps(content))
    assert len(layout.read(tmp_path, "train")) > 0


def test_damage_that_once_ended_the_process(tmp_path: Path) -> None:
    """A type that is in no table, an array without sides, cells in cells without end: scipy does not survive them."""
    path = tmp_path / "x.mat"
    deep: Any = np.ones((1, 4))
    for _ in range(40):
        deep = cell_array([deep])
    for value in (cell_array(["a.jpg", np.ones((1, 4))]), struct_array(("n", "b"), [("x", np.arange(4.0))])):
        scipy_io.savemat(path, {"other": np.ones(3), "v": value})
        raw = path.read_bytes()
        assert load_matlab(path, "v").size
        start = raw.index(b"v\x00\x00\x00", 128)
        for place in range(start, len(raw) - 4, 4):
            for number in (1, 15, 19, 2**32 - 1):
                path.write_bytes(raw[:place] + struct.pack("<I", number) + raw[place + 4 :])
                with contextlib.suppress(DatasetError):  # some numbers are values
                    load_matlab(path, "v")
    for packed in (False, True):
        scipy_io.savemat(path, {"v": deep}, do_compression=packed)
        with pytest.raises(DatasetError, match=r"x\.mat is damaged.*deep"):
            load_matlab(path, "v")


# ---- what this package wrote

SPEC = ModelSpec(
    name="x",
    title="x",
    arch="resnet_tiny",
    summary="s",
    input=ASSUMED_INPUT,
    licence=Licence(id="other", stated_in="nowhere"),
    provenance=Provenance(authors="a", paper="p", url="u"),
    sources=(LocalSource(path="x"),),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A backbone and a detector as `save_pretrained` writes them."""
    root = tmp_path_factory.mktemp("saved")
    sizes = {"queue_size": 2, "embedding_dim": 4, "anchor_sizes": [8, 16]}
    detector = build_detector("oim", backbone=build_backbone("resnet_tiny"), num_identities=3, config=sizes)
    return [save_pretrained(build_backbone("resnet_tiny"), root / "b", spec=SPEC), save_pretrained(detector, root / "d")]


@few(max_examples=60)
@given(
    which=st.integers(0, 1),
    place=st.integers(0, 999),
    new=NEW,
    edits=EDITS,
    how=st.sampled_from(["value", "value", "bytes", "header"]),
)
def test_damaged_saved_models(
    saved: list[Path], which: int, place: int, new: Any, edits: list[tuple[str, int, int]], how: str
) -> None:
    config, weights = saved[which] / "config.json", saved[which] / WEIGHTS
    before = config.read_bytes(), weights.read_bytes()
    name = f"file:{saved[which]}"
    try:
        if how == "value":
            config.write_text(json.dumps(changed(json.loads(before[0]), place, new)))
        elif how == "bytes":
            config.write_bytes(edited(before[0], edits))
        else:  # the configuration in the weights' own header
            length = struct.unpack("<Q", before[1][:8])[0]
            header = json.loads(before[1][8 : 8 + length])
            header["__metadata__"]["pretrainps"] = json.dumps(
                changed(json.loads(header["__metadata__"]["pretrainps"]), place, new)
            )
            weights.write_bytes(safetensors(header, before[1][8 + length :]))
            name = f"file:{weights}"
        with contextlib.suppress(PretrainPSError):  # much of a configuration is text for people
            pretrainps.load(name, progress=False, offline=True)
    finally:
        config.write_bytes(before[0])
        weights.write_bytes(before[1])


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("detector", "config", "num_identities"), 2**63),
        (("detector", "config", "queue_size"), 2**62),
        (("detector", "config", "oim_scalar"), 10**400),
        (("detector", "config", "anchor_sizes"), [10**400]),
        (("input", "scale"), 10**400),
        (("published_size",), 10**400),
    ],
    ids=lambda part: part[-1] if isinstance(part, tuple) else "",
)
def test_sizes_beyond_numbers(saved: list[Path], tmp_path: Path, keys: tuple[str, ...], value: object) -> None:
    document = json.loads((saved[1] / "config.json").read_bytes())
    inner = document["pretrainps"]["model"]
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(document))
    (tmp_path / WEIGHTS).write_bytes((saved[1] / WEIGHTS).read_bytes())
    with pytest.raises((ArgumentError, RegistryError)):
        pretrainps.load(f"file:{tmp_path}", progress=False)


TOML = """\
[models.x]
title = "t"
arch = "resnet18"
summary = "s"
input = { colour = "rgb", mean = [0, 0, 0], std = [1, 1, 1], status = "assumed", evidence = "e" }
licence = { id = "mit", stated_in = "x" }
provenance = { authors = "a", paper = "p", url = "u" }
sources = [{ kind = "hub", repo = "a/b", file = "c" }]
"""


@few(max_examples=60)
@given(edits=EDITS)
def test_damaged_registries(tmp_path: Path, edits: list[tuple[str, int, int]]) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(edited(TOML.encode(), edits))
    with contextlib.suppress(RegistryError):
        read_registry(path)


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "[" * 5000], ids=["400 digits", "5000 digits", "brackets"])
def test_registries_that_once_were_too_much(tmp_path: Path, number: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(TOML.replace("std = [1, ", f"std = [{number}, "))
    with pytest.raises(RegistryError, match=r"models\.toml"):
        read_registry(path)


FOUND = [
    {"boxes": np.ones((k, 4), np.float32), "scores": np.ones(k, np.float32), "embeddings": np.ones((k, 3), np.float32)}
    for k in (2, 0, 1)
]


def collected(folder: Path) -> Detections:
    found = FeatureCache(folder, progress=False).collect("detections", 3, lambda images: (FOUND[image] for image in images))
    return Detections.from_images([each for each in found if each is not None])


@few(max_examples=60)
@given(edits=EDITS)
def test_damaged_shards(tmp_path: Path, edits: list[tuple[str, int, int]]) -> None:
    collected(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(edited(path.read_bytes(), edits))
    with contextlib.suppress(PretrainPSError):
        assert collected(tmp_path).num_images == 3
    path.unlink()


@pytest.mark.parametrize(
    "counts", [[2, 0, 5], [-1, 3, 1], [1.5, 0, 1.5], [[2, 0, 1]], 3, [2**62, 2**62, 2**62], [2, 1]], ids=str
)
def test_shards_whose_counts_cannot_be_are_made_anew(tmp_path: Path, counts: Any) -> None:
    from safetensors.numpy import load, save

    wanted = collected(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(save({**load(path.read_bytes()), "counts": np.asarray(counts)}))
    assert np.array_equal(collected(tmp_path).counts, wanted.counts)
    assert np.array_equal(load(path.read_bytes())["counts"], wanted.counts)


def test_boxes_of_three_numbers() -> None:
    with pytest.raises(ArgumentError, match=r"image 0: boxes of shape \(2, 3\)"):
        Detections.from_images([{"boxes": np.ones((2, 3)), "scores": np.ones(2)}])
