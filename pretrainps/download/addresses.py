"""Parse names of models: Hub names, pasted Hub addresses, paths of all systems, and `file://` addresses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from pretrainps.errors import UnknownModelError

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co")
_OTHER_KINDS = ("datasets", "spaces", "buckets", "collections", "papers")
"""First parts of Hub addresses that are not models."""
_VIEWS = ("blob", "resolve", "raw", "tree", "commit", "commits")
"""Parts of an address between the repository and the revision."""
WEIGHT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar", ".safetensors.index.json")
"""Endings of weight files."""
_REPO_PART = re.compile(r"[\w.-]+")
_SCHEME = re.compile(r"(https?)://", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:(?!//)")


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository on the Hub, or one file in it."""

    repo: str
    """The repository as `owner/name`."""
    file: str = ""
    """Path inside the repository; empty for a saved model."""
    revision: str = ""
    """Branch, tag or commit; empty for the main branch."""

    def __str__(self) -> str:
        return f"hf:{self.repo}{'/' if self.file else ''}{self.file}{'@' if self.revision else ''}{self.revision}"


def canonical(name: str) -> str:
    """Return the canonical spelling of a name, under which its file is cached and pinned.

    Paths become `file:PATH`; pasted addresses of the Hub become `hf:owner/repository[/FILE][@REVISION]`. Other names are not
    changed.

    Raises:
        UnknownModelError: it is an address, or a name of a repository, but not of a model.
    """
    text = name.strip()
    kind, colon, rest = text.partition(":")
    if colon and kind.lower() == "hf" and not (rest.startswith("//") or _is_address(rest) or _pasted(rest)):
        return str(hub_name(f"hf:{rest}"))
    if _is_address(text) or (colon and kind.lower() == "hf"):
        return str(hub_address(rest if colon and kind.lower() == "hf" else text, name))
    if _DRIVE.match(text) or text.startswith(("\\\\", "~/", "~\\")):
        return f"file:{text}"
    if colon and kind.lower() == "file":
        return f"file:{local_path(text)}"
    return name


def hub_name(name: str) -> HubName:
    """Parse `hf:owner/repository[/FILE][@REVISION]`.

    Raises:
        UnknownModelError: it is no such name.
    """
    path, _, revision = name.removeprefix("hf:").partition("@")
    if revision.endswith(WEIGHT_ENDINGS) and "/" in revision:  # @REVISION/FILE, the order of other tools
        revision, _, file = revision.partition("/")
        path = f"{path}/{file}"
    return _checked(path.strip("/").split("/"), revision.strip("/"), name)


def hub_address(address: str, name: str) -> HubName:
    """Parse an address of the Hub as in a browser, with or without the part before the repository.

    Args:
        address: The address, with or without scheme and host.
        name: The user's input, for the error.

    Raises:
        UnknownModelError: it is of another host, or not of a model.
    """
    parts = urlsplit(address if "://" in address else f"https://{address.lstrip('/')}")
    path = parts.path
    if not _is_hub(parts.netloc):
        if _SCHEME.match(address):
            raise UnknownModelError(
                f"{name!r} is an address of another host than the Hub, and models are not loaded from those. Download the file "
                "and give its path: file:PATH."
            )
        path = f"{parts.netloc}/{path}"  # hf://owner/repository
    path, at, behind = path.partition("@")
    found = [unquote(part) for part in path.split("/") if part]
    if found[:1] == ["api"]:
        del found[0]
    if found[:1] == ["models"]:
        del found[0]
    file, revision = found[2:], unquote(behind)
    if at and "/" in revision and not revision.startswith("refs/"):  # hf://owner/repository@REVISION/FILE
        revision, _, inside = revision.partition("/")
        file = inside.split("/")
    if file and file[0] in _VIEWS and len(file) > 1:
        # only a pull request's revision holds slashes
        end = 4 if file[1] == "refs" and len(file) > 3 else 2
        revision, file = "/".join(file[1:end]), [] if file[0].startswith(("tree", "commit")) else file[end:]
    return _checked([*found[:2], *file], "" if revision == "main" else revision, name)


def local_path(name: str) -> Path:
    """Return the path of `file:PATH`, of a `file://` address or of a bare path, whether it exists or not.

    Percent signs in a path are taken literally; only if no such file exists, they are decoded as in an address.
    """
    text = re.sub(r"^file:", "", name, flags=re.IGNORECASE)
    readings = [text]
    if text.startswith("//"):
        parts = urlsplit(f"file:{text}")
        host = "" if parts.netloc.lower() in ("", "localhost") else f"//{parts.netloc}"
        if not host:
            readings = [url2pathname(parts.path), text]
        elif os.name == "nt":
            readings = [f"{host}{unquote(parts.path)}", text]
    readings += [unquote(text), *(reading.replace("\\", "/") for reading in (text, unquote(text)))]
    paths = [_expanded(Path(reading)) for reading in readings]
    return next((path for path in paths if _exists(path)), paths[0])


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # ~nobody
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _is_address(text: str) -> bool:
    """Return whether a text is an address, or a Hub address without its scheme."""
    return bool(_SCHEME.match(text)) or text.partition("/")[0].lower() in _HOSTS


def _pasted(path: str) -> bool:
    """Return whether the text after `hf:` is the path of a Hub address rather than of a file in the repository."""
    parts = path.partition("@")[0].strip("/").split("/")
    return parts[0] in ("api", "models") or (len(parts) > 3 and parts[2] in _VIEWS) or "?" in path or "%" in path


def _is_hub(host: str) -> bool:
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "").netloc
    return host.lower() in _HOSTS or (bool(endpoint) and host.lower() == endpoint.lower())


def _checked(parts: list[str], revision: str, name: str) -> HubName:
    if parts and parts[0] in _OTHER_KINDS:
        raise UnknownModelError(
            f"{name!r} names one of the Hub's {parts[0]}, and models are in model repositories only. Download the file and "
            "give its path: file:PATH."
        )
    plain = "".join((*parts, revision)).isprintable()  # no line breaks, no parts of characters
    if not plain or len(parts) < 2 or not all(parts) or not all(_REPO_PART.fullmatch(part) for part in parts[:2]):
        raise UnknownModelError(
            f"{name!r} is no Hub name. Write hf:owner/repository, with /FILE for a bare weight file and @REVISION if you want "
            "one."
        )
    return HubName("/".join(parts[:2]), "/".join(parts[2:]), revision)
