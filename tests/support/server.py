"""A small HTTP server on loopback that misbehaves on request."""

from __future__ import annotations

import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """A fault instead of the normal answer, for the next `times` requests with a matching "METHOD path"."""

    match: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent in place of the real body (with status 200 unless `status` says otherwise)."""
    cut: int | None = None
    """Announce the whole body, send this many bytes, and hang up."""
    ignore_range: bool = False
    stall: float = 0.0
    """Seconds to wait in the middle of the body."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """Base of the fake services: records requests, applies faults, serves bodies with ranges.

    Subclasses implement `answer`.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.ignore_if_range = False
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def handle_any(self) -> None:
                service._handle(self)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: Any) -> None:
                pass  # clients that hang up are part of the tests

        self._server = QuietServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        self.requests.clear()
        self.faults.clear()

    def fault(self, match: str, **how: Any) -> Fault:
        fault = Fault(match, **how)
        self.faults.append(fault)
        return fault

    def count(self, match: str) -> int:
        return sum(bool(re.search(match, f"{r.method} {r.path}")) for r in self.requests)

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        raise NotImplementedError

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        request = Request(
            handler.command,
            urllib.parse.unquote(handler.path),
            {key.lower(): value for key, value in handler.headers.items()},
            handler.rfile.read(length) if length else b"",
        )
        self.requests.append(request)
        fault = next((f for f in self.faults if f.times > 0 and re.search(f.match, f"{request.method} {request.path}")), None)
        if fault is not None:
            fault.times -= 1
        if fault is not None and fault.status is not None:
            self.send(handler, fault.status, fault.body or b"", fault.headers)
        else:
            self.answer(handler, request, fault or Fault(""))

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        fault: Fault | None = None,
    ) -> None:
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(key, value)
        cut = fault.cut if fault and fault.cut is not None and handler.command == "GET" else None
        if cut is not None:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault and fault.stall and handler.command == "GET":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            time.sleep(fault.stall)
            handler.wfile.write(body[len(body) // 2 :])
        else:
            handler.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            handler.wfile.flush()
            handler.connection.shutdown(2)

    def send_file(
        self,
        handler: BaseHTTPRequestHandler,
        request: Request,
        body: bytes,
        headers: dict[str, str],
        fault: Fault,
    ) -> None:
        """Serve a body, or the range of it that was asked for if the validator still fits."""
        if fault.body is not None:
            body = fault.body
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers, **fault.headers}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        validator = request.headers.get("if-range")
        fresh = validator is None or validator in (headers.get("ETag"), headers.get("Last-Modified")) or self.ignore_if_range
        if wanted and fresh and not fault.ignore_range:
            start, end = int(wanted[1]), int(wanted[2] or len(body) - 1)
            if start >= len(body):
                self.send(handler, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            self.send(handler, 206, body[start : end + 1], headers, fault)
        else:
            self.send(handler, 200, body, headers, fault)


class FileServer(Server):
    """Plain files over http, each with an ETag."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.etags = True

    def put(self, name: str, body: bytes) -> str:
        self.files[f"/{name}"] = body
        return f"{self.url}/{name}"

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        import hashlib

        body = self.files.get(request.path)
        if body is None:
            self.send(handler, 404)
        else:
            etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} if self.etags else {}
            self.send_file(handler, request, body, etag, fault)
