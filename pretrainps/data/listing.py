"""Check which files exist with one listing a folder.

To check each of a hundred thousand files takes minutes on a network disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pretrainps.errors import DatasetError


class Listing:
    """The files of folders, each folder listed once and remembered.

    Example:
        >>> from pretrainps.data.listing import Listing
        >>> import pretrainps.data
        >>> package = Path(pretrainps.data.__file__).parent
        >>> package / "listing.py" in Listing(), package / "no such folder" / "listing.py" in Listing()
        (True, False)
    """

    def __init__(self) -> None:
        self._folders: dict[Path, frozenset[str]] = {}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(os.listdir(folder))
            except PermissionError as error:
                raise DatasetError(f"{folder} may not be read ({error.strerror}). Change its permissions.") from error
            except (OSError, ValueError):  # not there, no folder, or a name that no folder can have
                self._folders[folder] = frozenset()
        return path.name in self._folders[folder]

    def require(self, files: Sequence[Path], *, of: str) -> None:
        """Check that all files exist.

        Args:
            files: Their paths.
            of: The path of the annotation file that names them, for the message.

        Raises:
            DatasetError: some do not exist; the message names the first and their number.
        """
        missing = [path for path in files if path not in self]
        if missing:
            raise DatasetError(
                f"{missing[0]} is missing: {len(missing)} of the {len(files)} files that {of} names do not exist. Is an "
                "archive only half unpacked, or not yet?"
            )


def unpacked(root: Path, *names: str) -> Path:
    """Return the first existing folder of these names in a root, else the root.

    So a user may give either the folder of an archive, or the folder that it was unpacked into.
    """
    return next((root / name for name in names if (root / name).is_dir()), root)
