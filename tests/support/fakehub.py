"""A stand-in for the Hugging Face Hub: what `huggingface_hub` 1.31 to 2.x asks when it downloads and uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.server import Fault, Request, Server

LFS_FROM = 1024
"""Files of this many bytes and more go through LFS, with their sha256 as etag."""


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class FakeHub(Server):
    """Repositories of files; every repository has one commit on `main`, older ones stay reachable."""

    def __init__(self) -> None:
        super().__init__()
        self.cdn = _Cdn(self)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.heads: dict[str, str] = {}
        self.tags: dict[str, dict[str, str]] = {}
        """Repository -> tag -> commit."""
        self.gated: set[str] = set()
        self.private: dict[str, str] = {}
        """Repository -> the token it wants."""
        self.through_cdn = False
        self.uploads: dict[str, bytes] = {}
        self.cdn.requests.clear()

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """Commit files to a repository and return the commit."""
        commit = hashlib.sha1(repr(sorted((name, sha256(body)) for name, body in files.items())).encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = dict(files)
        self.heads[repo] = commit
        return commit

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        path = request.path.partition("?")[0]
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(handler, request, fault, *match.groups())
        elif path == "/api/repos/create":
            wanted = json.loads(request.body)
            repo = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            if repo not in self.heads:
                self.add(repo, {})
            self._json(handler, {"url": f"{self.url}/{repo}", "id": repo})
        elif path == "/api/whoami-v2":
            self._json(handler, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})
        elif path == "/api/validate-yaml":
            self._json(handler, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            files = json.loads(request.body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LFS_FROM else "regular", "shouldIgnore": False}
                for f in files
            ]
            self._json(handler, {"files": modes})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}}
                for o in json.loads(request.body)["objects"]
            ]
            self._json(handler, {"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")
        elif match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self.uploads[match[1]] = request.body
            self.send(handler, 200)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            commit = self.add(match[1], self._committed(match[1], request.body))
            self._json(handler, {"commitUrl": f"{self.url}/{match[1]}/commit/{commit}", "commitOid": commit, "hookOutput": ""})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
            if not self._refused(handler, request, match[1]):
                head = {"main": self.heads[match[1]]}
                self._json(handler, {"branches": _refs(head), "tags": _refs(self.tags.get(match[1], {})), "converts": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if not self._refused(handler, request, match[1]):
                commit = self._commit(match[1], match[2] or "main")
                if commit is None:
                    self._error(handler, 404, "RevisionNotFound", f"Invalid rev id: {match[2]}")
                    return
                files = self.commits[match[1]][commit]
                self._json(
                    handler,
                    {
                        "id": match[1],
                        "sha": commit,
                        "private": False,
                        "tags": [],
                        "downloads": 0,
                        "siblings": [{"rfilename": name} for name in files],
                    },
                )
        else:
            self._error(handler, 404, "NotFound", f"no route {request.method} {path}")

    def _committed(self, repo: str, body: bytes) -> dict[str, bytes]:
        files = dict(self.commits[repo][self.heads[repo]])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.uploads[entry["value"]["oid"]]
        return files

    def _resolve(
        self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault, repo: str, revision: str, name: str
    ) -> None:
        if self._refused(handler, request, repo):
            return
        commit = self._commit(repo, revision)
        if commit is None:
            self._error(handler, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        body = self.commits[repo][commit].get(name)
        if body is None:
            self._error(handler, 404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        large = len(body) >= LFS_FROM
        if large and self.through_cdn:
            headers = {
                "Location": f"{self.cdn.url}/{sha256(body)}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{sha256(body)}"',
                "X-Linked-Size": str(len(body)),
            }
            self.send(handler, 302, b"", headers)
            return
        etag = sha256(body) if large else git_sha1(body)
        self.send_file(handler, request, body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, fault)

    def _commit(self, repo: str, revision: str) -> str | None:
        known = {"main": self.heads[repo], **self.tags.get(repo, {})}
        commit = known.get(revision, revision)
        return commit if commit in self.commits[repo] else None

    def _refused(self, handler: BaseHTTPRequestHandler, request: Request, repo: str) -> bool:
        token = self.private.get(repo)
        given = request.headers.get("authorization")
        if repo not in self.heads or (token and given != f"Bearer {token}"):
            self._error(handler, 404 if given else 401, "RepoNotFound", "Repository not found")
            return True
        if repo in self.gated:
            self._error(handler, 403, "GatedRepo", f"Access to model {repo} is restricted")
            return True
        return False

    def _json(self, handler: BaseHTTPRequestHandler, value: Any, content_type: str = "application/json") -> None:
        self.send(handler, 200, json.dumps(value).encode(), {"Content-Type": content_type})

    def _error(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send(handler, status, b"{}", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})


def _refs(commits: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "ref": f"refs/{name}", "targetCommit": commit} for name, commit in commits.items()]


class _Cdn(Server):
    """Where the Hub sends LFS downloads; another hostname, so that a token sent here would be a leak."""

    def __init__(self, hub: FakeHub) -> None:
        super().__init__("localhost")
        self.hub = hub

    def answer(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        wanted = request.path.lstrip("/")
        for commits in self.hub.commits.values():
            for files in commits.values():
                for body in files.values():
                    if sha256(body) == wanted:
                        self.send_file(handler, request, body, {"ETag": f'"{wanted}"'}, fault)
                        return
        self.send(handler, 404)
