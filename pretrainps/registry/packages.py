"""Find a data file inside an installed package without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pretrainps.errors import RegistryError
from pretrainps.registry.specs import safe_file_name


def package_file(package: str, file: str, where: str) -> Path:
    """Return the path of a file in a top-level package; it may not exist.

    Raises:
        RegistryError: there is no such package, or the file name leads outside it.
    """
    safe_file_name(file, where)
    # for a dotted name, find_spec would import the parent
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise RegistryError(f"{where}: there is no installed package {package!r}. Install, repair or remove it.")
    return Path(next(iter(found.submodule_search_locations))) / file
