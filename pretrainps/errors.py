"""Every exception of the package. Each message says what happened, where, and what to do next.

All derive from `PretrainPSError`; most derive from a built-in as well, so that code which knows nothing of this package
(`except OSError`) still behaves.
"""

from __future__ import annotations

from typing import Any


class PretrainPSError(Exception):
    """Base of every error raised on purpose by `pretrainps`."""


class UnknownModelError(PretrainPSError, LookupError):
    """A model name that no registry knows; carries the nearest names in `suggestions`."""

    def __init__(self, message: str, *, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


class RegistryError(PretrainPSError, ValueError):
    """A registry file that does not follow the schema, or two entries that collide."""


class ArgumentError(PretrainPSError, ValueError):
    """An argument that cannot be right, whatever the files say."""


class CacheError(PretrainPSError, OSError):
    """The cache, or a place to write to, cannot be used: read-only, full, or not what it should be."""


class WeightsUnavailableError(PretrainPSError, OSError):
    """No source gave the file; the message lists every source tried and how to place the file by hand."""


class OfflineError(WeightsUnavailableError):
    """The file is not in the cache and the network may not be used."""


class GatedWeightsError(WeightsUnavailableError):
    """The source answers, but asks for a login or for accepted terms first."""


class IntegrityError(PretrainPSError, OSError):
    """A file whose size or sha256 is not the expected one."""


class CheckpointFormatError(PretrainPSError, ValueError):
    """A file that is no readable checkpoint: HTML, truncated, or a pickle that asks to run code."""


class StateDictMismatchError(PretrainPSError, ValueError):
    """The file and the model differ in a way the spec does not declare; carries the report.

    Attributes:
        report: A `pretrainps.weights.LoadReport`. Errors stand below all other modules, so it is not named as a type here.
    """

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report


class LayoutError(PretrainPSError, ValueError):
    """A key layout that is unknown, or that cannot express this model."""


class UnsupportedModelError(PretrainPSError, ValueError):
    """A model that exists but cannot be used for what was asked (no stride-16 map, no batch norm, ...)."""


class MissingPackageError(PretrainPSError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class ImageError(PretrainPSError, OSError):
    """An image that cannot be read."""


class DatasetError(PretrainPSError, ValueError):
    """A data set that does not lie on disk as its layout wants it, or whose annotation cannot be right."""


class NonFiniteError(PretrainPSError, ArithmeticError):
    """What a network computed is not finite: its weights are not, or half precision overflowed."""


class TrainingError(PretrainPSError, RuntimeError):
    """A training that cannot start, go on or be resumed, for a reason that lies in the run: its folder, losses or model."""


class GalleryError(PretrainPSError, ValueError):
    """A gallery that cannot be used for what was asked: of another model or folder, being written to, or none at all."""
