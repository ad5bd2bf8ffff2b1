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
    from pretrainps.evaluation.evaluate import evaluate as evaluate
    from pretrainps.gallery import Gallery as Gallery
    from pretrainps.hub.build import build_detector as build_detector
    from pretrainps.hub.load import download as download
    from pretrainps.hub.load import load as load
    from pretrainps.hub.load import preprocess as preprocess
    from pretrainps.hub.publish import push_to_hub as push_to_hub
    from pretrainps.hub.publish import save_pretrained as save_pretrained
    from pretrainps.hub.resolve import info as info
    from pretrainps.registry import ModelSpec as ModelSpec
    from pretrainps.registry import list_models as list_models
    from pretrainps.weights.inspect import inspect as inspect

_HOME = {
    "Gallery": "pretrainps.gallery",
    "ModelSpec": "pretrainps.registry",
    "build_detector": "pretrainps.hub.build",
    "download": "pretrainps.hub.load",
    "evaluate": "pretrainps.evaluation.evaluate",
    "info": "pretrainps.hub.resolve",
    "inspect": "pretrainps.weights.inspect",
    "list_models": "pretrainps.registry",
    "load": "pretrainps.hub.load",
    "preprocess": "pretrainps.hub.load",
    "push_to_hub": "pretrainps.hub.publish",
    "save_pretrained": "pretrainps.hub.publish",
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
