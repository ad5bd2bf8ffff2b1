"""Explain failed connections: the underlying cause, what to set, and whether a new try may help."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_FINAL_TLS = (
    "WRONG_VERSION_NUMBER",
    "CERTIFICATE",
    "UNSUPPORTED_PROTOCOL",
    "HTTP_REQUEST",
    "VERSION_TOO_LOW",
    "PROTOCOL_VERSION",
)
"""Parts of OpenSSL's names for errors that a new try cannot overcome."""
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_DEEPEST = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed."""

    reason: str
    """The reason as one clause, for a list of sources tried."""
    final: bool
    """Whether a new try cannot help, because a setting must be changed first."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy server of this machine."""

    address: str
    """Its address without user and password."""
    named_by: str
    """The environment variable that sets it."""


def explain(error: BaseException, url: str) -> Failure:
    """Return why a request failed.

    Args:
        error: An error of requests, of httpx, or of a library that uses them.
        url: The requested address; it determines which proxy of the environment is used.
    """
    causes = list(_causes(error))
    proxy = proxy_of(url)
    through = f" through the proxy {proxy.address}" if proxy else ""
    if reason := untrusted():
        return Failure(reason, final=True)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failure(
                f"certificate verify failed{through}: {cause.verify_message or cause.reason}. If a proxy or server of your "
                "own signs here, set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to a PEM file with its certificate",
                final=True,
            )
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or str(cause)
            return Failure(f"no TLS connection{through}: {reason}", final=any(part in reason for part in _FINAL_TLS))
        if isinstance(cause, socket.gaierror):
            what = "" if proxy else f" for the host {urlsplit(url).hostname}"
            words = f"no address{what} ({cause.strerror})"
            return Failure(_at_proxy(words, proxy), final=cause.errno == socket.EAI_NONAME)
    words = next((text for text in map(_words, causes) if text), type(error).__name__)
    # a proxy that refuses, or asks for a password, would do the same in a new try
    final = proxy is not None and (any(isinstance(cause, ConnectionRefusedError) for cause in causes) or "407" in words)
    return Failure(_at_proxy(f"connection failed: {words}", proxy), final=final)


def untrusted() -> str | None:
    """Return what is wrong with the certificate files in the environment; libraries do not name the missing file."""
    for variable in _TRUSTED:
        place = os.environ.get(variable)
        if place and not os.path.exists(place):
            return f"{variable} names {place}, which is not there: correct or unset it"
    return None


def login_wanted(url: str) -> str:
    """Return the reason for a request that a proxy answered with status 407."""
    return _at_proxy("a proxy wants a user and a password (407)", proxy_of(url))


def _at_proxy(words: str, proxy: Proxy | None) -> str:
    if proxy is None:
        return words
    return (
        f"{words}, at the proxy {proxy.address}. {proxy.named_by} names it: correct or unset that, or list the host in NO_PROXY"
    )


def without_login(text: str) -> str:
    """Return a text without the user and password in its addresses."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def proxy_of(url: str) -> Proxy | None:
    """Return the proxy that the environment names for a URL, if any."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(host if parts.port is None else f"{host}:{parts.port}") or proxy_bypass(host):
        return None
    spellings = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    named_by = next((variable for variable in spellings if os.environ.get(variable)), "the system's own setting")
    return Proxy(without_login(found if "://" in found else f"http://{found}"), named_by)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors inside an error, the innermost first; libraries keep them in several attributes."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(found) < _DEEPEST:
        here = queue.pop(0)
        if isinstance(here, BaseException) and here not in found:
            found.append(here)
            queue += [here.__cause__, here.__context__, getattr(here, "reason", None), *here.args]
    return reversed(found)


def _words(error: BaseException) -> str:
    """Return an error's message without memory addresses, and without users and passwords."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror if error.errno < 0 else os.strerror(error.errno)
    text = str(error)
    if "object at 0x" in text:
        text = text.rpartition("object at 0x")[2].partition(": ")[2].rstrip("')")
    return "" if "ConnectionPool" in text else without_login(text)
