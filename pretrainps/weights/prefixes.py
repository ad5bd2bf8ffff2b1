"""Find the prefix that wrappers and training code put before every key, by exact search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable


def shared_prefixes(keys: Iterable[str], expected: Collection[str], *, most: int = 3) -> list[tuple[str, int]]:
    """Return the prefixes of expected keys, each with the number of keys that it explains, the best first.

    A prefix ends in a dot or is empty, and may have any depth (`module.model.backbone.`). A prefix that explains less than half
    as many keys as the best one is left out: parts of a network are similar, so some keys of a part fit anywhere.

    Args:
        keys: The file's keys.
        expected: The keys to find.
        most: Largest number of prefixes to return.
    """
    depth = max((key.count(".") for key in expected), default=0)
    wanted = expected if isinstance(expected, set | dict) else set(expected)
    votes: Counter[str] = Counter()
    for key in keys:
        # not beyond the depth of the deepest expected key: a damaged file may hold names with a million dots
        parts = key.rsplit(".", depth + 1)
        for start in range(len(parts)):
            suffix = ".".join(parts[start:])
            if suffix in wanted:
                votes[key[: len(key) - len(suffix)]] += 1
    best = max(votes.values(), default=0)
    ordered = sorted(votes.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    return [(prefix, count) for prefix, count in ordered[:most] if 2 * count >= best]
