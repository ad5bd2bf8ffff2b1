"""A pre-trained model hub for person search.

    import pretrainps

    backbone = pretrainps.load("resnet50-hybrid")      # verified weights, c2 to c5
    transform = pretrainps.preprocess(backbone)        # the input those weights expect

Importing the package imports neither torch nor anything else that is heavy; each public name does so when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pretrainps._version import __version__ as __version__

if TYPE_CHECKING:
    from pretrainps.building import build_detector as build_detector
    from pretrainps.gallery import Gallery as Gallery
    from pretrainps.inspection import inspect as inspect
    from pretrainps.loading import download as download
    from pretrainps.loading import load as load
    from pretrainps.loading import preprocess as preprocess
    from pretrainps.names import info as info
    from pretrainps.publish import push_to_hub as push_to_hub
    from pretrainps.publish import save_pretrained as save_pretrained
    from pretrainps.registry import ModelSpec as ModelSpec
    from pretrainps.registry import list_models as list_models

_HOME = {
    "Gallery": "pretrainps.gallery",
    "ModelSpec": "pretrainps.registry",
    "build_detector": "pretrainps.building",
    "download": "pretrainps.loading",
    "info": "pretrainps.names",
    "inspect": "pretrainps.inspection",
    "list_models": "pretrainps.registry",
    "load": "pretrainps.loading",
    "preprocess": "pretrainps.loading",
    "push_to_hub": "pretrainps.publish",
    "save_pretrained": "pretrainps.publish",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pretrainps' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
