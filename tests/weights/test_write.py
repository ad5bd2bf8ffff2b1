"""Reproducible bytes, and files that are either complete or absent."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrainps.weights import read_metadata, read_tensors, write_safetensors

PROGRAM = """
import sys, torch
from pathlib import Path
from pretrainps.weights import write_safetensors
tensors = {f"layer{i}.weight": torch.full((3,), float(i)) for i in range(20)}
write_safetensors(tensors, Path(sys.argv[1]), {"z": 1, "a": [1, 2], "m": "x", "list": ["q"]})
"""


def test_same_bytes_from_every_process(tmp_path: Path) -> None:
    """The safetensors library alone would order several metadata keys by hash, differently in each process."""
    hashes = set()
    for index in range(3):
        path = tmp_path / f"{index}.safetensors"
        subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_order_of_the_dictionary_does_not_matter(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    write_safetensors(tensors, tmp_path / "1")
    write_safetensors(dict(reversed(tensors.items())), tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_shared_and_strided_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tensors = {"whole": base, "view": base[2:6], "strided": base.reshape(3, 4).T, "tied": base}
    write_safetensors(tensors, tmp_path / "w")
    found = read_tensors(tmp_path / "w")
    assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_metadata_round_trip(tmp_path: Path) -> None:
    notes = {"config": {"a": [1, 2.5, None, "x"]}}
    write_safetensors({"a": torch.ones(1)}, tmp_path / "w", notes)
    assert read_metadata(tmp_path / "w") == notes


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w"
    write_safetensors({"a": torch.ones(1)}, path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pretrainps.weights.write.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        write_safetensors({"a": torch.zeros(1)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
