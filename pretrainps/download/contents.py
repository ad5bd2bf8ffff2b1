"""Suggestions from a repository's contents when a requested file or revision does not exist."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import PurePosixPath

from pretrainps.download.addresses import WEIGHT_ENDINGS, HubName
from pretrainps.registry.specs import HubSource

_SHOWN = 8
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")


def files_instead(source: HubSource) -> str:
    """Return sentences with the files of a repository, and the model names of those that may be weights.

    Args:
        source: The requested file; the nearest names come first.
    """
    from pretrainps.download import hub

    files = hub.files_of(source)
    if not files:
        return "It is empty." if hub.revisions_of(source) else ""
    indexed = any(name.endswith(".index.json") for name in files)
    weights = [name for name in files if name.endswith(WEIGHT_ENDINGS) and not (indexed and _SHARD.search(name))]
    held = f"It holds {_listed(files)}."
    if not weights:
        return f"{held} None of these has the name of a weight file."
    wanted = PurePosixPath(source.file).name.lower()
    weights.sort(key=lambda name: -difflib.SequenceMatcher(None, wanted, PurePosixPath(name).name.lower()).ratio())
    revision = "" if source.revision == "main" else source.revision
    names = [str(HubName(source.repo, name, revision)) for name in weights]
    return f"{held} Write {_listed(names, ' or ')}."


def revisions_instead(source: HubSource, name: str) -> str:
    """Return sentences with the revisions of a repository.

    Args:
        source: The requested file and revision.
        name: The model's name, with the revision that does not exist.
    """
    from pretrainps.download import hub

    base = name.partition("@")[0]
    main = replace(source, revision="main")
    files = hub.files_of(main) if name.startswith("hf:") else []
    if files and source.file not in files:  # the file does not exist either
        return files_instead(main)
    found = hub.revisions_of(source)
    near = difflib.get_close_matches(source.revision, found, n=1, cutoff=0.5)
    has = f"It has {_listed(found)}. " if found else ""
    nearest = f"{base}@{near[0]}, or " if near and near[0] != "main" else ""
    return f"{has}Write {nearest}{base} for its main branch."


def _listed(names: list[str], last: str = ", ") -> str:
    shown = last.join(names[:_SHOWN])
    return shown + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
