"""Several processes, and processes that die: real ones."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.fakehub import FakeHub
from tests.support.server import FileServer
from tests.support.weights import safetensors_bytes

BODY = safetensors_bytes(bytes(range(256)) * 8000)  # 2 MB

PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
from dataclasses import replace
from pretrainps.registry import find_spec
from pretrainps.registry.specs import HttpSource, HubSource
from pretrainps.downloads import Cache
from pretrainps.downloads import fetch
source = HttpSource(url=sys.argv[1]) if "://" in sys.argv[1] else HubSource(repo=sys.argv[1], file="model.pth")
spec = replace(find_spec("resnet50-hybrid"), name="model", sources=(source,), published_size=None)
print("started", flush=True)
print(fetch(spec, cache=Cache(), progress=False).sha256)
"""


def start(where: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )


def test_two_processes_download_once_from_the_hub(hub: FakeHub) -> None:
    hub.add("o/r", {"model.pth": BODY})
    hub.fault("GET .*resolve", stall=1.5)
    results = [p.communicate(timeout=60) for p in [start("o/r") for _ in range(3)]]
    assert {out.splitlines()[-1] for out, _ in results} == {hashlib.sha256(BODY).hexdigest()}, results
    assert hub.count("GET .*resolve") == 1


def test_killed_midway_from_the_hub_then_success(hub: FakeHub, home: Path) -> None:
    hub.add("o/r", {"model.pth": BODY})
    hub.fault("GET .*resolve", stall=30)
    process = start("o/r")
    deadline = time.monotonic() + 30
    while hub.count("GET .*resolve") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=30)
    model = home / "models" / "model"
    assert not (model / "original").exists() and not (home / "pins").exists()
    out, err = start("o/r").communicate(timeout=60)
    assert out.splitlines()[-1] == hashlib.sha256(BODY).hexdigest(), err
    assert sorted(p.name for p in model.rglob("*")) == ["model.pth", "original", "record.json"], "what the dead left is swept"


def test_two_processes_download_once(files: FileServer) -> None:
    url = files.put("model.pth", BODY)
    files.fault("GET /model", stall=1.5)
    processes = [start(url) for _ in range(3)]
    results = [p.communicate(timeout=60) for p in processes]
    assert {out.splitlines()[-1] for out, _ in results} == {hashlib.sha256(BODY).hexdigest()}, results
    assert files.count("GET /model") == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_midway_then_success(files: FileServer, home: Path, how: signal.Signals) -> None:
    url = files.put("model.pth", BODY)
    files.fault("GET /model", stall=30)
    process = start(url)
    part = home / "models" / "model" / "incoming" / "model.pth.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=30)
    assert not (home / "models" / "model" / "original" / "model.pth").exists()
    assert not list((home / "pins").glob("*")) if (home / "pins").exists() else True
    out, err = start(url).communicate(timeout=60)
    assert out.splitlines()[-1] == hashlib.sha256(BODY).hexdigest(), err
    assert (home / "models" / "model" / "original" / "model.pth").read_bytes() == BODY
    assert "range" in files.requests[-1].headers, "what had come before the kill was not fetched again"
