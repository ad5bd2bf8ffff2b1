"""From a model name to a verified file on this machine. Imports no torch.

`pretrainps.download` is a public function too. Python binds a package under its own name, so this one can be called: the
function of `pretrainps.hub.load` is what runs.
"""

import sys
from types import ModuleType
from typing import Any

from pretrainps.download.cache import Cache as Cache
from pretrainps.download.cache import default_root as default_root
from pretrainps.download.fetch import Fetched as Fetched
from pretrainps.download.fetch import fetch as fetch


class _CallableRoom(ModuleType):
    """This package, with the public function of the same name behind it."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run `pretrainps.hub.load.download`."""
        from importlib import import_module

        return import_module("pretrainps.hub.load").download(*args, **options)


sys.modules[__name__].__class__ = _CallableRoom
