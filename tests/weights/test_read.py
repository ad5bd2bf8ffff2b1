"""Every kind of file is read safely, or refused with the reason."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrainps.download.kinds import FileKind, kind_of, pickled_globals, safetensors_header
from pretrainps.errors import CheckpointFormatError, PretrainPSError
from pretrainps.weights import read_object, read_tensors, write_safetensors
from pretrainps.weights.inspect import inspect
from tests.support.weights import torch_bytes

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(5)}


class Malicious:
    """An object that runs a command when it is unpickled without protection."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(TENSORS) and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_torch_formats(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"state_dict": TENSORS}, legacy=legacy))
    assert kind_of(path) is (FileKind.TORCH_LEGACY if legacy else FileKind.TORCH_ZIP)
    assert same(read_tensors(path, ("state_dict",)))


def test_safetensors_needs_no_wrapper(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(TENSORS, path)
    assert {k: v.tolist() for k, v in read_tensors(path, ("state_dict",)).items()} == {
        k: v.tolist() for k, v in TENSORS.items()
    }


def test_training_checkpoints_with_options_and_counters(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    extras = {"args": argparse.Namespace(lr=0.1), "epoch": 3, "lr_scheduler": {"milestones": collections.Counter([16])}}
    path.write_bytes(torch_bytes({"teacher": TENSORS, **extras}))
    assert same(read_tensors(path, ("teacher",)))


def test_python_2_pickle(tmp_path: Path) -> None:
    """A legacy file with Python 2 byte strings, one of them not UTF-8."""
    body = torch_bytes({"model": TENSORS, "note": "PLACEHOLDER"}, legacy=True)
    text = b"X\x0b\x00\x00\x00PLACEHOLDER"
    assert text in body
    path = tmp_path / "w.pth"
    path.write_bytes(body.replace(text, b"U\x04caf\xe9"))  # SHORT_BINSTRING, latin-1
    found = read_object(path)
    assert found["note"] == "café"
    assert same(read_tensors(path, ("model",)))


@pytest.mark.parametrize("style", ["zip", "legacy", "plain pickle", "in the wrapper"])
def test_a_pickle_that_runs_a_command_is_refused_by_name(tmp_path: Path, style: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "w.pth"
    bad = Malicious(marker)
    value = {"state_dict": TENSORS, "extra": bad} if style == "in the wrapper" else {"state_dict": {**TENSORS, "x": bad}}
    path.write_bytes(
        pickle.dumps(value["state_dict"]["x"]) if style == "plain pickle" else torch_bytes(value, legacy=style == "legacy")
    )  # type: ignore[index]
    with pytest.raises(CheckpointFormatError, match=r"posix\.system|nt\.system"):
        read_object(path)
    assert any("system" in name for name in pickled_globals(path))
    seen = inspect(path)
    assert seen.problem and "system" in seen.problem
    assert not marker.exists()


@pytest.mark.parametrize("put", [b"q\x00", b"p0\n", b"r\x00\x00\x00\x00"])
def test_imports_cannot_hide_in_the_memo(tmp_path: Path, put: bytes) -> None:
    """`posix` and `system` are stored, something harmless pushed, and both fetched again for STACK_GLOBAL."""
    strings = b"\x8c\x05posix" + put + b"0\x8c\x06system" + put.replace(b"\x00", b"\x01", 1).replace(b"p0", b"p1") + b"0"
    harmless = b"\x8c\x0bcollections\x8c\x0bOrderedDict00"
    (tmp_path / "w.pth").write_bytes(b"\x80\x04" + strings + harmless + b"h\x00h\x01\x93" + b"\x8c\x04true\x85R.")
    assert "posix.system" in pickled_globals(tmp_path / "w.pth")
    with pytest.raises(CheckpointFormatError, match=r"posix\.system") as caught:
        read_object(tmp_path / "w.pth")
    assert "weights_only=False" not in str(caught.value)


def test_a_name_without_an_end_is_refused_at_once(tmp_path: Path) -> None:
    """torch would read on to the end of the file and search what it read, for minutes, with a regular expression."""
    (tmp_path / "w.pth").write_bytes(b"\x80\x02ctorch._utils_rebuild_tensor" + b"a" * 150_000)
    with pytest.raises(CheckpointFormatError, match="longer than any that Python imports"):
        read_object(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
        for shape in ([-1], ["x"], [1.5], [10**23], [True], [2**62, 2**62], [2])
    ]
    + [
        {"__metadata__": 5},
        {"__metadata__": {"k": 5}},
        {"a": 3},
        {"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}},
        [1],
        7,
    ],
)
def test_crafted_headers(tmp_path: Path, header: object) -> None:
    body = json.dumps(header).encode().ljust(80)
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(body)) + body + bytes(4))
    with pytest.raises(CheckpointFormatError):
        read_object(tmp_path / "w.safetensors")
    assert inspect(tmp_path / "w.safetensors").problem


@pytest.mark.parametrize("notes", ['{"pretrainps": "[1]"}', '{"pretrainps": "{"}', '{"pretrainps": "{\\"config\\": 3}"}'])
def test_strange_metadata_is_no_configuration(tmp_path: Path, notes: str) -> None:
    tensor = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    body = ('{"__metadata__": ' + notes + ', "a": ' + tensor + "}").encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(body)) + body + bytes(4))
    assert inspect(tmp_path / "w.safetensors").saved_by_us is None


def test_whole_pickled_modules_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(torch.nn.Linear(2, 2)))
    with pytest.raises(CheckpointFormatError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_object(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"hello world, these are no weights", "neither safetensors nor"),
        (struct.pack("<Q", 50) + b'{"a": 1}', "safetensors header is damaged|neither"),
        (struct.pack("<Q", 8) + b'{"a":{}}', "damaged"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=words):
        read_object(path)
    assert inspect(path).problem


def test_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        info = tarfile.TarInfo("checkpoint.pth")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("checkpoint.pth", b"abc")
    for name in ("w.tar", "w.zip"):
        with pytest.raises(CheckpointFormatError, match="Unpack it"):
            read_object(tmp_path / name)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_torch_files(tmp_path: Path, legacy: bool) -> None:
    body = torch_bytes({"state_dict": TENSORS}, legacy=legacy)
    path = tmp_path / "w.pth"
    for keep in (len(body) // 4, len(body) // 2, len(body) - 1):
        path.write_bytes(body[:keep])
        with pytest.raises(CheckpointFormatError, match="truncated or damaged"):
            read_object(path)


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(TENSORS, path)
    body = path.read_bytes()
    path.write_bytes(body[:-1])
    with pytest.raises(CheckpointFormatError, match=f"announces {len(body)} bytes, the file has {len(body) - 1}"):
        read_object(path)


def test_missing_wrapper_says_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"model": TENSORS, "epoch": 3}))
    with pytest.raises(CheckpointFormatError, match=r"under 'state_dict', found a dictionary with model, epoch"):
        read_tensors(path, ("state_dict",))
    with pytest.raises(CheckpointFormatError, match=r"entries are no plain tensors \(model, epoch\)"):
        read_tensors(path)


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.binary(max_size=300))
def test_any_bytes_end_in_our_errors(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    assert str(inspect(path))
    with pytest.raises(PretrainPSError):
        read_tensors(path)


@FUZZ
@given(st.data())
def test_any_damage_to_a_real_file_ends_in_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    legacy = data.draw(st.sampled_from(["safetensors", "zip", "legacy"]))
    path = tmp_path / "damaged"
    if legacy == "safetensors":
        write_safetensors(TENSORS, path)
        body = bytearray(path.read_bytes())
    else:
        body = bytearray(torch_bytes({"state_dict": TENSORS}, legacy=legacy == "legacy"))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(body[: data.draw(st.integers(1, len(body)))]))
    assert str(inspect(path))
    with contextlib.suppress(PretrainPSError):  # some damage only changes values
        read_tensors(path, ("state_dict",))


def test_header_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(TENSORS, path, {"a": 1})
    header = safetensors_header(path)
    assert header["a.weight"]["shape"] == [2, 3] and header["a.weight"]["dtype"] == "F32"


def test_a_damaged_file_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Torch checks sparse tensors at the end of a load, and where that never comes, at the end of the next."""
    indices, values = torch.tensor([[0, 5]]), torch.ones(2)
    sparse = torch.ops.aten._sparse_coo_tensor_unsafe(indices, values, [3])
    bad, good = tmp_path / "bad.pth", tmp_path / "good.pth"
    bad.write_bytes(torch_bytes({"sparse": sparse, "then": Malicious(tmp_path / "ran")}))
    good.write_bytes(torch_bytes(TENSORS))
    with pytest.raises(CheckpointFormatError, match="refused"):
        read_tensors(bad)
    assert same(read_tensors(good))
