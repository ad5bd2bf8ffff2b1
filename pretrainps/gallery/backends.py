"""Tables of back ends by name: those of this package, those registered by a call, and those of installed plug-ins."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from pretrainps.errors import ArgumentError

Backend = TypeVar("Backend")
_NAME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
"""What a name may be. It stands in URLs and in names of files."""


class BackendTable(Generic[Backend]):
    """Back ends of one kind by name.

    Args:
        what: What the back ends are, for messages.
        group: Entry points of this group are back ends of installed packages. They are imported only when they are asked for.
        register: The name of the function that adds one, for messages.
    """

    def __init__(self, what: str, *, group: str, register: str) -> None:
        self.what, self.group, self.register = what, group, register
        self._table: dict[str, Backend] = {}

    def add(self, name: str, backend: Backend) -> None:
        """Add a back end.

        Args:
            name: Lower-case letters, digits, "+", "." and "-", beginning with a letter.
            backend: What `get` returns.

        Raises:
            ArgumentError: The name is taken, or cannot be one.
        """
        if not _NAME.fullmatch(name):
            raise ArgumentError(
                f"{name!r} cannot be the name of a {self.what}: use at most 32 lower-case letters, digits, '+', '.' and '-', "
                "with a letter first."
            )
        if name in self._table:
            raise ArgumentError(f"there is a {self.what} {name!r} already. Choose another name.")
        self._table[name] = backend

    def remove(self, name: str) -> None:
        """Take a registered back end out of the table again. Nothing happens if there is none of this name."""
        self._table.pop(name, None)

    def names(self) -> list[str]:
        """Return all names in order."""
        return sorted(self._table.keys() | self._plugins().keys())

    def get(self, name: str) -> Backend:
        """Return the back end of a name.

        Raises:
            ArgumentError: There is none, or the plug-in that has it cannot be imported.
        """
        if name in self._table:
            return self._table[name]
        point = self._plugins().get(name)
        if point is None:
            raise ArgumentError(
                f"there is no {self.what} {name!r}. Known: {', '.join(self.names())}. Install the package that brings "
                f"it, or add it with {self.register}."
            )
        try:
            found: Backend = point.load()
        except Exception as error:
            raise ArgumentError(
                f"the {self.what} {name!r} of the plug-in {point.value} cannot be imported ({type(error).__name__}: {error}). "
                "Update or remove the package that brings it."
            ) from error
        return found

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}
