"""Person-search detectors on any backbone.

The class and the settings of each registered detector are attributes of this package, such as
`pretrainps.detectors.SeqNet` and `SeqNetConfig`; `DETECTORS` has them by the detector's name.
"""

from typing import Any

from pretrainps.detectors.base import PersonSearchDetector as PersonSearchDetector
from pretrainps.detectors.config import DetectorConfig as DetectorConfig
from pretrainps.detectors.registry import DETECTORS as DETECTORS
from pretrainps.detectors.registry import DetectorEntry as DetectorEntry
from pretrainps.detectors.registry import assemble as assemble
from pretrainps.detectors.registry import register_detector as register_detector


def __getattr__(name: str) -> Any:
    if name[:1].isupper():  # a class, and not what the import system asks for, which may be while detectors are being found
        for entry in DETECTORS.values():
            for each in (entry.model, entry.config):
                if getattr(each, "__name__", None) == name:
                    return each
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
