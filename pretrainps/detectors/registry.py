"""The detectors by name: what each declares of itself, how another package adds one, and building one.

A detector is one module that ends in `register_detector(DetectorEntry(...))`. Those of this package lie in the packages of the
families (`pretrainps/detectors/region/` and those next to it) and are found there. Another package registers its own when it is
imported, or names the module as an entry point of the group `pretrainps.detectors`: then it need not be imported first.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Literal

from torch import Tensor

from pretrainps.backbones import Backbone
from pretrainps.detectors.base import PersonSearchDetector
from pretrainps.detectors.config import DetectorConfig
from pretrainps.errors import ArgumentError, UnknownModelError, UnsupportedModelError
from pretrainps.registry.specs import InputConvention
from pretrainps.weights.key_layout import KeyLayout
from pretrainps.weights.unwrap import unwrap

log = logging.getLogger("pretrainps")
ENTRY_POINTS = "pretrainps.detectors"
"""The group of entry points by which an installed package adds detectors."""
_PACKAGE = "pretrainps.detectors"
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneDefaults:
    """How a detector is trained on one data set: what its recipe holds, as plain data."""

    summary: str
    """One sentence for `--help` and the recipe's documentation."""
    protocol: str
    """The protocol that it is measured by, a key of `pretrainps.evaluation.PROTOCOLS`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the detector that are not at their defaults, `queue_size` among them."""
    small: bool = False
    """Whether it is for a tiny network on drawn scenes. The recipe then takes the settings of such trainings, and the fields
    below do not count."""
    epochs: int = 20
    """Passes over the training images."""
    lr: float = 0.003
    """Learning rate of SGD, for batches of `reference_batch` images."""
    reference_batch: int = 5
    """Images in a batch for which `lr` is meant; other sizes scale it."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises."""
    milestones: tuple[float, ...] = (16.0,)
    """Epochs after which the learning rate is divided by 10."""
    decay: Literal["all", "no_biases", "matrices"] = "all"
    """Which parameters the weight decay takes hold of."""
    clip_norm: float | None = 10.0
    """Largest norm of the gradients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorEntry:
    """Everything that the package knows of one detector."""

    name: str
    """What it is called in `build_detector`, in files and on the command line."""
    model: Callable[[Backbone, Any, InputConvention], PersonSearchDetector[Any]]
    """The class, or a function that builds the detector."""
    config: type[DetectorConfig]
    """The class of its settings."""
    key_layouts: Mapping[str, tuple[KeyLayout, ...]] = field(default_factory=dict)
    """The names that the original code gives the tensors of the whole detector, by family of backbone."""
    backbone_key_layouts: Mapping[str, tuple[KeyLayout, ...]] = field(default_factory=dict)
    """The names that the original code gives the tensors of a bare backbone, by family of backbone."""
    signature_keys: tuple[str, ...] = ()
    """Pieces of keys; every file of the detector has at least one of them, under any layout. It saves comparing others with it.
    Empty: every file is compared."""
    variants: tuple[Mapping[str, Any], ...] = ({},)
    """Settings that change the keys, one mapping for each set of keys."""
    sizes: Callable[[Mapping[str, Shape], Mapping[str, Any]], dict[str, Any]] | None = None
    """Reads the sizes in a config off a file: from shapes under the detector's own names, and one of `variants`, to fields of
    `config`. Without it, the file of such a detector is not recognized by its keys, and needs its `config.json`."""
    tables: tuple[str, ...] = ()
    """Tensors that only training needs and that start with zeros, such as identity tables. A file may lack them."""
    pretrained_heads: Mapping[str, str] = field(default_factory=dict)
    """From each head of hybrid pre-training that the detector takes over to its own module."""
    adapt_head: Callable[[str, Tensor], Tensor] | None = None
    """Brings a tensor of a pre-trained head into the detector's shape, given its key under the detector's names."""
    own_settings: tuple[str, ...] = ()
    """Of the settings that pre-trained heads depend on, those that the detector keeps to itself."""
    recipes: Mapping[str, FinetuneDefaults] = field(default_factory=dict)
    """By name of the recipe, as `pretrainps finetune --config` takes it: how the detector is trained on a data set."""

    @property
    def title(self) -> str:
        """What it is called in sentences: the name of its class."""
        return getattr(self.model, "__name__", self.name)


_entries: dict[str, DetectorEntry] = {}
_broken: dict[str, str] = {}
"""From each plug-in that could not be loaded to the reason."""
_found: set[str] = set()
"""What has been searched already: "built-in", "plug-ins"."""
_lock = threading.RLock()


def register_detector(entry: DetectorEntry) -> None:
    """Add a detector, so that it can be built, loaded, trained, indexed with and exported by its name.

    Raises:
        ArgumentError: another detector has the name.

    Example:
        >>> from pretrainps.detectors.registry import DetectorEntry, register_detector
        >>> register_detector(DetectorEntry(name="mine", model=Mine, config=MineConfig))  # doctest: +SKIP
    """
    with _lock:
        if not _is_built_in(entry):
            _find_built_in()
        there = _entries.get(entry.name)
        if there is not None and there is not entry and not _same(there, entry):
            raise ArgumentError(
                f"there is a detector {entry.name!r} already, of {there.config.__module__}. Register yours under another name."
            )
        _entries[entry.name] = entry


class _Detectors(Mapping[str, DetectorEntry]):
    """The registered detectors, looked for when they are first asked for. Those of this package come first."""

    def __getitem__(self, name: str) -> DetectorEntry:
        _find()
        return _entries[name]

    def __iter__(self) -> Iterator[str]:
        _find()
        return iter(sorted(_entries, key=lambda name: (not _is_built_in(_entries[name]), name)))

    def __len__(self) -> int:
        _find()
        return len(_entries)

    def __repr__(self) -> str:
        return f"DETECTORS({', '.join(self)})"


DETECTORS: Mapping[str, DetectorEntry] = _Detectors()
"""What `build_detector` knows, by name; read-only."""


def detector_entry(name: str) -> DetectorEntry:
    """Return what is declared of a detector.

    Raises:
        UnknownModelError: no such detector; names the nearest, and the plug-ins that could not be loaded.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(str(name).lower(), DETECTORS, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        lost = "".join(f" {reason}" for reason in _broken.values())
        raise UnknownModelError(
            f"unknown detector {name!r}. {hint}There are: {', '.join(DETECTORS)}.{lost}", suggestions=tuple(near)
        )
    return DETECTORS[name]


def assemble(
    name: str, backbone: Backbone, config: DetectorConfig | Mapping[str, Any], convention: InputConvention
) -> PersonSearchDetector[Any]:
    """Put a detector on a backbone. Its heads start at random; the backbone's weights are copied.

    Args:
        name: A key of `DETECTORS`.
        backbone: Any backbone that the detector can be put on.
        config: The detector's own config, or its fields as a mapping.
        convention: How the backbone's weights want their pixels.

    Raises:
        UnknownModelError: no such detector.
        ArgumentError: a config of another detector, or with a field that cannot be.
        UnsupportedModelError: a module that is no backbone, or one without the maps that the detector needs.
    """
    entry = detector_entry(name)
    if not isinstance(config, DetectorConfig):
        config = entry.config.from_mapping(config)
    if type(config) is not entry.config:
        raise ArgumentError(f"the detector {name!r} takes a {entry.config.__name__}, not a {type(config).__name__}.")
    backbone = unwrap(backbone)
    if not isinstance(backbone, Backbone):
        raise UnsupportedModelError(
            f"{type(backbone).__name__} is no backbone of pretrainps, so it cannot be split. Give a name, such as "
            "'resnet50-hybrid' or 'timm:convnext_tiny.fb_in1k', or what `pretrainps.load` returns."
        )
    return entry.model(backbone, config, convention)


def _is_built_in(entry: DetectorEntry) -> bool:
    return entry.config.__module__.startswith(f"{_PACKAGE}.")


def _same(one: DetectorEntry, other: DetectorEntry) -> bool:
    """Return whether two entries are of one module, imported again (`importlib.reload`)."""
    return (one.config.__module__, one.config.__qualname__) == (other.config.__module__, other.config.__qualname__)


def _find() -> None:
    """Import the modules of all detectors, once."""
    with _lock:
        _find_built_in()
        if "plug-ins" in _found:
            return
        _found.add("plug-ins")
        for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: (each.name, each.value)):
            try:
                _take(point)
            except Exception as error:  # another package's code: anything may go wrong in it, and the others go on
                origin = f" of the package {point.dist.name}" if point.dist is not None else ""
                _broken[point.name] = (
                    f"The detector plug-in {point.name!r} ({point.value}){origin} could not be loaded: "
                    f"{type(error).__name__}: {error}. Update or uninstall that package."
                )
                log.warning("%s", _broken[point.name])


def _find_built_in() -> None:
    if "built-in" in _found:
        return
    _found.add("built-in")
    for family in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        if family.ispkg:
            for module in pkgutil.iter_modules(importlib.import_module(family.name).__path__, f"{family.name}."):
                importlib.import_module(module.name)


def _take(point: EntryPoint) -> None:
    """Import what an entry point names: a module that registers its detectors, or a `DetectorEntry`."""
    loaded = point.load()
    if isinstance(loaded, DetectorEntry):
        register_detector(loaded)
    elif not isinstance(loaded, ModuleType):
        raise TypeError(f"it must name a module or a DetectorEntry, not a {type(loaded).__name__}")
