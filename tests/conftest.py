"""Loopback services for every test, and a guard against any other network."""

from __future__ import annotations

import os
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.fakedrive import FakeDrive
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer

# huggingface_hub reads its settings when it is first imported, so the fake one must stand before that
HUB = FakeHub()
os.environ.update(
    HF_ENDPOINT=HUB.url,
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_VERBOSITY="critical",
    HF_TOKEN="",
    NO_PROXY="127.0.0.1,localhost",
    OMP_NUM_THREADS="1",  # each of pytest-xdist's workers takes a core; more threads would only get in each other's way
    PRETRAINPS_HOME="/nonexistent/tests-must-use-the-home-fixture",
)
for variable in ("PRETRAINPS_OFFLINE", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
    os.environ.pop(variable, None)

hypothesis.settings.register_profile("same examples each time", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same examples each time")

_connect = socket.socket.connect


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that would leave this machine."""

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        _connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def only_own_detectors() -> Iterator[None]:
    """Take away what a test, or a page of the documentation, registered."""
    yield
    registry = sys.modules.get("pretrainps.detectors.registry")
    for name in [name for name, entry in getattr(registry, "_entries", {}).items() if not registry._is_built_in(entry)]:  # type: ignore[union-attr]
        del registry._entries[name]  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a Hub cache too."""
    import huggingface_hub.constants

    root = tmp_path / "home"
    monkeypatch.setenv("PRETRAINPS_HOME", str(root))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return root


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between tries instead of waiting, in the package and in huggingface_hub."""
    import huggingface_hub.file_download as hub_download
    import huggingface_hub.utils._http as hub_http

    from pretrainps.download import source

    recorded: list[float] = []
    monkeypatch.setattr(source, "sleep", recorded.append)
    patient = types.SimpleNamespace(**{**vars(hub_http.time), "sleep": lambda seconds: None})
    monkeypatch.setattr(hub_http, "time", patient)
    monkeypatch.setattr(hub_download, "time", patient)
    return recorded


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The fake Hub, empty and well-behaved."""
    HUB.reset()
    yield HUB
    HUB.reset()


@pytest.fixture
def files() -> Iterator[FileServer]:
    """A plain file server."""
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDrive]:
    """A fake Google Drive."""
    from pretrainps.download import drive as drive_module

    server = FakeDrive()
    monkeypatch.setattr(drive_module, "ENDPOINT", server.url)
    yield server
    server.close()
