"""Recognize a backbone, its key layout and its prefix from keys and shapes alone."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.detectors.key_layouts import IN_DETECTOR, layout_of, layouts_of
from pretrainps.errors import RegistryError
from pretrainps.heads import build_head
from pretrainps.registry.specs import DetectorSpec, FileFormat, HeadSpec
from pretrainps.weights.key_layout import KeyLayout
from pretrainps.weights.prefixes import shared_prefixes
from pretrainps.weights.trunk import in_trunk

Shape = tuple[int, ...]

BATCH_COUNT = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """An architecture that fits the tensors in a file, and the names of the tensors."""

    arch: str
    file: FileFormat
    matched: int
    """Number of the model's tensors that the file has, with the right shapes."""
    used: int
    """Number of the file's keys that are used; more than `matched` if some tensors were written twice."""
    detector: DetectorSpec | None = None
    """The detector, if the file holds a whole one; then all fields are about the detector, not about its backbone alone."""
    head: HeadSpec | None = None
    """The head for crops, if the file holds one on the backbone."""
    missing: tuple[str, ...] = ()
    """The model's keys that the file lacks; batch counters do not count if the file has none at all."""
    known_extra: tuple[str, ...] = ()
    """Keys of the file that the layout knows but does not use."""
    extra: tuple[str, ...] = ()
    """Keys of the file that belong to no known part, and may be ignored."""
    trunk: tuple[str, ...] = ()
    """Keys of the file that would be part of the network itself and that the model lacks: it is another architecture."""

    @property
    def loads(self) -> bool:
        """Whether the model can be filled once the extra keys are ignored."""
        return not (self.missing or self.trunk)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """The expected keys and shapes in a file of one model in one layout."""

    layout: KeyLayout
    shapes: Mapping[str, Shape]
    """The model's own keys and shapes."""
    native: Mapping[str, str]
    """Each key of the layout -> the native name; two keys may be copies of one tensor."""
    unused: Mapping[str, Shape]
    """Further keys that the layout writes, with their shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The result of a comparison of a file's keys and shapes with the expected ones."""

    have: frozenset[str]
    """The model's keys that the file has."""
    used: int
    missing: tuple[str, ...]
    known_extra: tuple[str, ...]
    extra: tuple[str, ...]
    trunk: tuple[str, ...]
    uncounted: tuple[str, ...]
    """Shell patterns of batch counters that the file does not have at all."""


def recognize(
    shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = (), *, arch: str | None = None, prefix: str | None = None
) -> Recognition | None:
    """Find the architecture, key layout and prefix that fit the shapes best.

    Args:
        shapes: The file's keys and shapes.
        wrapper: Dictionary keys above them in the file.
        arch: Search for this architecture only; for a whole detector this means its backbone alone.
        prefix: The prefix of the keys; by default it is searched for.

    Returns:
        The best candidate: first one without missing keys, then the one with the most tensors, then the one with the fewest
        keys left over. `None` if the best has less than half of its tensors. The file is complete if `missing` is empty.
        (Batch counters do not count if there are none: old files lack them.)
    """
    best = max(_candidates(shapes, wrapper, arch, prefix), key=_rank, default=None)
    if best is None or (arch is None and 2 * len(best.missing) > best.matched):
        return None
    return _with_head(best, shapes)


def _rank(found: Recognition) -> tuple[bool, int, int, int]:
    size = -len(found.known_extra) - len(found.file.prefix)
    return not found.missing, found.matched - len(found.missing), -len(found.extra) - len(found.trunk), size


def _candidates(
    shapes: Mapping[str, Shape], wrapper: tuple[str, ...], arch: str | None, prefix: str | None
) -> Iterator[Recognition]:
    for name in [arch] if arch is not None else _possible(shapes):
        for expected in _in_layouts(name, inside_detectors=arch is not None):
            for before, count in prefixes(shapes, expected, prefix):
                if arch is None and 2 * count < len(expected.native):
                    continue
                known = expected.layout.heads if arch is not None else ()
                fit = fitted(shapes, before, expected, known=(*known, *_network(name).dropped_keys))
                yield Recognition(
                    arch=name,
                    file=file_format(fit, expected.layout, wrapper, before),
                    matched=len(fit.have),
                    used=fit.used,
                    missing=fit.missing,
                    known_extra=fit.known_extra,
                    extra=fit.extra,
                    trunk=fit.trunk,
                )


def _possible(shapes: Mapping[str, Shape]) -> list[str]:
    """Return the package's architectures, without those that would have a known key that the file lacks."""
    tells = {architecture.signature_key for architecture in ARCHITECTURES.values()}
    there = {signature_key for signature_key in tells if any(signature_key in key for key in shapes)}
    return [arch for arch, architecture in ARCHITECTURES.items() if architecture.signature_key in there]


def closest_architectures(shapes: Mapping[str, Shape]) -> list[str]:
    """Return the architectures with at least half of their tensors in a file under some prefix, the closest first."""
    shares: dict[str, float] = {}
    for arch in _possible(shapes):
        wanted, found = _network(arch).shapes, set()
        for key, shape in shapes.items():
            parts = key.split(".")[-8:]
            found |= {name for start in range(len(parts)) if wanted.get(name := ".".join(parts[start:])) == shape}
        shares[arch] = len(found) / len(wanted)
    return sorted((arch for arch in shares if 2 * shares[arch] >= 1), key=lambda arch: -shares[arch])


def prefixes(shapes: Mapping[str, Shape], expected: Expected, prefix: str | None) -> list[tuple[str, int]]:
    """Return the prefixes to try, each with the number of expected keys that have it."""
    if prefix is None:
        return shared_prefixes(shapes, expected.native.keys())
    return [(prefix, sum(key.startswith(prefix) and key.removeprefix(prefix) in expected.native for key in shapes))]


def fitted(
    shapes: Mapping[str, Shape],
    prefix: str,
    expected: Expected,
    *,
    known: Sequence[str] = (),
    counters: Sequence[str] = ("*",),
    optional: Collection[str] = (),
) -> Fit:
    """Compare a file with the expected keys and shapes.

    Args:
        shapes: The file's keys and shapes.
        prefix: The prefix of the keys.
        expected: The model's keys in the layout to try.
        known: Shell patterns of keys, after the prefix, that may exist and are not used.
        counters: Shell patterns of groups of keys; all batch counters of a group may be missing together.
        optional: The model's keys that may be missing.
    """
    layout, wanted = expected.layout, expected.shapes
    inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    aside = _unused(inside, expected) | {key for key in inside if _matches(key, known)}
    place: dict[str, str] = {}
    extra: dict[str, str] = {}  # the file's key -> its native name
    used = set()
    for key, shape in inside.items():
        if key in aside:
            continue
        name = expected.native.get(key) or layout.native_name(key)
        # values are reordered only under the layout's own names; otherwise another name for the same tensor is valid
        proven = key in expected.native or not (layout.reorders or layout is IN_DETECTOR)
        copy = name not in place or (key in expected.native and place[name] in expected.native)
        if wanted.get(name) != shape or not (proven and copy):
            extra[key] = name
        else:
            place.setdefault(name, key)
            used.add(key)
    # a missing copy, while the other one exists
    lost = [
        key
        for key, name in expected.native.items()
        if key not in used and place.get(name) in expected.native and not _matches(key, known)
    ]
    absent = [key for key in wanted if key not in place and key not in optional]
    uncounted = [
        f"{group}{BATCH_COUNT}"
        for group in counters
        if (counted := [key for key in wanted if _matches(key, [f"{group}{BATCH_COUNT}"])])
        and not any(key in place for key in counted)
    ]
    names_in_trunk = in_trunk(extra.values(), wanted)
    trunk = [key for key, name in extra.items() if name in names_in_trunk]
    return Fit(
        have=frozenset(place),
        used=len(used),
        missing=(
            *(key for key in absent if not _matches(key, uncounted)),
            *(prefix + key for key in lost),
        ),
        known_extra=tuple(prefix + key for key in inside if key in aside),
        extra=(
            *(prefix + key for key in extra if key not in set(trunk)),
            *(key for key in shapes if not key.startswith(prefix)),
        ),
        trunk=tuple(prefix + key for key in trunk),
        uncounted=tuple(uncounted),
    )


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _unused(inside: Mapping[str, Shape], expected: Expected) -> set[str]:
    """Return the keys that are not used; those that the layout writes itself only if they have its shapes."""
    found = {key for key in inside if _matches(key, expected.layout.unused)}
    written = expected.unused
    return set() if written and {key: inside[key] for key in found} not in ({}, written) else found


def file_format(fit: Fit, layout: KeyLayout, wrapper: tuple[str, ...], prefix: str, new: tuple[str, ...] = ()) -> FileFormat:
    """Return the declaration of the form of a file's tensors."""
    return FileFormat(
        layout=layout.name,
        wrapper=wrapper,
        prefix=prefix,
        ignored=tuple(glob.escape(key) for key in fit.known_extra),
        expected_missing=fit.uncounted,
        new=new,
        tensors=len(fit.have),
    )


def expected_in(layout: KeyLayout, shapes: Mapping[str, Shape]) -> Expected:
    """Return the expected keys and shapes of a model's file in a layout.

    Args:
        layout: The key layout.
        shapes: The model's own keys and shapes.
    """
    empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    written = {key: tuple(value.shape) for key, value in layout.from_native(empty).items()}
    unused = {key: shape for key, shape in written.items() if _matches(key, layout.unused)}
    # one by one, because a layout may write one tensor twice
    native = {key: name for name, value in empty.items() for key in layout.from_native({name: value}) if key not in unused}
    return Expected(layout=layout, shapes=shapes, native=native, unused=unused)


@dataclass(frozen=True, slots=True)
class _Network:
    """The properties of an architecture that matter for its files."""

    family: str
    shapes: Mapping[str, Shape]
    in_detector: Mapping[str, str]
    """Each key inside a detector of this package -> the backbone's own key."""
    dropped_keys: tuple[str, ...]
    width: int
    """Channels of its last map."""


@cache
def _network(arch: str) -> _Network:
    # only names and shapes are needed; but a timm model must compute a probe before it is split
    with torch.device("meta") if arch in ARCHITECTURES else contextlib.nullcontext():
        backbone = build_backbone(arch).to("meta")
    trunk, last = backbone.split()
    names = {f"backbone.{key}": key for key in trunk.state_dict()} | {
        f"box_stage.stage.{key}": key for key in last.state_dict()
    }
    shapes = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    return _Network(backbone.family, shapes, names, backbone.dropped_keys, backbone.channels["c5"])


@cache
def _in_layouts(arch: str, *, inside_detectors: bool) -> tuple[Expected, ...]:
    """Return an architecture's keys in each layout of its family; layouts with the same names come once."""
    network = _network(arch)
    # native names last: if another code base has the same names, its name says more
    layouts = [each for each in layouts_of(network.family).values() if each.name != "native"]
    found: dict[frozenset[str], Expected] = {}
    for layout in (*layouts, layout_of(network.family, "native")):
        expected = expected_in(layout, network.shapes)
        found.setdefault(frozenset(expected.native), expected)
    if inside_detectors:
        of_detector = Expected(layout=IN_DETECTOR, shapes=network.shapes, native=network.in_detector, unused={})
        found[frozenset(network.in_detector)] = of_detector
    return tuple(found.values())


def _with_head(found: Recognition, shapes: Mapping[str, Shape]) -> Recognition:
    """Add the head for crops that a file of a `CropModel` has next to its backbone."""
    before = found.file.prefix.removesuffix("backbone.")
    ours = all(
        layout_of(_network(found.arch).family, found.file.layout).native_name(key) == key for key in _network(found.arch).shapes
    )
    if found.missing or before == found.file.prefix or not ours:
        return found
    head_shapes = {key.removeprefix(before): shapes[key] for key in found.extra if key.startswith(f"{before}head.")}
    head = _head(head_shapes, _network(found.arch).width)
    if head is None:
        return found
    with torch.device("meta"):
        wanted = {
            f"head.{key}": value.shape for key, value in build_head(head, _network(found.arch).width).state_dict().items()
        }
    have = {key for key, shape in head_shapes.items() if wanted.get(key) == shape}
    lost = {key for key in wanted if key not in have and not _matches(key, found.file.expected_missing)}
    if lost or len(have) < len(head_shapes):  # another head that begins like ours, such as one without a bias
        return found
    return replace(
        found,
        head=head,
        file=replace(found.file, layout="native", prefix=before, tensors=found.matched + len(have)),
        matched=found.matched + len(have),
        used=found.used + len(have),
        extra=tuple(key for key in found.extra if key.removeprefix(before) not in head_shapes),
    )


def _head(head_shapes: Mapping[str, Shape], width: int) -> HeadSpec | None:
    classifier, projection = (head_shapes.get(f"head.{name}.weight", ()) for name in ("fc", "projection.0"))
    try:
        if len(classifier) == 2 and classifier[1] == width:
            return HeadSpec(kind="classifier", num_classes=classifier[0])
        if len(projection) == 2 and projection[1] == width:
            return HeadSpec(kind="embedding", embedding_dim=projection[0])
    except RegistryError:  # no rows, or too many
        pass
    return None
