"""Sharded checkpoints: an index (`model.safetensors.index.json`) names the file of each tensor."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from pretrainps.download.kinds import FileKind, kind_of, safetensors_header
from pretrainps.download.source import SourceError
from pretrainps.errors import CheckpointFormatError
from pretrainps.registry.specs import HubSource

INDEX_SUFFIX = ".index.json"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Names of the index, in the order of the search."""
_LARGEST_INDEX = 100_000_000
_MOST_NAMES = 4
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\..+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """An index of shards: the file of each tensor."""

    path: Path
    shards: dict[str, tuple[str, ...]]
    """A shard's file name -> the keys in it. The files are in the index's own folder."""
    total_size: int | None = None
    """Bytes of all tensors, if the index has this number."""

    def require_files(self, folder: Path) -> None:
        """Raise unless a folder holds all shards, and no other files with the same numbering.

        Raises:
            CheckpointFormatError: a shard is missing, or there is another one.
        """
        missing = [name for name in self.shards if not (folder / name).is_file()]
        if missing:
            raise CheckpointFormatError(
                f"{self.path}: {len(missing)} of {len(self.shards)} shards are not in its folder ({_some(missing)}). Fetch "
                "them, and put them there."
            )
        families = {match.group(1, 3, 4) for name in self.shards if (match := _NUMBERED.fullmatch(name))}
        others = [
            path.name
            for path in sorted(folder.iterdir())
            if path.name not in self.shards and (match := _NUMBERED.fullmatch(path.name)) and match.group(1, 3, 4) in families
        ]
        if others:
            raise CheckpointFormatError(
                f"{self.path}: {_some(others)} in its folder is numbered like its shards, but the index does not name it: "
                "index and shards are not of one checkpoint. Fetch all of them again."
            )

    def require_keys(self, name: str, found: Collection[str]) -> None:
        """Raise unless a shard holds exactly the keys in the index.

        Raises:
            CheckpointFormatError: it does not.
        """
        wanted = set(self.shards[name])
        for what, keys in (("lacks", sorted(wanted - set(found))), ("has, unknown to the index,", sorted(set(found) - wanted))):
            if keys:
                raise CheckpointFormatError(
                    f"{self.path}: the shard {name} {what} {len(keys)} tensors ({_some(keys)}): index and shards are not of "
                    "one checkpoint. Fetch all of them again."
                )

    def require_total(self, found: int) -> None:
        """Raise unless the tensors have the total size in the index.

        Raises:
            CheckpointFormatError: they do not.
        """
        if self.total_size is not None and found != self.total_size:
            raise CheckpointFormatError(
                f"{self.path}: its tensors take {found:,} bytes, but the index says total_size {self.total_size:,}: index and "
                "shards are not of one checkpoint. Fetch all of them again; if its author says that they belong together, take "
                "total_size out of the index."
            )


def read_index(path: Path) -> ShardIndex:
    """Read an index.

    Raises:
        CheckpointFormatError: damaged, or it names files outside its own folder.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > _LARGEST_INDEX:
        raise CheckpointFormatError(f"{path}: too large for an index of shards. Fetch it again.")
    try:
        found = json.loads(path.read_bytes())
        files = dict(found["weight_map"])
        total = dict(found.get("metadata") or {}).get("total_size")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointFormatError(f"{path}: the index of shards is damaged. Fetch it again.") from error
    shards: dict[str, list[str]] = {}
    for key, name in files.items():
        if not _is_plain_name(name):
            raise CheckpointFormatError(
                f"{path}: refused. It looks for {key!r} in {str(name)[:80]!r}, which is no file name in the index's own folder."
            )
        shards.setdefault(name, []).append(key)
    if not shards:
        raise CheckpointFormatError(f"{path}: the index names no tensor. Fetch it again.")
    counts = {int(match[3]) for name in shards if (match := _NUMBERED.fullmatch(name)) and len(match[3]) < 10}
    if counts and counts != {len(shards)}:
        raise CheckpointFormatError(
            f"{path}: its shards are numbered up to {max(counts)}, but the index names {len(shards)} files. Fetch it again."
        )
    # some tools write the number as a float
    size = int(total) if isinstance(total, int | float) and not isinstance(total, bool) and total == int(total) else None
    return ShardIndex(path=path, shards={name: tuple(keys) for name, keys in shards.items()}, total_size=size)


def merge(index: ShardIndex, folder: Path, target: Path) -> None:
    """Write one safetensors file of all shards in a folder, byte for byte the tensors that they hold.

    Args:
        index: The index of the shards.
        folder: The folder of the shards.
        target: The file to write.

    Raises:
        CheckpointFormatError: a shard is missing, damaged, no safetensors file, or different from the index.
        OSError: the disk fails.
    """
    header: dict[str, object] = {}
    end = 0
    for name in index.shards:
        if kind_of(folder / name) is not FileKind.SAFETENSORS:
            raise CheckpointFormatError(f"{index.path}: the shard {name} is no safetensors file.")
        entries = {key: value for key, value in safetensors_header(folder / name).items() if key != "__metadata__"}
        index.require_keys(name, entries)
        for key, entry in entries.items():
            header[key] = {**entry, "data_offsets": [end + place for place in entry["data_offsets"]]}
        end += max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    index.require_total(end)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in index.shards:
            with (folder / name).open("rb") as shard:
                shard.seek(8 + struct.unpack("<Q", shard.read(8))[0])
                shutil.copyfileobj(shard, out, 1 << 20)


def give_merged(
    source: HubSource, give: Callable[[HubSource], tuple[Path, str | None]], workspace: Path
) -> tuple[Path, str | None]:
    """Fetch an index and its shards from the Hub, all of one commit, and return one file of them with the commit.

    Args:
        source: The index.
        give: Function that fetches one verified file.
        workspace: A folder to work in.

    Raises:
        SourceError: a file does not exist, or the files are not of one checkpoint.
    """
    path, commit = give(source)
    try:
        index = read_index(path)
        if not all(name.endswith(".safetensors") for name in index.shards):
            raise CheckpointFormatError(
                "its shards are pickles, which are not merged here. Download the index and all shards into one folder, and "
                "load file:FOLDER"
            )
        folder = source.file.rpartition("/")[0]
        for name in index.shards:
            shard = replace(source, file=f"{folder}/{name}" if folder else name, revision=commit or source.revision)
            try:
                give(shard)
            except SourceError as error:
                if error.absent is None:
                    raise
                # the index is there, so naming the repository's other files would lead back to it
                raise SourceError(f"{error}: {shard.file}, which its index names") from error
        target = workspace / "merged"
        merge(index, path.parent, target)
    except CheckpointFormatError as error:
        raise SourceError(str(error).removeprefix(f"{path}: "), integrity=True) from error
    return target, commit


def index_in(folder: Path) -> Path | None:
    """Return the index of shards in a folder; `None` if there is none."""
    named = (folder / name for name in INDEXES)
    return next((path for path in (*named, *sorted(folder.glob(f"*{INDEX_SUFFIX}"))) if path.is_file()), None)


def _is_plain_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name not in (".", "..")
        and name.isprintable()
        and not any(letter in name for letter in "/\\:")
        and not name.endswith(INDEX_SUFFIX)
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
