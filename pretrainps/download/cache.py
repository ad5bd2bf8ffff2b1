"""The cache: verified files, their pinned hashes, and the locks between processes.

    ROOT/models/KEY/original/FILE   the unchanged file from its source
    ROOT/models/KEY/record.json     its sha256, with size and time, so that it need not be hashed again
    ROOT/models/KEY/native.*        the same tensors in the native layout (written by `pretrainps.weights`)
    ROOT/models/KEY/incoming/       unfinished downloads; safe to delete at any time
    ROOT/pins/KEY.json              sha256 of the first readable file; it is kept, and every later file must match it
    ROOT/locks/KEY.lock             held while a model is fetched or converted

ROOT is `PRETRAINPS_HOME`, else `$XDG_CACHE_HOME/pretrainps`, else `~/.cache/pretrainps`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from pretrainps.download.locks import hold
from pretrainps.errors import CacheError
from pretrainps.files import disk_errors, write_text

HINT = "Set PRETRAINPS_HOME to another folder for the cache."
_LONGEST_KEY = 120


def default_root() -> Path:
    """Return the cache folder that the environment sets."""
    if home := os.environ.get("PRETRAINPS_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pretrainps"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The facts about a verified file; in `ROOT/pins/KEY.json`, the facts that every later download must match."""

    file: str
    sha256: str
    size: int
    source: str
    commit: str | None = None
    """The Hub commit of the file."""
    mtime_ns: int = 0
    name: str = ""
    """The model's name, since a folder's name may hold only its beginning; empty in records of earlier versions."""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def describes(self, path: Path) -> bool:
        """Return whether the file still has the size and time of its hash."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a record; `None` if there is none or it is damaged."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name != "name"}, name=values.get("name", ""))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the record in one step."""
        write_text(path, json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


class Cache:
    """The cache below one root folder. The constructor does not touch the disk.

    Args:
        root: The folder; by default the one that the environment sets.

    Raises:
        CacheError: the folder's name cannot be resolved.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        given = Path(root) if root is not None else default_root()
        try:
            self.root = given.expanduser().absolute()
        except RuntimeError as error:  # ~nobody
            raise CacheError(f"the cache folder {given} cannot be found ({error}). {HINT}") from error

    @staticmethod
    def key(name: str) -> str:
        """Return the folder name for a model name: one path component, for any name on any system.

        Capital letters are written as codes, because some systems do not distinguish them from small letters.
        """
        key = re.sub(r"(%[0-9A-F]{2})|([A-Z])", lambda match: match[1] or f"%{ord(match[2]):02X}", quote(name, safe="@+=,"))
        return _one_component(key, name)

    def folder(self, name: str) -> Path:
        """Return the folder of one model."""
        return self._place("models", name, "")

    def _place(self, below: str, name: str, ending: str) -> Path:
        """Return the path of a model's file or folder; that of an earlier version, if it still exists."""
        place, earlier = (self.root / below / f"{key}{ending}" for key in (self.key(name), _earlier_key(name)))
        if place != earlier and not place.exists() and earlier.exists():
            with contextlib.suppress(OSError):
                if earlier.name in os.listdir(earlier.parent):  # with the same capital letters
                    return earlier
        return place

    def original(self, name: str) -> Path:
        """Return the folder of one model's unchanged file from its source, without files of this package."""
        return self.folder(name) / "original"

    def incoming(self, name: str) -> Path:
        """Return the folder of one model's unfinished downloads."""
        return self.folder(name) / "incoming"

    def record(self, name: str) -> Record | None:
        """Return the record of the model's file, if there is one."""
        return Record.read(self.folder(name) / "record.json")

    def write_record(self, name: str, record: Record) -> None:
        """Write the record of the model's file."""
        with disk_errors(self.root, HINT):
            replace(record, name=name).write(self.folder(name) / "record.json")

    def pin_path(self, name: str) -> Path:
        """Return the path of the model's pin."""
        return self._place("pins", name, ".json")

    def pin(self, name: str) -> Record | None:
        """Return the pin of the first download, if there is one.

        Raises:
            CacheError: there is a pin, but it cannot be read. To ignore it would trust any later download.
        """
        path = self.pin_path(name)
        pin = Record.read(path)
        if pin is None and path.exists():
            raise CacheError(
                f"the pin {path} is damaged. If you accept what its source gives now: `pretrainps cache remove "
                f"{shlex.quote(name.removesuffix(companion('')))} --forget-pin`, then load again."
            )
        return pin

    def write_pin(self, name: str, record: Record) -> None:
        """Write the pin that every later download of the model must match."""
        with disk_errors(self.root, HINT):
            replace(record, name=name, mtime_ns=0).write(self.pin_path(name))

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the model's lock; a second process waits here until the first is done.

        Raises:
            CacheError: the cache cannot be written to.
        """
        path = self.root / "locks" / f"{self.key(name)}.lock"
        with contextlib.ExitStack() as stack:
            with disk_errors(self.root, HINT):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(path))
            yield

    def names(self) -> list[str]:
        """Return the names of all models with a cached file; configurations have no entry of their own."""
        folders = _entries(self.root / "models")
        return _model_names((Record.read(path / "record.json"), path.name) for path in folders if path.is_dir())

    def pinned_names(self) -> list[str]:
        """Return the names of all pinned models, with a cached file or without."""
        pins = [path for path in _entries(self.root / "pins") if path.suffix == ".json"]
        return _model_names((Record.read(path), path.stem) for path in pins)

    def tidy(self, name: str) -> None:
        """Remove a model's folders if they are empty, so that a failed download leaves nothing behind."""
        if not self.folder(name).exists():
            return
        with self.lock(name):  # another process may be about to write into them
            for folder in (self.incoming(name), self.original(name), self.folder(name)):
                with contextlib.suppress(OSError):  # missing, or not empty
                    folder.rmdir()

    def size(self, name: str) -> int:
        """Return the size of a model in bytes, including its configuration."""
        return sum(self._size(part) for part in (name, companion(name)))

    def _size(self, part: str) -> int:
        total = 0
        for path in self.folder(part).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a download that ended meanwhile
                total += path.stat().st_size if path.is_file() else 0
        return total

    def remove(self, name: str, *, forget_pin: bool = False) -> int:
        """Delete the files of a model and of its configuration; return the number of bytes freed.

        Args:
            name: The model's name.
            forget_pin: Whether to delete its pin too, so that the next download is trusted like a first one.
        """
        freed = 0
        for part in (name, companion(name)):
            with self.lock(part), disk_errors(self.root, HINT):
                freed += self._size(part)
                if self.folder(part).exists():
                    shutil.rmtree(self.folder(part))
                if forget_pin:
                    self.pin_path(part).unlink(missing_ok=True)
        return freed


def companion(name: str) -> str:
    """Return the name under which a Hub model's configuration is cached and pinned."""
    return f"{name}/config.json"


def _earlier_key(name: str) -> str:
    """Return the folder name of a model from the time before capital letters were written as codes."""
    return _one_component(quote(name, safe="@+=,"), name)


def _one_component(key: str, name: str) -> str:
    if len(key) > _LONGEST_KEY:  # file systems allow 255 bytes
        key = f"{key[: _LONGEST_KEY - 65]}-{hashlib.sha256(name.encode()).hexdigest()}"
    return "%2E" + key[1:] if key.startswith(".") else key


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _model_names(found: Iterable[tuple[Record | None, str]]) -> list[str]:
    """Return the names of models from their records, or from folder names if there is no record."""
    names = {(record.name if record else "") or unquote(key) for record, key in found}
    return sorted({name.removesuffix(companion("")) for name in names})
