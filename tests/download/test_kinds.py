"""A file that is no checkpoint is described correctly, and the advice in the message works."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.download.kinds import FileKind, kind_of
from pretrainps.download.signatures import ADVICE
from pretrainps.errors import IntegrityError, PretrainPSError, WeightsUnavailableError
from pretrainps.weights import read_object, read_tensors
from pretrainps.weights.inspect import inspect
from tests.support.weights import torch_bytes

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n"
TORCH = torch_bytes({"w": torch.arange(64.0)})


def zipped(**members: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return body.getvalue()


def arrays(save: Callable[..., None]) -> bytes:
    body = io.BytesIO()
    save(body, np.ones(3))
    return body.getvalue()


MISTAKES: dict[str, tuple[bytes, str]] = {
    "lfs pointer": (LFS, "Git LFS pointer"),
    "lfs pointer, with lines of Windows": (LFS.replace(b"\n", b"\r\n"), "Git LFS pointer"),
    "xml error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "xml error without its head": (b"<Error><Code>NoSuchKey</Code></Error>", "XML"),
    "xml with a mark": (b"\xef\xbb\xbf<?xml version='1.0'?><a/>", "XML"),
    "json error": (b'{"error": "Repository not found"}', "JSON"),
    "json list": (b'\n  [{"message": "rate limited"}]', "JSON"),
    "login page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
    "text": (b"Entry not found", "text"),
    "text of UTF-16": ("Not found".encode("utf-16"), "text"),
    "configuration": ("MODEL:\n  NAME: größe\n".encode(), "text"),
    "gzip": (gzip.compress(TORCH), "gzip"),
    "bzip2": (bz2.compress(TORCH), "bzip2"),
    "xz": (lzma.compress(TORCH), "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(40), "zstd"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(40), "lz4"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(40), "RAR"),
    "npz": (arrays(np.savez), "NumPy .npz"),
    "npy": (arrays(np.save), "NumPy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "keras": (zipped(**{"config.json": b"{}", "model.weights.h5": b"x"}), "Keras"),
    "tensorflow index": (b"\x00\x00\x1c" + bytes(80) + bytes.fromhex("57fb808b247547db"), "TensorFlow"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(40), "GGUF"),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), "MATLAB"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "picture"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(20), "picture"),
    "webp": (b"RIFF\x00\x00\x00\x00WEBP" + bytes(20), "picture"),
    "mp4": (b"\x00\x00\x00\x20ftypisom" + bytes(20), "video"),
    "sqlite": (b"SQLite format 3\x00" + bytes(80), "SQLite"),
    "program": (b"\x7fELF\x02\x01" + bytes(50), "program for the processor"),
    "zeros": (bytes(5000), "zeros"),
    "zip of a checkpoint": (zipped(**{"model.pth": TORCH}), "zip archive"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.6.0:\x10" + bytes(30), "ONNX graph"),
    "onnx without a producer": (b"\x08\x0a\x3a\x90\x02\x0a\x20" + bytes(300), "ONNX graph"),
}


@pytest.mark.parametrize("label", MISTAKES)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_everyday_mistakes(tmp_path: Path, label: str, suffix: str) -> None:
    content, words = MISTAKES[label]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(PretrainPSError) as caught:
        pretrainps.load(f"file:{path}")
    assert str(path) in str(caught.value) and words in str(caught.value)
    assert words in str(inspect(path).problem)


def test_every_kind_is_a_checkpoint_or_has_advice() -> None:
    readable = {FileKind.SAFETENSORS, FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.PICKLE, FileKind.SHARD_INDEX}
    assert readable | ADVICE.keys() == set(FileKind) and not readable & ADVICE.keys()


def repack(folder: Path, target: Path) -> None:
    """What `zip -0 -r TARGET FOLDER` does, by that program where there is one."""
    if shutil.which("zip"):
        subprocess.run(["zip", "-q", "-0", "-r", str(target), folder.name], cwd=folder.parent, check=True)
        return
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))


@pytest.mark.parametrize("given", ["", "data.pkl"])
def test_an_unpacked_file_and_its_remedy(tmp_path: Path, given: str) -> None:
    state = build_backbone("resnet18").state_dict()
    (tmp_path / "good.pth").write_bytes(torch_bytes(state))
    zipfile.ZipFile(tmp_path / "good.pth").extractall(tmp_path / "x")
    (folder,) = (tmp_path / "x").iterdir()
    with pytest.raises(PretrainPSError, match=r"unpacked torch file.*zip -0 -r"):
        pretrainps.load(f"file:{folder / given}")
    repack(folder, tmp_path / "again.pth")
    assert pretrainps.load(f"file:{tmp_path / 'again.pth'}").load_report.share == 1
    found = read_tensors(tmp_path / "again.pth")
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_members_without_a_folder(tmp_path: Path) -> None:
    """Packed from inside the folder."""
    with zipfile.ZipFile(io.BytesIO(TORCH)) as old, zipfile.ZipFile(tmp_path / "w.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name.partition("/")[2], old.read(name))
    assert read_tensors(tmp_path / "w.pth")["w"].tolist() == list(range(64))


@pytest.mark.filterwarnings("ignore")
def test_programs_say_how_they_are_run(tmp_path: Path) -> None:
    layer, example = nn.Linear(2, 2), torch.ones(1, 2)
    torch.jit.trace(layer, example).save(str(tmp_path / "s.pt"))
    torch.export.save(torch.export.export(layer, (example,)), tmp_path / "d.pt2")
    for name, kind, words in (
        ("s.pt", FileKind.TORCHSCRIPT, "torch.jit.load"),
        ("d.pt2", FileKind.EXPORTED_PROGRAM, "torch.export.load"),
    ):
        path = tmp_path / name
        assert kind_of(path) is kind
        with pytest.raises(PretrainPSError, match=f"program.*{words}"):
            pretrainps.load(f"file:{path}")
    assert torch.equal(torch.jit.load(tmp_path / "s.pt")(example), layer(example))
    assert torch.equal(torch.export.load(tmp_path / "d.pt2").module()(example), layer(example))


def test_a_saved_folder_cloned_without_lfs(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(torch_bytes(build_backbone("resnet18").state_dict()))
    folder = pretrainps.save_pretrained(pretrainps.load(f"file:{tmp_path / 'w.pth'}"), tmp_path / "saved")
    for content, words in ((LFS, "Git LFS"), (b"<html></html>", "web page"), (b"", "empty")):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(IntegrityError, match=words) as caught:
            pretrainps.load(f"file:{folder}")
        assert "cache remove" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint_and_its_remedy(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp.save({"w": torch.arange(3.0)}, checkpoint_id=tmp_path / "many", no_dist=True)
    with pytest.raises(WeightsUnavailableError, match=r"format_utils dcp_to_torch .*many weights\.pth"):
        pretrainps.load(f"file:{tmp_path / 'many'}")
    dcp_to_torch_save(tmp_path / "many", tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth")["w"].tolist() == [0, 1, 2]


def test_what_is_read_is_not_called_something_else(tmp_path: Path) -> None:
    """Signatures of other kinds that begin like checkpoints."""
    path = tmp_path / "w"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert kind_of(path) is FileKind.SAFETENSORS and read_object(path)["w"].tolist() == [0]
