"""Every exception of the package. Each message says what happened, where, and what to do next.

All derive from `PretrainPSError`. Most also derive from a built-in exception, so that code that does not know this package
(`except OSError`) still works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrainps.weights.report import LoadReport


class PretrainPSError(Exception):
    """Base of every error raised on purpose by `pretrainps`."""


class UnknownModelError(PretrainPSError, LookupError):
    """A model name that no registry has; `suggestions` holds the nearest names."""

    def __init__(self, message: str, *, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


class RegistryError(PretrainPSError, ValueError):
    """A registry file that does not follow the schema, or two entries of the same name."""


class ArgumentError(PretrainPSError, ValueError):
    """An argument that is invalid, whatever the files hold."""


class CacheError(PretrainPSError, OSError):
    """The cache, or another place to write to, cannot be used: it is read-only, full or damaged."""


class WeightsUnavailableError(PretrainPSError, OSError):
    """No source gave the file; the message lists every source tried and how to place the file by hand."""


class OfflineError(WeightsUnavailableError):
    """The file is not in the cache, and the use of the network is off."""


class GatedWeightsError(WeightsUnavailableError):
    """The source answers, but requires a login or accepted terms first."""


class IntegrityError(PretrainPSError, OSError):
    """A file without the expected size or sha256."""


class CheckpointFormatError(PretrainPSError, ValueError):
    """A file that is no readable checkpoint: it is HTML, truncated, or a pickle that would run code."""


class StateDictMismatchError(PretrainPSError, ValueError):
    """The file and the model differ in a way that the spec does not declare; `report` holds the `LoadReport`."""

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


class LayoutError(PretrainPSError, ValueError):
    """A key layout that is not known, or that cannot express this model."""


class UnsupportedModelError(PretrainPSError, ValueError):
    """A model that exists but does not support the requested use (no stride-16 map, no batch norm, ...)."""


class MissingPackageError(PretrainPSError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class ImageError(PretrainPSError, OSError):
    """An image that cannot be read."""


class DatasetError(PretrainPSError, ValueError):
    """A data set with files that do not follow its layout, or with impossible annotation."""


class NonFiniteError(PretrainPSError, ArithmeticError):
    """A network's output is not finite: its weights are not finite, or half precision overflowed."""


class TrainingError(PretrainPSError, RuntimeError):
    """A training that cannot start, continue or resume because of the run itself: its folder, losses or model."""


class GalleryError(PretrainPSError, ValueError):
    """A gallery that cannot be used: it is of another model or folder, is being written, or is no gallery."""
