"""Explanations of failed connections: certificates, proxies and hosts, for every kind of source."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import requests

import pretrainps
from pretrainps import errors
from pretrainps.download import Cache, fetch
from pretrainps.download.connection import explain, proxy_of
from pretrainps.registry import ModelSpec, find_spec
from pretrainps.registry.specs import DriveSource, HttpSource, HubSource
from tests.support.fakehub import FakeHub
from tests.support.server import FileServer, Server
from tests.support.weights import safetensors_bytes

BODY = safetensors_bytes(bytes(200))
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate")
    return cert


def secure(server: Server, certificate: Path) -> str:
    """Let a server use TLS with its own certificate authority, like a company's proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server.url = server.url.replace("http:", "https:")
    return server.url


def ask_hub_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture
def own_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    hub.add("o/r", {"w.safetensors": BODY})
    yield hub
    huggingface_hub.close_session()
    hub.close()


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def spec(*sources: HubSource | HttpSource | DriveSource) -> ModelSpec:
    return replace(find_spec("resnet50-hybrid"), name="model", sources=sources, published_size=None)


def failed(wanted: ModelSpec) -> str:
    with pytest.raises(errors.WeightsUnavailableError) as caught:
        fetch(wanted, cache=Cache(), progress=False)
    return next(line for line in str(caught.value).splitlines() if line.startswith("  - "))


HUB = HubSource(repo="o/r", file="w.safetensors")


def test_the_hub_behind_a_certificate_of_ones_own(
    own_hub: FakeHub, certificate: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    ask_hub_at(secure(own_hub, certificate), monkeypatch)
    assert "certificate verify failed: self-signed certificate" in (said := failed(spec(HUB))) and "SSL_CERT_FILE" in said
    assert waits == [], "a certificate is the same a second later"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(spec(HUB), cache=Cache(), progress=False).path.read_bytes() == BODY, "in the same process"


def test_https_behind_a_certificate_of_ones_own(
    files: FileServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    files.put("w.safetensors", BODY)
    wanted = spec(HttpSource(url=f"{secure(files, certificate)}/w.safetensors"))
    assert "certificate verify failed: self-signed" in (said := failed(wanted)) and "REQUESTS_CA_BUNDLE" in said
    assert waits == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert fetch(wanted, cache=Cache(), progress=False).path.read_bytes() == BODY


def test_drive_behind_a_certificate_of_ones_own(
    drive: object, certificate: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    drive.files["1"] = BODY  # type: ignore[attr-defined]
    monkeypatch.setattr("pretrainps.download.drive.ENDPOINT", secure(drive, certificate))  # type: ignore[arg-type]
    wanted = spec(DriveSource(id="1", file="w.safetensors"))
    assert "certificate verify failed: self-signed" in failed(wanted) and waits == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert fetch(wanted, cache=Cache(), progress=False).path.read_bytes() == BODY


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own upload code
def test_an_upload_says_why_and_what_to_set(own_hub: FakeHub, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pretrainps.load("seqnet-tiny-synthetic")
    ask_hub_at(secure(own_hub, certificate), monkeypatch)
    with pytest.raises(errors.WeightsUnavailableError, match=r"certificate verify failed.*Nothing was committed\.$"):
        pretrainps.push_to_hub(model, "me/x", token="hf_x")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert len(pretrainps.push_to_hub(model, "me/x", token="hf_x")) == 40


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_an_upload_that_may_be_tried_again(own_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pretrainps.load("seqnet-tiny-synthetic")
    ask_hub_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(errors.WeightsUnavailableError, match=r"Connection refused. Nothing was committed. Try again\.$"):
        pretrainps.push_to_hub(model, "me/x", token="hf_x")
    ask_hub_at(own_hub.url, monkeypatch)
    assert len(pretrainps.push_to_hub(model, "me/x", token="hf_x")) == 40


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_dead_proxy_is_named_without_its_password(
    own_hub: FakeHub, files: FileServer, monkeypatch: pytest.MonkeyPatch, waits: list[float], variable: str
) -> None:
    ask_hub_at(own_hub.url, monkeypatch)
    monkeypatch.setenv(variable, "http://me:secret@127.0.0.1:9")
    for source in (HUB, HttpSource(url=files.put("w.safetensors", BODY))):
        said = failed(spec(source))
        assert f"at the proxy http://127.0.0.1:9. {variable} names it" in said and "secret" not in said and "me:" not in said
        assert waits == []
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    assert fetch(spec(HUB), cache=Cache(), progress=False).path.read_bytes() == BODY


@pytest.mark.usefixtures("no_proxy")
def test_a_proxy_that_has_no_address_or_wants_a_login(
    own_hub: FakeHub, files: FileServer, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    ask_hub_at(own_hub.url, monkeypatch)
    source = HttpSource(url="http://weights.example/w.safetensors")
    monkeypatch.setenv("http_proxy", "no-such-proxy.invalid:3128")
    assert "no address" in (said := failed(spec(source))) and "http://no-such-proxy.invalid:3128" in said
    files.fault(".*", status=407, times=9)
    monkeypatch.setenv("http_proxy", files.url)
    huggingface_hub.close_session()
    for each in (source, HUB):
        assert "wants a user and a password (407)" in (said := failed(spec(each))) and files.url in said
    assert waits == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_not_there(
    own_hub: FakeHub, files: FileServer, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    ask_hub_at(own_hub.url.replace("http:", "https:"), monkeypatch)
    monkeypatch.setenv(variable, str(tmp_path / "gone.pem"))
    wanted = spec(HUB if variable == "SSL_CERT_FILE" else HttpSource(url=files.url.replace("http:", "https:") + "/w"))
    assert f"{variable} names {tmp_path / 'gone.pem'}, which is not there" in failed(wanted)


def test_a_host_that_does_not_exist_is_not_asked_again(waits: list[float]) -> None:
    said = failed(spec(HttpSource(url="http://no-such-host.invalid/w")))
    assert "no address for the host no-such-host.invalid" in said and waits == []


def test_plain_http_behind_an_https_address(files: FileServer, waits: list[float]) -> None:
    said = failed(spec(HttpSource(url=files.url.replace("http:", "https:") + "/w")))
    assert "no TLS connection" in said and waits == []


def test_what_may_pass_is_tried_again(waits: list[float]) -> None:
    assert "Connection refused" in failed(spec(HttpSource(url="http://127.0.0.1:9/w"))) and len(waits) == 3


def test_libraries_words_lose_logins_and_pool_objects() -> None:
    error = requests.ConnectionError("HTTPConnectionPool(host='x'): Max retries exceeded with url: /?sig=secret")
    assert explain(error, "http://x").reason == "connection failed: ConnectionError"
    assert "pw" not in explain(ValueError("bad address http://me:pw@x/"), "http://x").reason


@pytest.mark.usefixtures("no_proxy")
def test_which_proxy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("https://huggingface.co/x") is None
    monkeypatch.setenv("https_proxy", "http://u:p@proxy:3128")
    found = proxy_of("https://huggingface.co/x")
    assert found is not None and (found.address, found.named_by) == ("http://proxy:3128", "https_proxy")
    assert proxy_of("http://huggingface.co/x") is None
    monkeypatch.setenv("no_proxy", ".co,127.0.0.1")
    assert proxy_of("https://huggingface.co/x") is None
