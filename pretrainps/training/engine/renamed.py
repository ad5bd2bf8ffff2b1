"""Settings that had another name in an earlier version: what was begun with it is resumed, by the same command."""

from __future__ import annotations

from collections.abc import Mapping

from pretrainps.detectors.config import DetectorConfig

_DETECTORS = ("detector", "hybrid.detector")
"""Where recipes have the settings of a detector, which know their former names themselves."""
RENAMED: Mapping[str, str] = {
    "alone_share": "crops_only_share",
    **{f"{place}.{old}": f"{place}.{new}" for place in _DETECTORS for old, new in DetectorConfig.former_names.items()},
}
"""From each dotted name in a recipe, as it was, to the name it has now."""
_RECORDED = "recipe."
"""Where a run's `config.json` has the settings of its recipe."""


def current_name(name: str) -> str:
    """Return the name that a setting of a recipe has now.

    Args:
        name: Its dotted name, as in `--set` or as in a run's `config.json`.

    Example:
        >>> current_name("alone_share"), current_name("recipe.alone_share"), current_name("optim.lr")
        ('crops_only_share', 'recipe.crops_only_share', 'optim.lr')
    """
    if name.startswith(_RECORDED):
        return _RECORDED + current_name(name.removeprefix(_RECORDED))
    return RENAMED.get(name, name)
