"""A stand-in for Google Drive's download host, with its pages as they are known to look."""

from __future__ import annotations

import urllib.parse
from http.server import BaseHTTPRequestHandler

from tests.support.server import Fault, Request, Server

CONFIRM_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="{action}" method="get">
<input type="submit" id="uc-download-link" value="Download anyway"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1b2c-3d&amp;4e">
</form></body></html>"""

QUOTA_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
<p>Too many users have viewed or downloaded this file recently.</p></body></html>"""

PRIVATE_PAGE = """<!DOCTYPE html><html><head><title>Google Drive: Sign-in</title></head><body>
<p>Sign in to continue to Google Drive</p></body></html>"""


class FakeDrive(Server):
    """Shared files by id; large ones ask to confirm, and some are over quota or private."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.confirm: set[str] = set()
        self.pages: dict[str, str] = {}
        self.form_action = f"{self.url}/download"

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        query = urllib.parse.parse_qs(request.path.partition("?")[2])
        file_id = query.get("id", [""])[0]
        if file_id in self.pages:
            self._page(handler, self.pages[file_id])
        elif file_id not in self.files:
            self.send(handler, 404, b"not found", {"Content-Type": "text/plain"})
        elif file_id in self.confirm and "uuid=1b2c-3d&4e" not in request.path:  # the path comes unquoted
            self._page(handler, CONFIRM_PAGE.format(id=file_id, action=self.form_action))
        else:
            self.send_file(handler, request, self.files[file_id], {"ETag": '"drive"'}, fault)

    def _page(self, handler: BaseHTTPRequestHandler, page: str) -> None:
        self.send(handler, 200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
